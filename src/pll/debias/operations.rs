//! The class-prior estimate of RECORDS (ICLR 2023, section 4): softmax of the classifier applied to the
//! moving mean feature. Its kernels are those of `prior.cu`.

use anyhow::Result;

use crate::device::cpu::Call;
use crate::device::gpu::kernels::prior::{self as kernels, CLASSES, COLUMNS, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};
use crate::device::{Operand, Operation, Tensor};
use crate::ops::linear::dot;
use crate::ops::rows::{EPSILON, Softmax};

/// F <- m F + (1 - m) mean over the first `rows` rows of features `[R,D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MoveMeanFeature {
    /// Rows that the mean is over; those behind are mixed views.
    pub rows: usize,
    /// D.
    pub inputs: usize,
    /// m.
    pub momentum: f32,
    /// Features, f32 `[R,D]`.
    pub features: Tensor,
    /// F, f32 `[D]`.
    pub mean: Tensor,
}

/// log_prior `[K]` = ln(softmax(W F + b) + eps).
#[derive(Clone, Debug, PartialEq)]
pub struct EstimateClassPrior {
    /// D.
    pub inputs: usize,
    /// K.
    pub classes: usize,
    /// F, f32 `[D]`.
    pub mean: Tensor,
    /// The classifier, `[W (K x D); b (K)]`.
    pub parameters: Tensor,
    /// The result, f32 `[K]`.
    pub log_prior: Tensor,
}

impl Operation for MoveMeanFeature {
    fn name(&self) -> &'static str {
        "mean feature"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.features).touching(self.rows * self.inputs), Operand::update(self.mean)]
    }

    fn flops(&self) -> f64 {
        (self.rows * self.inputs) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { rows, inputs, momentum, .. } = *self;
        let features = cpu.f32(self.features)?;
        let mut sums = vec![0.0f64; inputs];
        for row in features.chunks_exact(inputs).take(rows) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        for (mean, sum) in cpu.f32_mut(self.mean)?.iter_mut().zip(sums) {
            *mean = momentum * *mean + (1.0 - momentum) * (sum / rows as f64) as f32;
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let parameters = kernels::MeanFeature {
            rows: self.rows,
            inputs: self.inputs,
            momentum: self.momentum,
            features: gpu.address(self.features),
            mean: gpu.address(self.mean),
        };
        gpu.launch(kernels::MEAN_FEATURE.linear(self.inputs.div_ceil(COLUMNS), THREADS, parameters));
        Ok(())
    }
}

impl Operation for EstimateClassPrior {
    fn name(&self) -> &'static str {
        "class prior"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.mean), Operand::read(self.parameters), Operand::write(self.log_prior)]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.inputs * self.classes) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { inputs, classes, .. } = *self;
        let (mean, parameters) = (cpu.f32(self.mean)?, cpu.f32(self.parameters)?);
        let (w, b) = parameters.split_at(inputs * classes);
        let logits: Vec<f32> = w.chunks_exact(inputs).zip(b).map(|(w, b)| dot(w, &mean) + b).collect();
        let mut softmax = Softmax::new(classes);
        let prior = &softmax.of(&logits).p;
        for (log_prior, p) in cpu.f32_mut(self.log_prior)?.iter_mut().zip(prior) {
            *log_prior = (p + EPSILON).ln();
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { inputs, classes, .. } = *self;
        let scores = gpu.workspace(classes * size_of::<f32>());
        let [mean, parameters, log_prior] =
            [self.mean, self.parameters, self.log_prior].map(|tensor| gpu.address(tensor));
        let (read, written) = ([self.mean, self.parameters].map(|t| gpu.span(t)), gpu.span(self.log_prior));
        let between = Span::new(scores, classes * size_of::<f32>());
        let given = kernels::ClassScores { inputs, classes, mean, parameters, scores };
        let launch = kernels::CLASS_SCORES.linear(classes.div_ceil(CLASSES), 32 * CLASSES, given);
        gpu.launch(launch.doing(Work::of(self.flops()).reading(read).writing([between])));
        let given = kernels::LogClassPrior { classes, scores, log_prior };
        let work = Work::of(4.0 * classes as f64).reading([between]).writing([written]);
        gpu.launch(kernels::LOG_CLASS_PRIOR.linear(1, THREADS, given).doing(work));
        Ok(())
    }
}
