use anyhow::{Result, bail};

use super::Lowering;
use crate::device::Primitive;

/// Whether the batchnorm normalises what the convolution gives, so that its statistics can be summed where they are made.
pub(super) fn follows(convolution: &Primitive, batchnorm: &Primitive) -> bool {
    let _ = (convolution, batchnorm);
    false
}

/// Lowers a convolution and its batchnorm: the convolution's epilogue leaves partial sums.
pub(super) fn lower_with_convolution(
    lowering: &mut Lowering<'_>,
    convolution: &Primitive,
    batchnorm: &Primitive,
) -> Result<()> {
    super::convolution::lower(lowering, convolution)?;
    lower(lowering, batchnorm)
}

/// Lowers a primitive of this family.
pub(super) fn lower(_lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    bail!("no kernel for the primitive '{}' yet", primitive.name())
}
