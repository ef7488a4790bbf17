//! The CPU device: f32, all cores, the executable specification that kernels are compared with.
//!
//! An operation asks the [`Call`] for its operands' slices and computes over them. Work is
//! cut into pieces whose size does not depend on the number of threads, and partial sums are added in order, so results
//! have the same bits on one core and on sixty.

mod batch;
mod batchnorm;
mod call;
pub mod convolution;
mod limits;
pub(crate) mod linear;
mod memory;
mod optimizer;

use anyhow::{Context as _, Result, ensure};

use self::memory::Memory;
use super::primitive::Occupied;
use super::{Buffer, Device, Element, Operation, Primitive};
pub use call::Call;
use call::Scratch;

/// The processor's cores and main memory.
pub struct CpuDevice {
    memory: Memory,
    pool: rayon::ThreadPool,
    scratch: Scratch,
}

impl CpuDevice {
    /// A device of `threads` threads; 0 takes every core. Where that is far more than there are cores, fewer are started: results have
    /// the same bits, and threads that wait for each other's cores take all the time.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min((4 * cores).max(16));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("cpu device {i}"))
            .build()
            .context("cannot start the threads of the CPU device")?;
        Ok(Self { memory: Memory::default(), pool, scratch: Scratch::default() })
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

    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        // Together, before the first of them is filled.
        let bytes = |&(element, len): &(Element, usize)| crate::memory::product(&[len, element.bytes()]);
        let all = requests.iter().map(bytes).fold(0, u64::saturating_add);
        crate::memory::ensure_room(all, label, memory::REMEDY)?;
        requests.iter().map(|&(element, len)| self.allocate(element, len, label)).collect()
    }

    fn in_main_memory(&self) -> bool {
        true
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

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        Ok(self.memory.i32(buffer)?.to_vec())
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        let Self { memory, pool, scratch } = self;
        pool.install(move || {
            // The pool's thread has the memory to itself; operations share slices of it, never the cells.
            let mut call = Call::new(memory, buffers, scratch);
            operation.run(&mut call).with_context(|| format!("in the primitive '{}'", operation.name()))
        })
    }

    fn limits(&mut self) -> Option<super::Limits> {
        Some(limits::measure(&self.pool))
    }
}

