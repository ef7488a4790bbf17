//! The parts of a step that times are summed over: a kernel belongs to the part of its file, or of its name
//! where a file has several.

/// What is launched between steps belongs to these, whatever the kernel.
pub const EVALUATION: &str = "evaluation";
/// Time between kernels.
pub const GAPS: &str = "launch gaps";
/// What branches gain by running side by side, below 0.
pub const OVERLAP: &str = "side by side";

/// What a kernel whose file is not in the list belongs to: one from outside the program.
pub const OTHER: &str = "other";

/// Files of kernels, the beginnings of names in them, and their parts; the first that fits counts.
const PARTS: &[(&str, &str, &str)] = &[
    ("convolution_forward.cu", "", "backbone forward"),
    ("convolution_inference.cu", "", "backbone forward"),
    ("convolution_stem.cu", "convolution_stem_forward", "backbone forward"),
    ("convolution_stem.cu", "", "backward weight"),
    ("convolution_data_gradient.cu", "", "backward data"),
    ("convolution_of_batchnorm.cu", "convolution_forward", "backbone forward"),
    ("convolution_of_batchnorm.cu", "", "backward data"),
    ("convolution_weight_gradient.cu", "", "backward weight"),
    ("convolution_f32.cu", "convolution_forward", "backbone forward"),
    ("convolution_f32.cu", "convolution_data", "backward data"),
    ("convolution_f32.cu", "", "backward weight"),
    ("batchnorm.cu", "batchnorm_gradient", "batchnorm backward"),
    ("batchnorm.cu", "", "batchnorm forward"),
    ("batchnorm_joint.cu", "batchnorm_own_gradient", "batchnorm backward"),
    ("batchnorm_joint.cu", "batchnorm_joint_gradient", "batchnorm backward"),
    ("batchnorm_joint.cu", "", "batchnorm forward"),
    ("division.cu", "", "exchanges"),
    ("pooling.cu", "", "head"),
    ("linear.cu", "", "head"),
    ("loss.cu", "count", "counters"),
    ("loss.cu", "step_statistics", "counters"),
    ("loss.cu", "confidence_statistics", "counters"),
    ("loss.cu", "", "loss"),
    ("loss_by_kind.cu", "", "loss"),
    ("prior.cu", "", "RECORDS"),
    ("sinkhorn.cu", "", "Sinkhorn"),
    ("solar.cu", "", "SoLar"),
    ("pico.cu", "", "PiCO"),
    ("augment.cu", "", "augmentation"),
    ("batch.cu", "mixup", "mixup"),
    ("batch.cu", "", "input"),
    ("optimizer.cu", "sgd", "optimiser"),
    ("optimizer.cu", "add", "optimiser"),
    ("optimizer.cu", "convert", "optimiser"),
    ("optimizer.cu", "", "head"),
    ("adamw.cu", "", "optimiser"),
    ("loss_scale.cu", "", "optimiser"),
];

/// The part that a kernel belongs to.
pub fn of(file: &str, kernel: &str) -> &'static str {
    let found = PARTS.iter().find(|(of, prefix, _)| *of == file && kernel.starts_with(prefix));
    found.map_or(OTHER, |(.., part)| part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::kernels::SIGNATURES;

    /// Every kernel that the engine can launch has a part; those to learn from are launched by nothing else.
    #[test]
    fn every_kernel_has_a_part() {
        for (kernel, _) in SIGNATURES {
            assert_ne!(
                of(kernel.source.name, kernel.name),
                OTHER,
                "{} of {}",
                kernel.name,
                kernel.source.name
            );
        }
        assert_eq!(of("own.cu", "own"), OTHER);
    }
}
