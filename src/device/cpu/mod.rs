//! The CPU device: f32, all cores, the executable specification that kernels are compared with.
//!
//! Every primitive is a function over slices in the file of its family; [`CpuDevice`] finds the slices and calls it. Work is
//! cut into pieces whose size does not depend on the number of threads, and partial sums are added in order, so results
//! have the same bits on one core and on sixty.

mod batch;
mod batchnorm;
mod confidence;
pub mod convolution;
mod linear;
mod memory;
mod optimizer;
mod pair_loss;
mod pooling;
mod prior;
mod sinkhorn;

use anyhow::{Context as _, Result, ensure};

use self::memory::Memory;
use super::{Buffer, Device, Element, Primitive, Tensor};

/// The processor's cores and main memory.
pub struct CpuDevice {
    memory: Memory,
    pool: rayon::ThreadPool,
    convolution: convolution::Workspace,
    batchnorm: batchnorm::Workspace,
}

impl CpuDevice {
    /// A device of `threads` threads; 0 takes every core.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("cpu device {i}"))
            .build()
            .context("cannot start the threads of the CPU device")?;
        Ok(Self {
            memory: Memory::default(),
            pool,
            convolution: convolution::Workspace::default(),
            batchnorm: batchnorm::Workspace::default(),
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        format!("cpu: {} threads, f32, convolutions with {}", self.threads(), convolution::instruction_set())
    }

    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        self.memory.allocate(element, len, label)
    }

    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.f32_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.i32_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.u8_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        Ok(self.memory.f32(buffer)?.to_vec())
    }

    fn execute(&mut self, primitive: &Primitive, buffers: &[Buffer]) -> Result<()> {
        let Self { memory, pool, convolution, batchnorm } = self;
        pool.install(move || {
            // The pool's thread has the memory to itself; primitives share slices of it, never the cells.
            let memory: &Memory = memory;
            let mut call = Call { memory, buffers, convolution, batchnorm };
            call.run(primitive).with_context(|| format!("in the primitive '{}'", primitive.name()))
        })
    }
}

/// One primitive with its operands' memory.
struct Call<'a> {
    memory: &'a Memory,
    buffers: &'a [Buffer],
    convolution: &'a mut convolution::Workspace,
    batchnorm: &'a mut batchnorm::Workspace,
}

