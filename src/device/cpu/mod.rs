//! The CPU device: f32, all cores, the executable specification that kernels are compared with.
//!
//! An operation asks the [`Call`] for its operands' slices and computes over them. Work is
//! cut into pieces whose size does not depend on the number of threads, and partial sums are added in order, so results
//! have the same bits on one core and on sixty.

mod call;
mod confidence;
pub mod instructions;
mod loss;
mod memory;
mod prior;
mod sinkhorn;
mod solar;

use anyhow::{Context as _, Result, ensure};

use self::memory::Memory;
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
        let convolutions = if instructions::avx2_and_fma() { "AVX2 and FMA" } else { "portable code" };
        format!("cpu: {} threads, f32, convolutions with {convolutions}", self.threads())
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
}

impl Call<'_> {
    pub(super) fn run(&mut self, primitive: &Primitive) -> Result<()> {
        use Primitive as P;
        match *primitive {
            P::Loss {
                kind,
                batch,
                classes,
                views,
                first,
                logits,
                target,
                candidates,
                index,
                control,
                d_logits,
                loss_rows,
            } => {
                use super::primitive::control::MIXUP;
                let weight = control.map(|control| Ok::<_, anyhow::Error>(self.f32(control)?[MIXUP]));
                let weight = weight.transpose()?;
                let candidates = candidates.map(|candidates| self.u8(candidates)).transpose()?;
                let index = index.map(|index| self.i32(index)).transpose()?;
                let rows = loss::Rows {
                    logits: &self.f32(logits)?,
                    target: &self.f32(target)?,
                    candidates: candidates.as_deref(),
                    index: index.as_deref(),
                };
                let shape = loss::Shape { kind, batch, classes, views, first, weight };
                loss::run(&shape, &rows, &mut self.f32_mut(d_logits)?, &mut self.f32_mut(loss_rows)?);
            }
            P::StepStatistics { batch, classes, logits, labels, index, loss_rows, counters } => {
                loss::statistics(
                    [batch, classes],
                    &self.f32(logits)?,
                    &self.i32(labels)?,
                    &self.i32(index)?,
                    &self.f32(loss_rows)?,
                    &mut self.f32_mut(counters)?,
                );
            }
            P::CountFiniteSteps { len, slot, values, counters } => {
                let finite = self.f32(values)?[..len].iter().all(|value| value.is_finite());
                loss::count_finite_step(finite, &mut self.f32_mut(counters)?[slot]);
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
            P::ConfidenceStatistics { rows, classes, confidence, candidates, labels, out } => {
                let (confidence, labels) = (self.f32(confidence)?, self.i32(labels)?);
                let candidates = candidates.map(|candidates| self.u8(candidates)).transpose()?;
                let shape = [rows, classes];
                let figures = confidence::statistics(shape, &confidence, candidates.as_deref(), &labels);
                self.f32_mut(out)?.copy_from_slice(&figures);
            }

            P::MaskedSoftmax { classes, logits, candidates, index, out, .. } => solar::masked_softmax(
                classes,
                &self.f32(logits)?,
                &self.u8(candidates)?,
                &self.i32(index)?,
                &mut self.f32_mut(out)?,
            ),
            P::CountLargest { classes, x, counts, .. } => {
                solar::count_largest(classes, &self.f32(x)?, &mut self.f32_mut(counts)?);
            }
            P::ChooseSamples {
                batch,
                classes,
                threshold,
                logits,
                refined,
                class_prior,
                control,
                permutations,
                step,
                chosen,
                rows,
                partners,
                count,
            } => {
                use super::primitive::control::{ETA, RHO};
                let (now, control) = (self.i32(step)?[0] as usize, self.f32(control)?);
                let permutations = self.i32(permutations)?;
                ensure!((now + 1) * batch <= permutations.len(), "step past the end of the permutations");
                let choice = solar::Choice {
                    classes,
                    threshold,
                    rho: control[RHO],
                    logits: &self.f32(logits)?,
                    refined: &self.f32(refined)?,
                    class_prior: &self.f32(class_prior)?,
                    permutation: &permutations[now * batch..][..batch],
                };
                let out = solar::Chosen {
                    chosen: &mut self.i32_mut(chosen)?,
                    rows: &mut self.i32_mut(rows)?,
                    partners: &mut self.i32_mut(partners)?,
                    count: &mut self.i32_mut(count)?,
                };
                solar::choose((control[ETA] != 0.0).then_some(&choice), out);
            }
            P::SolarLoss {
                classes,
                weak,
                strong,
                refined,
                mixed,
                confidence,
                index,
                chosen,
                count,
                control,
                d_weak,
                d_strong,
                loss_rows,
                ..
            } => {
                let (logits, target) = (
                    self.optional(mixed.map(|mixed| mixed.logits))?,
                    self.optional(mixed.map(|mixed| mixed.target))?,
                );
                let pair = logits.as_deref().zip(target.as_deref()).map(|(logits, target)| [logits, target]);
                let operands = solar::Operands {
                    classes,
                    eta: self.f32(control)?[super::primitive::control::ETA],
                    weak: &self.f32(weak)?,
                    strong: &self.f32(strong)?,
                    refined: &self.f32(refined)?,
                    mixed: pair,
                    confidence: &self.f32(confidence)?,
                    index: &self.i32(index)?,
                    chosen: &self.i32(chosen)?,
                    count: self.i32(count)?[0] as usize,
                };
                let mut d_mixed = mixed.map(|mixed| self.f32_mut(mixed.d_logits)).transpose()?;
                let results = solar::Results {
                    d_weak: &mut self.f32_mut(d_weak)?,
                    d_strong: &mut self.f32_mut(d_strong)?,
                    d_mixed: d_mixed.as_deref_mut(),
                    loss_rows: &mut self.f32_mut(loss_rows)?,
                };
                solar::loss(&operands, results);
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
        }
        Ok(())
    }
}
