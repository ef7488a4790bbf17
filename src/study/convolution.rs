//! The ladder of the convolution: 3x3, stride 1, NHWC.

use std::sync::Arc;

use anyhow::Result;

use super::{Compared, F32, Ladder, OperandSpec, sources, stream};
use crate::device::cpu::Call;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::sources::Source;
use crate::device::{Element, Operand, Operation, Tensor};
use crate::ops::convolution::{Convolution, ConvolutionShape};

/// A rung: its kernel and the shape of its launch.
#[derive(Clone, Copy, Debug)]
struct ConvolutionRung {
    kernel: Kernel,
    /// Pixels and output channels of a tile, one per block.
    tile: [usize; 2],
    threads: u32,
    /// Dynamic shared memory, bytes per block.
    shared_bytes: u32,
}

/// Slowest first. Rung 1 has no tile: a block computes 256 consecutive values.
const RUNGS: [ConvolutionRung; 4] = [
    rung(&sources::CONVOLUTION_1, "convolution_1_naive", [256, 1], 256, 0),
    rung(&sources::CONVOLUTION_2, "convolution_2_shared", [64, 64], 256, 0),
    rung(&sources::CONVOLUTION_3, "convolution_3_tensor_cores", [64, 64], 128, 0),
    rung(&sources::CONVOLUTION_4, "convolution_4_pipelined", [128, 64], 128, 72 << 10),
];

const fn rung(
    source: &'static Source,
    name: &'static str,
    tile: [usize; 2],
    threads: u32,
    shared_bytes: u32,
) -> ConvolutionRung {
    ConvolutionRung { kernel: Kernel { source, name }, tile, threads, shared_bytes }
}

/// The engine's convolution, computed by the kernel of a rung.
#[derive(Clone, Debug)]
struct ConvolutionByRung {
    rung: ConvolutionRung,
    of: Convolution,
}

impl Operation for ConvolutionByRung {
    fn name(&self) -> &'static str {
        self.rung.kernel.name
    }

    fn operands(&self) -> Vec<Operand> {
        self.of.operands()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        self.of.run(cpu)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Convolution { shape, x, w, y } = self.of;
        let ConvolutionRung { kernel, tile: [rows, columns], threads, shared_bytes } = self.rung;
        let pixels = shape.batch * shape.height * shape.width;
        let blocks = match columns {
            1 => (pixels * shape.out_channels).div_ceil(rows),
            _ => pixels.div_ceil(rows) * shape.out_channels.div_ceil(columns),
        };
        let pointers = [x, w, y].into_iter().fold(Arguments::new(), |a, t| a.pointer(gpu.address(t)));
        let counts = [shape.batch, shape.height, shape.width, shape.in_channels, shape.out_channels];
        let arguments = counts.into_iter().fold(pointers, Arguments::count);
        let launch = Launch::linear(kernel, blocks, threads as usize, arguments);
        gpu.launch(Launch { shared_bytes, ..launch });
        Ok(())
    }
}

/// The ladder for the given numbers of images, rows, columns, input and output channels.
pub(super) fn ladder([batch, height, width, in_channels, out_channels]: [usize; 5]) -> Ladder {
    let shape = ConvolutionShape { batch, height, width, in_channels, out_channels, kernel: 3, stride: 1 };
    let mut stream = stream(&[batch, height, width, in_channels, out_channels]);
    let mut normal = |len: usize| -> Vec<f32> {
        (0..len).map(|_| half::bf16::from_f64(stream.normal()).to_f32()).collect()
    };
    let operands = vec![
        OperandSpec::floats(Element::Bf16, normal(shape.input_len())),
        OperandSpec::floats(Element::Bf16, normal(shape.weight_len())),
        OperandSpec::output(Element::Bf16, shape.output_len()),
    ];
    let of = Convolution { shape, x: Tensor(0), w: Tensor(1), y: Tensor(2) };
    // At least 16, because even the smallest sums round their products.
    let terms = (9 * in_channels).max(16);
    Ladder {
        problem: format!(
            "3x3 convolution of {batch} images of {height} x {width}, {in_channels} to {out_channels} \
             channels, bf16 with f32 sums"
        ),
        tolerance: "2^-8 of a value, as it is rounded to bf16, and 2^-24 of the values' size for each \
                    term of a sum, as sums in f32 depend on their order",
        rungs: RUNGS.iter().map(|&rung| Arc::new(ConvolutionByRung { rung, of: of.clone() }) as _).collect(),
        operands,
        results: vec![Compared {
            name: "y",
            tensor: of.y,
            relative: 1.0 / 256.0,
            absolute: F32 * terms as f64,
        }],
    }
}
