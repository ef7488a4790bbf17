use anyhow::{Result, bail};

use super::Lowering;
use crate::device::Primitive;

/// Lowers a primitive of this family.
pub(super) fn lower(_lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    bail!("no kernel for the primitive '{}' yet", primitive.name())
}