impl<'a> Call<'a> {
    fn f32(&self, tensor: Tensor) -> Result<std::cell::Ref<'a, [f32]>> {
        self.memory.f32(self.buffers[tensor.0])
    }

    fn f32_mut(&self, tensor: Tensor) -> Result<std::cell::RefMut<'a, [f32]>> {
        self.memory.f32_mut(self.buffers[tensor.0])
    }

    fn i32(&self, tensor: Tensor) -> Result<std::cell::Ref<'a, [i32]>> {
        self.memory.i32(self.buffers[tensor.0])
    }

    fn i32_mut(&self, tensor: Tensor) -> Result<std::cell::RefMut<'a, [i32]>> {
        self.memory.i32_mut(self.buffers[tensor.0])
    }

    fn u8(&self, tensor: Tensor) -> Result<std::cell::Ref<'a, [u8]>> {
        self.memory.u8(self.buffers[tensor.0])
    }

    fn optional(&self, tensor: Option<Tensor>) -> Result<Option<std::cell::Ref<'a, [f32]>>> {
        tensor.map(|tensor| self.f32(tensor)).transpose()
    }

    fn run(&mut self, primitive: &Primitive) -> Result<()> {
        use Primitive as P;
        match *primitive {
            P::SelectBatch { batch, order, step, index } => {
                let first = self.i32(step)?[0] as usize * batch;
                let order = self.i32(order)?;
                ensure!(first + batch <= order.len(), "step past the end of the epoch's order");
                self.i32_mut(index)?.copy_from_slice(&order[first..first + batch]);
            }
            P::AdvanceStep { step } => self.i32_mut(step)?[0] += 1,
            P::Augment { batch, source, size, images, parameters, index, normalisation, views } => {
                batch::augment(
                    &batch::Views { batch, source, size },
                    &self.u8(images)?,
                    &self.u8(parameters)?,
                    &self.i32(index)?,
                    &self.f32(normalisation)?,
                    &mut self.f32_mut(views)?,
                )?
            }
            P::NormaliseImages { batch, pixels, images, step, normalisation, x } => {
                let first = self.i32(step)?[0] as usize * batch;
                let (images, normalisation) = (self.u8(images)?, self.f32(normalisation)?);
                batch::normalise(pixels, first, &images, &normalisation, &mut self.f32_mut(x)?);
            }
            P::StoreRows { batch, columns, rows, step, store } => {
                let first = self.i32(step)?[0] as usize * batch * columns;
                self.f32_mut(store)?[first..first + batch * columns].copy_from_slice(&self.f32(rows)?);
            }
            P::Mixup { batch, rows, len, weights, permutations, step, index, x, out } => {
                let now = self.i32(step)?[0] as usize;
                let (weights, permutations) = (self.f32(weights)?, self.i32(permutations)?);
                ensure!(
                    now < weights.len() && permutations.len() == weights.len() * batch,
                    "step past the end of the mixup's weights and permutations"
                );
                ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
                let index = index.map(|index| self.i32(index)).transpose()?;
                let permutation = &permutations[now * batch..][..batch];
                let (x, mut out) = (self.f32(x)?, self.f32_mut(out)?);
                batch::mixup(len, weights[now], permutation, index.as_deref(), &x, &mut out);
            }

            P::Convolution { shape, x, w, y } => {
                convolution::forward(
                    &shape,
                    &self.f32(x)?,
                    &self.f32(w)?,
                    &mut self.f32_mut(y)?,
                    self.convolution,
                );
            }
            P::ConvolutionDataGradient { shape, dy, w, dx, accumulate } => convolution::backward_data(
                &shape,
                &self.f32(dy)?,
                &self.f32(w)?,
                &mut self.f32_mut(dx)?,
                accumulate,
                self.convolution,
            ),
            P::ConvolutionWeightGradient { shape, x, dy, dw } => convolution::backward_weight(
                &shape,
                &self.f32(x)?,
                &self.f32(dy)?,
                &mut self.f32_mut(dw)?,
                self.convolution,
            ),

            P::BatchNorm { rows, channels, x, affine, running, batch, residual, relu, y } => {
                let x = self.f32(x)?;
                let mut statistics = self.f32_mut(batch)?;
                batchnorm::statistics(
                    [rows, channels],
                    &x,
                    &mut self.f32_mut(running)?,
                    &mut statistics,
                    self.batchnorm,
                );
                let affine = self.f32(affine)?;
                let residual = self.optional(residual)?;
                batchnorm::apply(
                    channels,
                    &x,
                    &affine,
                    &statistics,
                    residual.as_deref(),
                    relu,
                    &mut self.f32_mut(y)?,
                );
            }
            P::BatchNormInference { channels, x, affine, running, residual, relu, y, .. } => {
                let statistics = batchnorm::running_statistics(channels, &self.f32(running)?);
                let residual = self.optional(residual)?;
                let (x, affine) = (self.f32(x)?, self.f32(affine)?);
                batchnorm::apply(
                    channels,
                    &x,
                    &affine,
                    &statistics,
                    residual.as_deref(),
                    relu,
                    &mut self.f32_mut(y)?,
                );
            }
            P::BatchNormGradient { rows, channels, x, y, relu, affine, batch, dy, d_affine, dx, .. } => {
                let (x, batch) = (self.f32(x)?, self.f32(batch)?);
                let mut d_affine = self.f32_mut(d_affine)?;
                if relu {
                    let (y, mut dy) = (self.f32(y)?, self.f32_mut(dy)?);
                    batchnorm::mask_and_sum(
                        [rows, channels],
                        &x,
                        &y,
                        &batch,
                        &mut dy,
                        &mut d_affine,
                        self.batchnorm,
                    );
                } else {
                    batchnorm::sum(
                        [rows, channels],
                        &x,
                        &batch,
                        &self.f32(dy)?,
                        &mut d_affine,
                        self.batchnorm,
                    );
                }
                let (affine, dy) = (self.f32(affine)?, self.f32(dy)?);
                batchnorm::input_gradient(
                    [rows, channels],
                    &x,
                    &affine,
                    &batch,
                    &dy,
                    &d_affine,
                    &mut self.f32_mut(dx)?,
                );
            }

            P::AveragePool { positions, channels, x, y, .. } => {
                pooling::forward(positions, channels, &self.f32(x)?, &mut self.f32_mut(y)?);
            }
            P::AveragePoolGradient { positions, channels, dy, dx, .. } => {
                pooling::gradient(positions, channels, &self.f32(dy)?, &mut self.f32_mut(dx)?);
            }

            P::Linear { inputs, outputs, x, parameters, y, .. } => {
                linear::forward(
                    [inputs, outputs],
                    &self.f32(x)?,
                    &self.f32(parameters)?,
                    &mut self.f32_mut(y)?,
                );
            }
            P::LinearGradient { inputs, outputs, x, parameters, dy, d_parameters, dx, .. } => {
                let (dy, parameters) = (self.f32(dy)?, self.f32(parameters)?);
                linear::input_gradient([inputs, outputs], &dy, &parameters, &mut self.f32_mut(dx)?);
                linear::parameter_gradient(
                    [inputs, outputs],
                    &self.f32(x)?,
                    &dy,
                    &mut self.f32_mut(d_parameters)?,
                );
            }

            P::PairLoss { batch, classes, logits, confidence, index, d_logits, loss_rows } => pair_loss::run(
                [batch, classes],
                &self.f32(logits)?,
                &self.f32(confidence)?,
                &self.i32(index)?,
                &mut self.f32_mut(d_logits)?,
                &mut self.f32_mut(loss_rows)?,
            ),
            P::StepStatistics { batch, classes, logits, labels, index, loss_rows, counters } => {
                pair_loss::statistics(
                    [batch, classes],
                    &self.f32(logits)?,
                    &self.i32(labels)?,
                    &self.i32(index)?,
                    &self.f32(loss_rows)?,
                    &mut self.f32_mut(counters)?,
                );
            }
            P::MeanFeature { rows, inputs, momentum, features, mean } => {
                prior::mean_feature([rows, inputs], momentum, &self.f32(features)?, &mut self.f32_mut(mean)?);
            }
            P::ClassPrior { inputs, classes, mean, parameters, log_prior } => prior::log_class_prior(
                [inputs, classes],
                &self.f32(mean)?,
                &self.f32(parameters)?,
                &mut self.f32_mut(log_prior)?,
            ),
            P::UpdateConfidence {
                rule,
                batch,
                classes,
                logits,
                log_prior,
                candidates,
                index,
                control,
                confidence: rows,
            } => {
                if self.f32(control)?[super::primitive::control::UPDATE] == 0.0 {
                    return Ok(());
                }
                let log_prior = self.optional(log_prior)?;
                confidence::update(
                    rule,
                    [batch, classes],
                    &self.f32(logits)?,
                    log_prior.as_deref(),
                    &self.u8(candidates)?,
                    &self.i32(index)?,
                    &mut self.f32_mut(rows)?,
                );
            }
            P::ConfidenceStatistics { rows, classes, confidence, labels, out } => {
                let (confidence, labels) = (self.f32(confidence)?, self.i32(labels)?);
                let figures = confidence::statistics([rows, classes], &confidence, &labels);
                self.f32_mut(out)?.copy_from_slice(&figures);
            }

            P::Sinkhorn { classes, settings, predictions, queue, class_prior, refined, outcome, .. } => {
                let queue = self.optional(queue)?;
                let figures = sinkhorn::run(
                    classes,
                    &settings,
                    &self.f32(predictions)?,
                    queue.as_deref().unwrap_or(&[]),
                    &self.f32(class_prior)?,
                    &mut self.f32_mut(refined)?,
                );
                self.f32_mut(outcome)?.copy_from_slice(&figures);
            }
            P::Convert { from, to, .. } => self.f32_mut(to)?.copy_from_slice(&self.f32(from)?),
            P::Sgd { momentum, weight_decay, control, gradients, velocity, parameters, copy, .. } => {
                ensure!(copy.is_none(), "the CPU keeps no rounded copy of the weights");
                let rate = self.f32(control)?[super::primitive::control::LEARNING_RATE];
                let settings = optimizer::Settings { rate, momentum, weight_decay };
                let (mut velocity, mut parameters) = (self.f32_mut(velocity)?, self.f32_mut(parameters)?);
                optimizer::sgd(settings, &self.f32(gradients)?, &mut velocity, &mut parameters);
            }
        }
        Ok(())
    }
}
