//! One operation on two devices: the CPU and the device under test.

use std::sync::Arc;

use anyhow::Result;
use records::device::cpu::CpuDevice;
use records::device::gpu::Precision;
use records::device::gpu::driver::Gpu;
use records::device::gpu::lower::Lowering;
use records::device::{Access, Buffer, Device, Element, Operation, Plan, Program, Tensor};
use records::ops::batchnorm::positive_len;
use records::random::philox::{Purpose, Stream};

/// All precisions of a GPU.
pub const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

/// The value as activations of a precision hold it, after one rounding.
pub fn rounded_as(precision: Precision, value: f32) -> f32 {
    match precision {
        Precision::F32 => value,
        Precision::Bf16 => half::bf16::from_f32(value).to_f32(),
        Precision::F16 => half::f16::from_f32(value).to_f32(),
    }
}

/// The relative error of that rounding: half a unit of the last of 8 or of 11 bits.
pub fn stored(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::Bf16 => 1.0 / (1 << 8) as f64,
        Precision::F16 => 1.0 / (1 << 11) as f64,
    }
}

/// An operand's values before the operation runs. `Activations` are stored in the precision of a device, and
/// are rounded to it for the CPU as well, so that both start from the same numbers.
#[derive(Clone, Debug)]
pub enum Value {
    F32(Vec<f32>),
    Activations(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    /// An output of that many elements, poisoned: NaN on a GPU, uninitialised for the interpreter.
    Output(usize),
    /// An output stored as activations are.
    ActivationOutput(usize),
    /// An output of i32.
    IntegerOutput(usize),
    /// An output of bits that say which of so many activations are positive.
    PositiveBits(usize),
}

/// The devices under comparison.
pub struct Pair {
    cpu: CpuDevice,
    pub kernels: Box<dyn Device>,
    pub precision: Precision,
    /// Whether the kernels sum products of f16 in f16 over short runs, as on GeForce chips.
    pub sums_in_f16: bool,
}

/// The contents of every operand on both devices afterwards. Integers are converted to f32 (exact below
/// 2^24); u8 operands are omitted.
pub struct Outcome {
    pub cpu: Vec<Vec<f32>>,
    pub kernels: Vec<Vec<f32>>,
}

impl Pair {
    /// The CPU and the device that RECORDS_TEST_DEVICE names: `sim` (default) or `cuda`.
    pub fn new(precision: Precision) -> Self {
        let name = std::env::var("RECORDS_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
        let kernels = name
            .parse()
            .and_then(|kind| records::device::gpu::open(kind, precision))
            .unwrap_or_else(|error| panic!("RECORDS_TEST_DEVICE={name}: {error:#}"));
        let sums_in_f16 = precision == Precision::F16 && kernels.gpu().sums_in_f16();
        Self { cpu: CpuDevice::new(1).unwrap(), kernels: Box::new(kernels), precision, sums_in_f16 }
    }

    fn activations(&self, values: &[f32]) -> Vec<f32> {
        values.iter().map(|&value| rounded_as(self.precision, value)).collect()
    }

    /// The values that both devices start from.
    fn rounded(&self, values: &[Value]) -> Vec<Value> {
        let round = |value: &Value| match value {
            Value::Activations(values) => Value::Activations(self.activations(values)),
            other => other.clone(),
        };
        values.iter().map(round).collect()
    }

    fn upload(device: &mut dyn Device, value: &Value, activations: Element) -> Result<Buffer> {
        match value {
            Value::F32(values) => {
                let buffer = device.allocate(Element::F32, values.len(), "a test operand")?;
                device.write_f32(buffer, values)?;
                Ok(buffer)
            }
            Value::Activations(values) => {
                let buffer = device.allocate(activations, values.len(), "a test operand")?;
                device.write_f32(buffer, values)?;
                Ok(buffer)
            }
            Value::I32(values) => {
                let buffer = device.allocate(Element::I32, values.len(), "a test operand")?;
                device.write_i32(buffer, values)?;
                Ok(buffer)
            }
            Value::U8(values) => {
                let buffer = device.allocate(Element::U8, values.len(), "a test operand")?;
                device.write_u8(buffer, values)?;
                Ok(buffer)
            }
            Value::Output(len) => Self::poisoned(device, Element::F32, *len),
            Value::ActivationOutput(len) => Self::poisoned(device, activations, *len),
            Value::IntegerOutput(len) => Self::poisoned(device, Element::I32, *len),
            Value::PositiveBits(len) => Self::poisoned(device, Element::U8, positive_len(activations, *len)),
        }
    }

    fn poisoned(device: &mut dyn Device, element: Element, len: usize) -> Result<Buffer> {
        if device.name() == "sim" {
            return Ok(device.allocate_all(&[(element, len)], "a test output")?[0]);
        }
        let buffer = device.allocate(element, len, "a test output")?;
        match element {
            Element::I32 => device.write_i32(buffer, &vec![i32::MIN; len])?,
            Element::U8 => device.write_u8(buffer, &vec![u8::MAX; len])?,
            _ => device.write_f32(buffer, &vec![f32::NAN; len])?,
        }
        Ok(buffer)
    }

    /// Runs operations, whose tensor `i` holds `values[i]`, on both devices, one after another.
    pub fn run<T: Operation>(&mut self, operations: &[T], values: &[Value]) -> Outcome {
        let outcome = self.run_both(values, |device, buffers| {
            operations
                .iter()
                .try_for_each(|operation| device.execute(operation, &visible(device, operation, buffers)))
        });
        let written: Vec<Tensor> = operations.iter().flat_map(|operation| written(operation)).collect();
        outcome.assert_read_only(&self.rounded(values), &written);
        outcome
    }

    /// The same for operations of different types.
    pub fn run_each(&mut self, operations: &[Arc<dyn Operation>], values: &[Value]) -> Outcome {
        self.run_both(values, |device, buffers| {
            operations.iter().try_for_each(|operation| device.execute(&**operation, buffers))
        })
    }

    /// The same as one recorded plan, in which neighbours with a common kernel are lowered together.
    pub fn run_recorded(&mut self, operations: &[Arc<dyn Operation>], values: &[Value]) -> Outcome {
        self.run_both(values, |device, buffers| {
            let plan = Plan::record(Program::new(operations.to_vec(), buffers.to_vec()), device)?;
            device.replay(&plan)
        })
    }

    fn run_both(
        &mut self,
        values: &[Value],
        run: impl Fn(&mut dyn Device, &[Buffer]) -> Result<()>,
    ) -> Outcome {
        let rounded = self.rounded(values);
        let activations = self.kernels.activations();
        let cpu = Self::run_on(&mut self.cpu, &run, &rounded, Element::F32);
        let kernels = Self::run_on(&mut *self.kernels, &run, &rounded, activations);
        Outcome {
            cpu: cpu.expect("the CPU runs the operations"),
            kernels: kernels.unwrap_or_else(|error| panic!("{error:#}")),
        }
    }

    fn run_on(
        device: &mut dyn Device,
        run: impl Fn(&mut dyn Device, &[Buffer]) -> Result<()>,
        values: &[Value],
        activations: Element,
    ) -> Result<Vec<Vec<f32>>> {
        let buffers =
            values.iter().map(|v| Self::upload(device, v, activations)).collect::<Result<Vec<_>>>()?;
        run(device, &buffers)?;
        let read = |&buffer: &Buffer| match buffer.element {
            Element::F32 | Element::Bf16 | Element::F16 => device.read_f32(buffer),
            Element::I32 => Ok(device.read_i32(buffer)?.into_iter().map(|v| v as f32).collect()),
            Element::U8 => Ok(Vec::new()),
        };
        buffers.iter().map(read).collect()
    }
}

/// The buffers that an operation may see: on the CPU only those of its operands. The others do not exist
/// there, so accessing an undeclared operand is an error.
fn visible(device: &dyn Device, operation: &dyn Operation, buffers: &[Buffer]) -> Vec<Buffer> {
    let stated = operation.operands();
    let see = |(number, &buffer): (usize, &Buffer)| match stated.iter().any(|o| o.tensor == Tensor(number)) {
        false if device.name() == "cpu" => Buffer { allocation: usize::MAX, ..buffer },
        _ => buffer,
    };
    buffers.iter().enumerate().map(see).collect()
}

/// The operands that an operation declares as written.
fn written(operation: &dyn Operation) -> impl Iterator<Item = Tensor> {
    operation.operands().into_iter().filter(|o| o.access != Access::Read).map(|o| o.tensor)
}

impl Outcome {
    /// Asserts that tensors not in `written` still have the bits of `values` on both devices.
    fn assert_read_only(&self, values: &[Value], written: &[Tensor]) {
        for (number, value) in values.iter().enumerate().filter(|(n, _)| !written.contains(&Tensor(*n))) {
            let before: Vec<u32> = match value {
                Value::F32(values) | Value::Activations(values) => {
                    values.iter().map(|v| v.to_bits()).collect()
                }
                Value::I32(values) => values.iter().map(|&v| (v as f32).to_bits()).collect(),
                _ => continue,
            };
            for (device, after) in [("cpu", &self.cpu[number]), ("kernels", &self.kernels[number])] {
                let same = after.iter().map(|v| v.to_bits()).eq(before.iter().copied());
                assert!(same, "{device}: tensor {number} is no stated result, and has changed");
            }
        }
    }