impl Call<'_> {
    /// Rows of a batchnorm that are there.
    fn there(&self, rows: usize, occupied: Option<Occupied>) -> Result<usize> {
        let Some(Occupied { count, rows_each }) = occupied else { return Ok(rows) };
        Ok((self.i32(count)?[0] as usize * rows_each).min(rows))
    }

    pub(super) fn run(&mut self, primitive: &Primitive) -> Result<()> {
        use Primitive as P;
        match *primitive {
            P::SelectBatch { batch, order, step, index } => {
                let first = self.i32(step)?[0] as usize * batch;
                let order = self.i32(order)?;
                ensure!(first + batch <= order.len(), "step past the end of the epoch's order");
                self.i32_mut(index)?.copy_from_slice(&order[first..first + batch]);
            }
            P::AdvanceStep { step, modulus } => {
                let mut step = self.i32_mut(step)?;
                step[0] += 1;
                if modulus.is_some_and(|modulus| step[0] as usize >= modulus) {
                    step[0] = 0;
                }
            }
            P::Augment {
                batch,
                first,
                count,
                source,
                size,
                images,
                parameters,
                index,
                normalisation,
                views,
            } => batch::augment(
                &batch::Views { batch, first, count, source, size },
                &self.u8(images)?,
                &self.u8(parameters)?,
                &self.i32(index)?,
                &self.f32(normalisation)?,
                &mut self.f32_mut(views)?,
            )?,
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
                match out {
                    Some(out) => {
                        let (x, mut out) = (self.f32(x)?, self.f32_mut(out)?);
                        batch::mixup(len, weights[now], permutation, index.as_deref(), &x, &mut out);
                    }
                    None => {
                        let mut both = self.f32_mut(x)?;
                        let (x, out) = both.split_at_mut(rows * len);
                        batch::mixup(len, weights[now], permutation, index.as_deref(), x, out);
                    }
                }
            }
            P::MixupChosen { len, weights, step, rows, partners, count, x, out, .. } => {
                let now = self.i32(step)?[0] as usize;
                let weights = self.f32(weights)?;
                ensure!(now < weights.len(), "step past the end of the mixup's weights");
                let (rows, partners) = (self.i32(rows)?, self.i32(partners)?);
                let count = self.i32(count)?[0] as usize;
                batch::mixup_chosen(
                    len,
                    weights[now],
                    [&rows, &partners],
                    count,
                    &self.f32(x)?,
                    &mut self.f32_mut(out)?,
                );
            }

            P::Convolution { shape, x, w, y } => {
                convolution::forward(
                    &shape,
                    &self.f32(x)?,
                    &self.f32(w)?,
                    &mut self.f32_mut(y)?,
                    self.scratch(),
                );
            }
            P::ConvolutionDataGradient { shape, dy, w, dx, accumulate } => convolution::backward_data(
                &shape,
                &self.f32(dy)?,
                &self.f32(w)?,
                &mut self.f32_mut(dx)?,
                accumulate,
                self.scratch(),
            ),
            P::ConvolutionWeightGradient { shape, x, dy, dw } => convolution::backward_weight(
                &shape,
                &self.f32(x)?,
                &self.f32(dy)?,
                &mut self.f32_mut(dw)?,
                self.scratch(),
            ),

            P::BatchNorm { rows, channels, x, affine, running, batch, residual, relu, occupied, y } => {
                let there = self.there(rows, occupied)?;
                let (x, mut y) = (self.f32(x)?, self.f32_mut(y)?);
                let mut statistics = self.f32_mut(batch)?;
                y[there * channels..].fill(0.0);
                if there == 0 {
                    statistics.fill(0.0);
                    return Ok(());
                }
                let here = ..there * channels;
                batchnorm::statistics(
                    [there, channels],
                    &x[here],
                    &mut self.f32_mut(running)?,
                    &mut statistics,
                    self.scratch(),
                );
                let affine = self.f32(affine)?;
                let residual = self.optional(residual)?;
                batchnorm::apply(
                    channels,
                    &x[here],
                    &affine,
                    &statistics,
                    residual.as_deref().map(|residual| &residual[here]),
                    relu,
                    &mut y[here],
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
            P::BatchNormGradient {
                rows,
                channels,
                x,
                y,
                relu,
                occupied,
                affine,
                batch,
                dy,
                d_affine,
                dx,
                ..
            } => {
                let there = self.there(rows, occupied)?;
                let here = ..there * channels;
                let (x, batch) = (self.f32(x)?, self.f32(batch)?);
                let (mut d_affine, mut dx) = (self.f32_mut(d_affine)?, self.f32_mut(dx)?);
                dx[there * channels..].fill(0.0);
                if there == 0 {
                    d_affine.fill(0.0);
                    return Ok(());
                }
                if relu {
                    let (y, mut dy) = (self.f32(y)?, self.f32_mut(dy)?);
                    batchnorm::mask_and_sum(
                        [there, channels],
                        &x[here],
                        &y[here],
                        &batch,
                        &mut dy[here],
                        &mut d_affine,
                        self.scratch(),
                    );
                } else {
                    batchnorm::sum(
                        [there, channels],
                        &x[here],
                        &batch,
                        &self.f32(dy)?[here],
                        &mut d_affine,
                        self.scratch(),
                    );
                }
                let (affine, dy) = (self.f32(affine)?, self.f32(dy)?);
                batchnorm::input_gradient(
                    [there, channels],
                    &x[here],
                    &affine,
                    &batch,
                    &dy[here],
                    &d_affine,
                    &mut dx[here],
                );
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

            P::Add { x, into, .. } => optimizer::add(&self.f32(x)?, &mut self.f32_mut(into)?),
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
