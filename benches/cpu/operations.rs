//! The benchmarked operations, each ready on the device with operands as in a training step: the only part of
//! the benches that knows how an operation and a step are built.

use records::data::augment::{View, ViewParameters};
use records::data::recipe::prepare;
use records::device::cpu::{CpuDevice, RoundedCpu};
use records::device::{Buffer, Device, Element, Operation, Tensor};
use records::ops::augment::Augment;
use records::ops::batchnorm::{BatchNorm, BatchNormGradient};
use records::ops::convolution::{
    Convolution, ConvolutionDataGradient, ConvolutionShape, ConvolutionWeightGradient,
};
use records::pll::solar::operations::{Sinkhorn, SinkhornSettings, outcome};
use records::random::philox::{Purpose, Stream};
use records::settings::Settings;
use records::train::run::recipe;
use records::train::training::Training;

/// Images in a batch.
const BATCH: usize = 16;

/// One operand, before the operation runs.
enum Operand {
    /// Standard normal values.
    Normal(usize),
    /// The same, stored as activations are.
    Activations(usize),
    /// Positive rows over `classes`, each with sum 1.
    Rows {
        rows: usize,
        classes: usize,
    },
    /// These values.
    F32(Vec<f32>),
    Bytes(Vec<u8>),
    Integers(Vec<i32>),
    /// Zeros to be written.
    Output(usize),
    /// The same, stored as activations are.
    ActivationOutput(usize),
}

/// One thread, with activations of this type.
fn device(activations: Element) -> Box<dyn Device> {
    let cpu = CpuDevice::new(1).unwrap();
    if activations == Element::F32 { Box::new(cpu) } else { Box::new(RoundedCpu::new(cpu, activations)) }
}

impl Operand {
    fn upload(self, device: &mut dyn Device, stream: &mut Stream) -> Buffer {
        let element = match self {
            Operand::Activations(_) | Operand::ActivationOutput(_) => device.activations(),
            _ => Element::F32,
        };
        let values = match self {
            Operand::Normal(len) | Operand::Activations(len) => {
                (0..len).map(|_| stream.normal() as f32).collect()
            }
            Operand::Rows { rows, classes } => (0..rows).flat_map(|_| row(classes, stream)).collect(),
            Operand::F32(values) => values,
            Operand::Output(len) | Operand::ActivationOutput(len) => {
                return device.allocate(element, len, "an output").unwrap();
            }
            Operand::Bytes(bytes) => {
                let buffer = device.allocate(Element::U8, bytes.len(), "bytes").unwrap();
                device.write_u8(buffer, &bytes).unwrap();
                return buffer;
            }
            Operand::Integers(integers) => {
                let buffer = device.allocate(Element::I32, integers.len(), "integers").unwrap();
                device.write_i32(buffer, &integers).unwrap();
                return buffer;
            }
        };
        let buffer = device.allocate(element, values.len(), "an operand").unwrap();
        device.write_f32(buffer, &values).unwrap();
        buffer
    }
}

fn row(classes: usize, stream: &mut Stream) -> Vec<f32> {
    let values: Vec<f64> = (0..classes).map(|_| stream.normal().exp()).collect();
    let sum: f64 = values.iter().sum();
    values.into_iter().map(|value| (value / sum) as f32).collect()
}

/// An operation with its operands in place, on one thread.
pub struct Ready {
    device: Box<dyn Device>,
    buffers: Vec<Buffer>,
    operation: Box<dyn Operation>,
}

impl Ready {
    /// Tensor `i` of `operation` is `operands[i]`.
    fn new(operation: impl Operation, operands: Vec<Operand>) -> Self {
        Self::with(Element::F32, operation, operands)
    }

    /// The same with activations of another type.
    fn with(activations: Element, operation: impl Operation, operands: Vec<Operand>) -> Self {
        let mut device = device(activations);
        let mut stream = Stream::new(0, Purpose::Initialisation, 0, 0, 0);
        let buffers = operands.into_iter().map(|operand| operand.upload(&mut *device, &mut stream)).collect();
        Self { device, buffers, operation: Box::new(operation) }
    }

    /// Runs it once more over what the last run left.
    pub fn run(&mut self) {
        self.device.execute(&*self.operation, &self.buffers).unwrap();
    }