    /// Asserts that an operand agrees: |kernels - cpu| <= relative * |cpu| + absolute * (root mean square of
    /// the CPU's values). NaN must appear exactly where the CPU has NaN. The message names the worst element.
    pub fn assert_close(&self, what: &str, tensor: Tensor, relative: f64, absolute: f64) {
        self.assert_near(what, tensor, relative, absolute, &[]);
    }

    /// The same with a further error for each element that `further` has.
    pub fn assert_near(&self, what: &str, tensor: Tensor, relative: f64, absolute: f64, further: &[f64]) {
        let (cpu, kernels) = (&self.cpu[tensor.0], &self.kernels[tensor.0]);
        assert_eq!(cpu.len(), kernels.len(), "{what}: length");
        let finite = || cpu.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite());
        let scale = (finite().map(|v| v * v).sum::<f64>() / finite().count().max(1) as f64).sqrt();
        let mut worst = (0.0, 0);
        for (index, (&a, &b)) in cpu.iter().zip(kernels).enumerate() {
            let (a, b) = (f64::from(a), f64::from(b));
            let excess = if a.is_nan() && b.is_nan() || a == b {
                0.0
            } else {
                let further = further.get(index).copied().unwrap_or(0.0);
                let excess = (a - b).abs() / (relative * a.abs() + absolute * scale + further);
                if excess.is_nan() { f64::INFINITY } else { excess }
            };
            if excess > worst.0 {
                worst = (excess, index);
            }
        }
        let (excess, at) = worst;
        assert!(
            excess <= 1.0,
            "{what}: element {at} of {}: cpu {}, kernels {}: {excess:.2} times the tolerance",
            cpu.len(),
            cpu[at],
            kernels[at]
        );
    }

