//! Passes over the flat arena of all parameters: SGD; addition and conversion of flat arrays: four elements a thread.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Element, Primitive};

const THREADS: usize = 256;
/// Elements of a thread.
const ELEMENTS: usize = 4;

fn launch(name: &'static str, len: usize, arguments: Arguments) -> Launch {
    let kernel = Kernel { file: "optimizer.cu", name };
    Launch::linear(kernel, len.div_ceil(ELEMENTS).div_ceil(THREADS), THREADS, arguments)
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::Sgd { len, momentum, weight_decay, control, gradients, velocity, parameters, copy } => {
            ensure!(
                copy.is_none_or(|copy| lowering.element(copy) == Element::Bf16),
                "SGD keeps a rounded copy of the weights in bf16 only"
            );
            if len == 0 {
                return Ok(());
            }
            let arguments = Arguments::new()
                .count(len)
                .float(momentum)
                .float(weight_decay)
                .pointer(lowering.address(control))
                .pointer(lowering.address(gradients))
                .pointer(lowering.address(velocity))
                .pointer(lowering.address(parameters))
                .pointer(lowering.optional(copy));
            lowering.launch(launch("sgd", len, arguments));
        }
        Primitive::Add { len, x, into } => {
            if len == 0 {
                return Ok(());
            }
            let arguments =
                Arguments::new().count(len).pointer(lowering.address(x)).pointer(lowering.address(into));
            lowering.launch(launch("add", len, arguments));
        }
        Primitive::Convert { len, from, to } => {
            let name = match (lowering.element(from), lowering.element(to)) {
                (Element::F32, Element::Bf16) => "convert_bf16",
                (Element::F32, Element::F32) => "convert_f32",
                (from, to) => bail!("no conversion of {from:?} to {to:?}"),
            };
            if len == 0 {
                return Ok(());
            }
            let arguments =
                Arguments::new().count(len).pointer(lowering.address(from)).pointer(lowering.address(to));
            lowering.launch(launch(name, len, arguments));
        }
        _ => bail!("'{}' is no primitive of the optimiser", primitive.name()),
    }
    Ok(())
}
