//! An operation defined outside the crate: its arithmetic on the CPU, its gradient, and its CUDA kernels.
//!
//! SiLU, y = x s(x) with s(x) = 1 / (1 + e^-x), whose derivative is s(x) (1 + x (1 - s(x))).
//!
//! `cargo run --release --example own_kernel` runs it and its gradient on the CPU; `-- sim` on the
//! interpreter, `-- cuda` on a GPU.

use anyhow::{Result, anyhow};
use records::autograd::{Differentiable, Gradients, Tape};
use records::device::cpu::{Call, CpuDevice};
use records::device::gpu::launch::{Arguments, Kernel, Launch};
use records::device::gpu::lower::Lowering;
use records::device::gpu::sources::Source;
use records::device::gpu::{self, Precision};
use records::device::{Device, Element, Operand, Operation, Tensor};

/// A thread per element.
static SOURCE: Source = Source {
    name: "silu.cu",
    text: r#"
__device__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

extern "C" __global__ void silu(int len, const float* x, float* y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) y[i] = x[i] * sigmoid(x[i]);
}

extern "C" __global__ void silu_gradient(int len, const float* x, const float* dy, float* dx) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    const float s = sigmoid(x[i]);
    dx[i] = dy[i] * s * (1.0f + x[i] * (1.0f - s));
}
"#,
};

/// Threads per block.
const THREADS: usize = 256;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// y `[len]` = x s(x).
#[derive(Debug)]
pub struct Silu {
    len: usize,
    x: Tensor,
    y: Tensor,
}

/// dx `[len]` = dy s(x) (1 + x (1 - s(x))).
#[derive(Debug)]
pub struct SiluGradient {
    len: usize,
    x: Tensor,
    dy: Tensor,
    dx: Tensor,
}

/// Records SiLU of x; returns its result.
pub fn silu(tape: &mut Tape, x: Tensor) -> Tensor {
    let len = tape.len_of(x);
    let y = tape.result(Element::F32, len);
    tape.record(Silu { len, x, y });
    y
}

impl Operation for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        4.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, mut y) = (cpu.f32(self.x)?, cpu.f32_mut(self.y)?);
        y.iter_mut().zip(x.iter()).for_each(|(y, &x)| *y = x * sigmoid(x));
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let arguments =
            Arguments::new().count(self.len).pointer(gpu.address(self.x)).pointer(gpu.address(self.y));
        let kernel = Kernel { source: &SOURCE, name: "silu" };
        gpu.launch(Launch::linear(kernel, self.len.div_ceil(THREADS), THREADS, arguments));
        Ok(())
    }
}

impl Differentiable for Silu {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Some(dy) = gradients.of(self.y) else { return };
        let dx = gradients.write(self.x);
        gradients.push(SiluGradient { len: self.len, x: self.x, dy, dx });
    }
}

impl Operation for SiluGradient {
    fn name(&self) -> &'static str {
        "silu gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::read(self.dy), Operand::write(self.dx)]
    }

    fn flops(&self) -> f64 {
        8.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, dy, mut dx) = (cpu.f32(self.x)?, cpu.f32(self.dy)?, cpu.f32_mut(self.dx)?);
        for ((dx, &x), &dy) in dx.iter_mut().zip(x.iter()).zip(dy.iter()) {
            let s = sigmoid(x);
            *dx = dy * s * (1.0 + x * (1.0 - s));
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let [x, dy, dx] = [self.x, self.dy, self.dx].map(|tensor| gpu.address(tensor));
        let arguments = Arguments::new().count(self.len).pointer(x).pointer(dy).pointer(dx);
        let kernel = Kernel { source: &SOURCE, name: "silu_gradient" };
        gpu.launch(Launch::linear(kernel, self.len.div_ceil(THREADS), THREADS, arguments));
        Ok(())
    }
}

/// SiLU of SiLU of `values`, and the gradient of its sum with respect to them.
pub fn run(values: &[f32], device: &mut dyn Device) -> Result<[Vec<f32>; 2]> {
    let input = device.allocate(Element::F32, values.len(), "the input")?;
    let ones = device.allocate(Element::F32, values.len(), "the gradient of the sum")?;
    device.write_f32(input, values)?;
    device.write_f32(ones, &vec![1.0; values.len()])?;

    let mut tape = Tape::new(Element::F32);
    let (x, dy) = (tape.persistent(input), tape.persistent(ones));
    tape.differentiate(x);
    let once = silu(&mut tape, x);
    let y = silu(&mut tape, once);
    let dx = tape.backward(&[(y, dy)])[&x];
    [y, dx].into_iter().for_each(|tensor| tape.keep(tensor));
    let plan = tape.finish(device)?;
    device.replay(&plan)?;
    Ok([device.read_f32(plan.buffer(y))?, device.read_f32(plan.buffer(dx))?])
}

fn main() -> Result<()> {
    let word = std::env::args().nth(1).unwrap_or_else(|| "cpu".into());
    let mut device: Box<dyn Device> = match word.as_str() {
        "cpu" => Box::new(CpuDevice::new(0)?),
        gpu => {
            Box::new(gpu::open(gpu.parse().map_err(|_| anyhow!("{gpu}: cpu, sim or cuda"))?, Precision::F32)?)
        }
    };
    let values = [-2.0, -1.0, 0.0, 1.0, 2.0];
    let [y, dx] = run(&values, &mut *device)?;
    println!("{}\nx   {values:.4?}\ny   {y:.4?}\ndx  {dx:.4?}", device.describe());
    Ok(())
}