    pub fn flops(&self) -> f64 {
        self.operation.flops()
    }

    pub fn least_bytes(&self) -> f64 {
        self.operation.least_bytes(&self.buffers)
    }
}

/// A convolution over [`BATCH`] images.
fn shape([in_channels, out_channels, side, kernel, stride]: [usize; 5]) -> ConvolutionShape {
    ConvolutionShape { batch: BATCH, height: side, width: side, in_channels, out_channels, kernel, stride }
}

/// The level of vector instructions, and how many multiply-adds one thread can do with it at most.
pub fn limit(activations: Element) -> String {
    let mut device = device(activations);
    let limits = device.limits().unwrap();
    format!("{}: at most {:.1} GFLOP/s, measured", device.describe(), limits.flops / 1e9)
}

pub fn convolution(activations: Element, extents: [usize; 5]) -> Ready {
    let shape = shape(extents);
    let operands = vec![
        Operand::Activations(shape.input_len()),
        Operand::Activations(shape.weight_len()),
        Operand::ActivationOutput(shape.output_len()),
    ];
    Ready::with(activations, Convolution { shape, x: Tensor(0), w: Tensor(1), y: Tensor(2) }, operands)
}

pub fn convolution_data_gradient(activations: Element, extents: [usize; 5]) -> Ready {
    let shape = shape(extents);
    let operands = vec![
        Operand::Activations(shape.output_len()),
        Operand::Activations(shape.weight_len()),
        Operand::ActivationOutput(shape.input_len()),
    ];
    let (dy, w, dx) = (Tensor(0), Tensor(1), Tensor(2));
    Ready::with(activations, ConvolutionDataGradient { shape, dy, w, dx, accumulate: false }, operands)
}

pub fn convolution_weight_gradient(activations: Element, extents: [usize; 5]) -> Ready {
    let shape = shape(extents);
    let operands = vec![
        Operand::Activations(shape.input_len()),
        Operand::Activations(shape.output_len()),
        Operand::Output(shape.weight_len()),
    ];
    let (x, dy, dw) = (Tensor(0), Tensor(1), Tensor(2));
    Ready::with(activations, ConvolutionWeightGradient { shape, x, dy, dw }, operands)
}

