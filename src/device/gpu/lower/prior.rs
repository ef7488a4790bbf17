//! The moving mean feature and the class-prior estimate.

use anyhow::{Result, bail};

use super::Lowering;
use crate::device::Primitive;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};

const FILE: &str = "prior.cu";

/// Columns of features that a block averages.
const COLUMNS: usize = 8;

/// Classes of a block, one a warp.
const CLASSES: usize = 4;

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::MeanFeature { rows, inputs, momentum, features, mean } => {
            let arguments = Arguments::new()
                .pointer(lowering.address(features))
                .pointer(lowering.address(mean))
                .count(rows)
                .count(inputs)
                .float(momentum);
            let kernel = Kernel { file: FILE, name: "mean_feature" };
            lowering.launch(Launch::linear(kernel, inputs.div_ceil(COLUMNS), 256, arguments));
        }
        Primitive::ClassPrior { inputs, classes, mean, parameters, log_prior } => {
            let scores = lowering.workspace(classes * size_of::<f32>());
            let arguments = Arguments::new()
                .pointer(lowering.address(mean))
                .pointer(lowering.address(parameters))
                .pointer(scores)
                .count(inputs)
                .count(classes);
            let kernel = Kernel { file: FILE, name: "class_scores" };
            lowering.launch(Launch::linear(kernel, classes.div_ceil(CLASSES), 32 * CLASSES, arguments));
            let arguments =
                Arguments::new().pointer(scores).pointer(lowering.address(log_prior)).count(classes);
            let kernel = Kernel { file: FILE, name: "log_class_prior" };
            lowering.launch(Launch::linear(kernel, 1, 256, arguments));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
