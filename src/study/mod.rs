//! Ladders of kernels to learn from (`kernels/study/`): each solves one problem rung by rung. Every rung is
//! run and compared with the engine's own operation on the CPU, and its cost is counted by the interpreter or
//! measured on a GPU.
//!
//! A rung is an [`Operation`] with kernels of its own and the engine's CPU twin.

mod convolution;
mod cost;
mod loss_row;
pub mod sources;

use std::sync::Arc;

use anyhow::{Result, ensure};

pub use self::cost::{Counted, Meter, RungCost};
use crate::device::cpu::CpuDevice;
use crate::device::{Buffer, Device, Element, Operation, Tensor};
use crate::random::philox::{Purpose, Stream};
use crate::usage;

/// The names of the ladders.
pub const LADDERS: [&str; 2] = ["convolution", "loss-row"];

/// One problem and the rungs that solve it, slowest first.
pub struct Ladder {
    /// The problem with its size.
    pub problem: String,
    /// How far a rung may differ from the CPU, and the reason.
    pub tolerance: &'static str,
    /// Each is named after its file, without `.cu`.
    pub rungs: Vec<Arc<dyn Operation>>,
    /// The operands, by tensor number.
    operands: Vec<OperandSpec>,
    results: Vec<Compared>,
}

/// A tensor before a rung runs: its values, or `None` if it is only written.
struct OperandSpec {
    element: Element,
    len: usize,
    given: Option<InitialValues>,
}

enum InitialValues {
    Floats(Vec<f32>),
    Integers(Vec<i32>),
    Bytes(Vec<u8>),
}

impl OperandSpec {
    fn floats(element: Element, values: Vec<f32>) -> Self {
        Self { element, len: values.len(), given: Some(InitialValues::Floats(values)) }
    }

    fn output(element: Element, len: usize) -> Self {
        Self { element, len, given: None }
    }
}

/// A tensor to compare: |rung - cpu| <= relative |cpu| + absolute (root mean square of the CPU's values).
struct Compared {
    name: &'static str,
    tensor: Tensor,
    relative: f64,
    absolute: f64,
}

/// The result of a rung.
#[derive(Clone, Debug)]
pub struct RungResult {
    /// The rung's name.
    pub rung: &'static str,
    /// Its largest difference from the CPU, in units of the tolerance.
    pub difference: f64,
    /// Its cost.
    pub cost: RungCost,
}

impl Ladder {
    /// The ladder `name`, sized for `times` times four multiprocessors.
    ///
    /// # Errors
    /// A usage error for another name.
    pub fn named(name: &str, times: usize) -> Result<Self> {
        match name {
            "convolution" => Ok(Self::convolution([2 * times, 16, 16, 64, 64])),
            "loss-row" => Ok(Self::loss_row([512 * times, 100])),
            _ => Err(usage!("study {name}: must be {}", LADDERS.join(" or "))),
        }
    }

    /// The ladder of the convolution, from images, rows, columns, input and output channels (multiples of 8).
    pub fn convolution(shape: [usize; 5]) -> Self {
        convolution::ladder(shape)
    }

    /// The ladder of the loss of a row, from rows and classes (at most 128).
    pub fn loss_row(shape: [usize; 2]) -> Self {
        loss_row::ladder(shape)
    }

    /// Runs every rung and compares its results with the CPU's.
    ///
    /// # Errors
    /// If a rung disagrees with the CPU, or the interpreter or the GPU reports an error in it.
    pub fn climb(&self, meter: &mut Meter) -> Result<Vec<RungResult>> {
        let mut cpu = CpuDevice::new(0)?;
        let (_, expected) = self.run(&*self.rungs[0], &mut cpu)?;
        let step = |rung: &Arc<dyn Operation>| {
            let (buffers, got) = self.run(&**rung, meter.device())?;
            let mut difference = 0f64;
            for (compared, (cpu, got)) in self.results.iter().zip(expected.iter().zip(&got)) {
                difference = difference.max(compared.difference(rung.name(), cpu, got)?);
            }
            Ok(RungResult { rung: rung.name(), difference, cost: meter.cost(rung, buffers)? })
        };
        self.rungs.iter().map(step).collect()
    }

    /// Runs an operation once; returns its buffers and the values of the tensors that are compared.
    fn run(
        &self,
        operation: &dyn Operation,
        device: &mut dyn Device,
    ) -> Result<(Vec<Buffer>, Vec<Vec<f32>>)> {
        let buffers = self.upload(device)?;
        device.execute(operation, &buffers)?;
        let read = |compared: &Compared| device.read_f32(buffers[compared.tensor.0]);
        let results = self.results.iter().map(read).collect::<Result<_>>()?;
        Ok((buffers, results))
    }

    /// Uploads the operands. Outputs stay uninitialised on the interpreter, which reports reads of unwritten
    /// memory; elsewhere they are NaN.
    fn upload(&self, device: &mut dyn Device) -> Result<Vec<Buffer>> {
        let mut upload = |value: &OperandSpec| {
            let element = if value.element == Element::Bf16 { device.activations() } else { value.element };
            let buffer = device.allocate_all(&[(element, value.len)], "an operand")?[0];
            match &value.given {
                Some(InitialValues::Floats(values)) => device.write_f32(buffer, values)?,
                Some(InitialValues::Integers(values)) => device.write_i32(buffer, values)?,
                Some(InitialValues::Bytes(values)) => device.write_u8(buffer, values)?,
                None if device.name() == "sim" => {}
                None => device.write_f32(buffer, &vec![f32::NAN; value.len])?,
            }
            Ok(buffer)
        };
        self.operands.iter().map(&mut upload).collect()
    }
}

impl Compared {
    /// The largest difference in units of the tolerance.
    fn difference(&self, rung: &str, cpu: &[f32], got: &[f32]) -> Result<f64> {
        let square_sum: f64 = cpu.iter().map(|&value| f64::from(value).powi(2)).sum();
        let size = (square_sum / cpu.len() as f64).sqrt();
        let mut worst = 0f64;
        for (at, (&cpu, &got)) in cpu.iter().zip(got).enumerate() {
            let allowed = self.relative * f64::from(cpu).abs() + self.absolute * size;
            let gap = (f64::from(cpu) - f64::from(got)).abs();
            // Written so that a NaN does not agree.
            let agrees = gap <= allowed;
            ensure!(
                agrees,
                "{rung}: {}[{at}] is {got}, on the CPU {cpu}; allowed is {allowed:.1e}",
                self.name
            );
            if gap > 0.0 {
                worst = worst.max(gap / allowed);
            }
        }
        Ok(worst)
    }
}

/// A random stream that depends on the sizes alone.
fn stream(sizes: &[usize]) -> Stream {
    let key = sizes.iter().fold(7u64, |key, &size| key.wrapping_mul(1_000_003).wrapping_add(size as u64));
    Stream::new(key, Purpose::Initialisation, 0, 0, 0)
}

/// 2^-24: the relative error of rounding to f32.
const F32: f64 = 1.0 / (1 << 24) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_beyond_its_tolerance_is_refused() {
        let compared = Compared { name: "y", tensor: Tensor(0), relative: 0.25, absolute: 0.0 };
        assert_eq!(compared.difference("rung", &[4.0, -8.0], &[4.5, -8.0]).unwrap(), 0.5);
        for wrong in [5.5, f32::NAN, f32::INFINITY] {
            let error = compared.difference("rung", &[1.0, 4.0], &[1.0, wrong]).unwrap_err();
            assert!(error.to_string().starts_with("rung: y[1] is"), "{error}");
        }
    }
}