/// The three directions over images or gradients of zeros.
pub fn convolutions_of_zeros(extents: [usize; 5]) -> [(&'static str, Ready); 3] {
    let shape = shape(extents);
    let (x, w, y) = (Tensor(0), Tensor(1), Tensor(2));
    let operands = |results: [usize; 2]| {
        let [given, result] = results;
        vec![Operand::Output(given), Operand::Normal(shape.weight_len()), Operand::Output(result)]
    };
    let (input, output) = (shape.input_len(), shape.output_len());
    let forward = Ready::new(Convolution { shape, x, w, y }, operands([input, output]));
    let gradient = ConvolutionDataGradient { shape, dy: x, w, dx: y, accumulate: false };
    let data = Ready::new(gradient, operands([output, input]));
    let weight = Ready::new(
        ConvolutionWeightGradient { shape, x: Tensor(0), dy: Tensor(1), dw: Tensor(2) },
        vec![Operand::Normal(input), Operand::Output(output), Operand::Output(shape.weight_len())],
    );
    [("forward", forward), ("data gradient", data), ("weight gradient", weight)]
}

/// Training batchnorm with ReLU.
pub fn batchnorm(activations: Element, rows: usize, channels: usize) -> Ready {
    let operands = vec![
        Operand::Activations(rows * channels),
        Operand::Normal(2 * channels),
        Operand::F32(vec![1.0; 2 * channels]),
        Operand::Output(2 * channels),
        Operand::ActivationOutput(rows * channels),
    ];
    let operation = BatchNorm {
        rows,
        channels,
        x: Tensor(0),
        affine: Tensor(1),
        running: Tensor(2),
        batch: Tensor(3),
        residual: None,
        relu: true,
        valid: None,
        y: Tensor(4),
        positive: None,
    };
    Ready::with(activations, operation, operands)
}

/// Gradient of training batchnorm with ReLU; a residual has dy masked in place.
pub fn batchnorm_gradient(activations: Element, [rows, channels]: [usize; 2], residual: bool) -> Ready {
    let operands = vec![
        Operand::Activations(rows * channels),
        Operand::Activations(rows * channels),
        Operand::Normal(2 * channels),
        Operand::F32(vec![1.0; 2 * channels]),
        Operand::Activations(rows * channels),
        Operand::Output(2 * channels),
        Operand::ActivationOutput(rows * channels),
    ];
    let operation = BatchNormGradient {
        rows,
        channels,
        x: Tensor(0),
        y: Tensor(1),
        positive: None,
        relu: true,
        residual,
        valid: None,
        affine: Tensor(2),
        batch: Tensor(3),
        dy: Tensor(4),
        d_affine: Tensor(5),
        dx: Tensor(6),
    };
    Ready::with(activations, operation, operands)
}

/// One view each of 128 images of CIFAR's size: 0 weak, 1 strong.
pub fn augment(first: usize) -> Ready {
    let (batch, side) = (128, 32);
    let views: Vec<ViewParameters> = (0..batch)
        .flat_map(|sample| {
            let of = |view| ViewParameters::of_sample(1, 0, sample, view, [side, side], side);
            [of(View::Weak), of(View::Strong)]
        })
        .collect();
    let mut stream = Stream::new(0, Purpose::Initialisation, 1, 0, 0);
    let batch = batch as usize;
    let operands = vec![
        Operand::Bytes((0..batch * side * side * 3).map(|_| stream.below(256) as u8).collect()),
        Operand::Bytes(bytemuck::cast_slice(&views).to_vec()),
        Operand::Integers((0..batch as i32).collect()),
        Operand::F32(vec![0.4914, 0.4822, 0.4465, 0.247, 0.243, 0.261]),
        Operand::Output(batch * side * side * 3),
    ];
    let operation = Augment {
        batch,
        first,
        count: 1,
        source: [side, side],
        size: side,
        images: Tensor(0),
        parameters: Tensor(1),
        index: Tensor(2),
        normalisation: Tensor(3),
        views: Tensor(4),
    };
    Ready::new(operation, operands)
}

/// SoLar's label refinery over a batch of 256 and a queue of `queue_rows`, ten classes.
pub fn sinkhorn(queue_rows: usize) -> Ready {
    let (batch, classes) = (256, 10);
    let mut operands = vec![
        Operand::Rows { rows: batch, classes },
        Operand::F32(vec![1.0 / classes as f32; classes]),
        Operand::Integers(vec![0; 2]),
        Operand::Output(batch * classes),
        Operand::Output(outcome::LEN),
    ];
    if queue_rows > 0 {
        operands.push(Operand::Rows { rows: queue_rows, classes });
    }
    let sinkhorn = Sinkhorn {
        batch,
        queue_rows,
        classes,
        settings: SinkhornSettings::default(),
        predictions: Tensor(0),
        queue: (queue_rows > 0).then_some(Tensor(5)),
        class_prior: Tensor(1),
        barrier: Tensor(2),
        pseudo_labels: Tensor(3),
        outcome: Tensor(4),
    };
    Ready::new(sinkhorn, operands)
}

/// A training step of the default method on made-up images, 16 samples with two views each, on one thread.
pub struct Step {
    device: Box<dyn Device>,
    training: Training,
    /// Steps of the epoch that are done.
    done: usize,
}

impl Step {
    /// `width`: channels of the network's first stage.
    pub fn new(activations: Element, width: usize) -> Self {
        let settings = Settings {
            dataset: "synthetic".into(),
            synthetic_train_per_class: 160,
            synthetic_test_per_class: 1,
            imb_factor: 0.1,
            partial_rate: 0.3,
            batch_size: 16,
            width,
            ..Settings::default()
        };
        let mut device = device(activations);
        let data = prepare(&recipe(&settings).unwrap()).unwrap();
        let mut training = Training::new(&settings, &data, &mut *device).unwrap();
        training.begin_epoch(1, &mut *device).unwrap();
        Self { device, training, done: 0 }
    }

    /// A step; before the first of an epoch, what begins one.
    pub fn run(&mut self) {
        if self.done == self.training.steps {
            self.training.begin_epoch(1, &mut *self.device).unwrap();
            self.done = 0;
        }
        self.done += 1;
        self.device.replay(&self.training.engine.plan).unwrap();
    }

    pub fn flops(&self) -> f64 {
        self.training.engine.plan.flops()
    }
}
