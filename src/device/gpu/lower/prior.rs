//! The moving mean feature and the class-prior estimate.

use anyhow::{Result, bail};

use super::Lowering;
use crate::device::Primitive;
use crate::device::gpu::kernels::prior::{self as kernels, CLASSES, COLUMNS, THREADS};

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::MeanFeature { rows, inputs, momentum, features, mean } => {
            let parameters = kernels::MeanFeature {
                rows,
                inputs,
                momentum,
                features: lowering.address(features),
                mean: lowering.address(mean),
            };
            lowering.launch(kernels::MEAN_FEATURE.linear(inputs.div_ceil(COLUMNS), THREADS, parameters));
        }
        Primitive::ClassPrior { inputs, classes, mean, parameters, log_prior } => {
            let scores = lowering.workspace(classes * size_of::<f32>());
            let parameters = kernels::ClassScores {
                inputs,
                classes,
                mean: lowering.address(mean),
                parameters: lowering.address(parameters),
                scores,
            };
            let blocks = classes.div_ceil(CLASSES);
            lowering.launch(kernels::CLASS_SCORES.linear(blocks, 32 * CLASSES, parameters));
            let log_prior = lowering.address(log_prior);
            let parameters = kernels::LogClassPrior { classes, scores, log_prior };
            lowering.launch(kernels::LOG_CLASS_PRIOR.linear(1, THREADS, parameters));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
