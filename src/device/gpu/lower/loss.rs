use anyhow::{Result, bail};

use super::Lowering;
use crate::device::Primitive;

/// Whether a loss and an update read the same logits and rows, so that one kernel does both.
pub(super) fn fits(pair: &Primitive, update: &Primitive) -> bool {
    let _ = (pair, update);
    false
}

/// Lowers a loss and the update of the same rows as one launch.
pub(super) fn lower_with_update(
    lowering: &mut Lowering<'_>,
    pair: &Primitive,
    update: &Primitive,
) -> Result<()> {
    lower(lowering, pair)?;
    lower(lowering, update)
}

/// Lowers a primitive of this family.
pub(super) fn lower(_lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    bail!("no kernel for the primitive '{}' yet", primitive.name())
}