    /// Asserts the same bits.
    pub fn assert_equal(&self, what: &str, tensor: Tensor) {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let (cpu, kernels) = (bits(&self.cpu[tensor.0]), bits(&self.kernels[tensor.0]));
        let first = cpu.iter().zip(&kernels).position(|(a, b)| a != b);
        let at = first.unwrap_or(0);
        let (ours, theirs) = (&self.cpu[tensor.0], &self.kernels[tensor.0]);
        assert!(
            first.is_none() && cpu.len() == kernels.len(),
            "{what}: element {at} of {}: cpu {}, kernels {}",
            cpu.len(),
            ours[at],
            theirs[at]
        );
    }
}

/// The number of launches for operations over `tensors` tensors.
pub fn launches(operations: &[Arc<dyn Operation>], tensors: usize) -> usize {
    let gpu = Gpu {
        name: "a model".into(),
        architecture: 86,
        multiprocessors: 82,
        shared_bytes: 99 << 10,
        choice: Default::default(),
    };
    let buffer = Buffer { allocation: 0, offset: 0, len: 1, element: Element::F32 };
    let (buffers, addresses) = (vec![buffer; tensors], vec![4096; tensors]);
    let mut lowering = Lowering::new(&gpu, &buffers, &addresses);
    let operations: Vec<&dyn Operation> = operations.iter().map(|operation| &**operation).collect();
    lowering.lower(&operations).unwrap();
    lowering.finish().0.len()
}

/// Random values for tests, different for every `name`, and for every RECORDS_TEST_SEED.
pub struct Random(Stream);

impl Random {
    pub fn new(name: &str) -> Self {
        let seed = std::env::var("RECORDS_TEST_SEED").unwrap_or_default();
        let key = crc32c::crc32c(format!("{name}{seed}").as_bytes());
        Self(Stream::new(u64::from(key), Purpose::Initialisation, 0, 0, 0))
    }

    /// Standard normal values times `scale`.
    pub fn normal(&mut self, len: usize, scale: f64) -> Vec<f32> {
        (0..len).map(|_| (scale * self.0.normal()) as f32).collect()
    }

    /// Uniform in low..high.
    pub fn uniform(&mut self, len: usize, low: f64, high: f64) -> Vec<f32> {
        (0..len).map(|_| self.0.uniform(low, high) as f32).collect()
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, len: usize, bound: u32) -> Vec<u32> {
        (0..len).map(|_| self.0.below(bound)).collect()
    }

    /// Distinct numbers of 0..of.
    pub fn distinct(&mut self, len: usize, of: usize) -> Vec<i32> {
        self.0.permutation(of)[..len].iter().map(|&i| i as i32).collect()
    }
}
