//! What is launched to learn what kernels cost: every kernel at two sizes or more.

use std::ops::Range;
use std::sync::Arc;

use ptx_sim::Counters;
use rayon::prelude::*;
use records::autograd::{Add, Tape};
use records::collective::Share;
use records::device::gpu::launch::Launch;
use records::device::gpu::sim::{Log, SimDriver};
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Device, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::{
    BatchNorm, BatchNormGradient, Epilogue, JointBatchNorm, JointBatchNormGradient, batchnorm,
    batchnorm_inference, positive_len,
};
use records::ops::confidence::Disambiguate;
use records::ops::control;
use records::ops::convolution::{
    Convolution, ConvolutionDataGradient, ConvolutionShape, ConvolutionWeightGradient,
    convolution as convolve,
};
use records::ops::division::{AddParts, OwnCount, OwnRows, PlaceRows};
use records::ops::elementwise::{Convert, Sum};
use records::ops::linear::LinearGradient;
use records::ops::loss::{Loss, Term};
use records::optim::loss_scale;
use records::pll::corr::{self, Consistency};
use records::pll::lw::settings::{LwLoss, LwSettings};
use records::pll::solar::operations::{CountArgmax, Sinkhorn, SinkhornSettings};
use records::pll::{LabelMethod, cavl, cc, exp, mse, proden};
use records::profile::data::Shape;
use records::random::philox::{Purpose, Stream};
use records::settings::{Debias, GivenSettings, Settings};
use records::train::evaluate::{Evaluation, ResidentImages};
use records::train::training::Training;

/// A launch and what the interpreter counted of it.
pub type Ran = (Launch, Counters);

/// The interpreter standing for a GPU of so many multiprocessors, and its log.
pub fn device(precision: Precision, multiprocessors: usize) -> (GpuDevice, Log) {
    device_as(precision, multiprocessors, 80)
}

/// The same with the kernels of compute capability `architecture` / 10.
fn device_as(precision: Precision, multiprocessors: usize, architecture: u32) -> (GpuDevice, Log) {
    device_of(precision, multiprocessors, architecture, &[])
}

/// The same with convolutions by tiles, where they take them, and with an A100's shared memory, which all do.
fn device_of(
    precision: Precision,
    multiprocessors: usize,
    architecture: u32,
    tiles: &'static [&'static str],
) -> (GpuDevice, Log) {
    let driver = SimDriver::open(0).unwrap_or_else(|error| panic!("{error:#}"));
    let driver =
        driver.with_multiprocessors(multiprocessors).with_architecture(architecture).with_tiles(tiles);
    let mut driver = if tiles.is_empty() { driver } else { driver.with_shared_bytes(163 << 10) };
    let log = driver.log();
    (GpuDevice::new(Box::new(driver), precision), log)
}

/// What convolutions multiply, for which GPUs, and by which tiles.
#[derive(Clone, Copy)]
struct Numbers {
    precision: Precision,
    architecture: u32,
    tiles: &'static [&'static str],
}

const BF16: Numbers = Numbers { precision: Precision::Bf16, architecture: 80, tiles: &[] };
const F16: Numbers = Numbers { precision: Precision::F16, architecture: 80, tiles: &[] };
const F16_SHORT: Numbers = Numbers { precision: Precision::F16, architecture: 86, tiles: &[] };

impl Numbers {
    fn element(self) -> Element {
        if self.precision == Precision::Bf16 { Element::Bf16 } else { Element::F16 }
    }

    /// A GPU of one multiprocessor, and its log.
    fn device(self) -> (GpuDevice, Log) {
        device_of(self.precision, 1, self.architecture, self.tiles)
    }
}

/// Settings of a step of a method on small images, with its own settings small enough for the interpreter.
pub fn settings(method: &str, batch_size: usize, width: usize) -> Settings {
    let base = Settings {
        dataset: "synthetic".into(),
        imb_factor: 1.0,
        partial_rate: 0.3,
        upd_start: 0,
        batch_size,
        width,
        image_size: 8,
        ..Settings::default()
    };
    let mut settings = base;
    let mut given = GivenSettings::default().with("method", method.to_string());
    match method {
        "solar" => {
            given =
                given.with("est-epochs", 0_usize).with("queue-length", 2_usize).with("warmup-epoch", 1_usize)
        }
        "pico" => given = given.with("moco-queue", 64 * batch_size),
        _ => {}
    }
    given.apply(&mut settings).unwrap_or_else(|problem| panic!("{problem}"));
    settings.upd_start = 0;
    settings
}

/// What a step, the end of an epoch and an evaluation launch, over so many classes.
fn run(settings: &Settings, precision: Precision, classes: usize) -> Vec<Ran> {
    // No facts may depend on a choice that is made from them. Of these tiles few values are empty.
    let (mut device, log) = device_of(precision, 82, 80, &["128x32", "32x128"]);
    let samples = 2 * settings.batch_size.max(classes);
    let shape = Shape { counts: vec![samples.div_ceil(classes); classes], test: settings.batch_size };
    let data = shape.blank(settings.image_size).unwrap();
    let mut training =
        Training::new(settings, &data, &mut device).unwrap_or_else(|error| panic!("{error:#}"));
    training.begin_epoch(1, &mut device).unwrap();
    if let Some(scale) = training.engine.model.loss_scale {
        // So small that no gradient overflows: the optimiser leaves nothing out.
        let mut state = [0.0; loss_scale::LEN];
        state[loss_scale::LOSS_SCALE] = 1.0;
        device.write_f32(scale.state, &state).unwrap();
    }
    let failed = |error: anyhow::Error| panic!("{} {classes} classes: {error:#}", settings.method_title());
    device.replay(&training.engine.plan).unwrap_or_else(failed);
    training.confidence_statistics(&mut device).unwrap();
    training.not_finite(&mut device).unwrap();
    let images =
        ResidentImages::new(data.test.as_ref().unwrap(), data.test_normalisation, &mut device).unwrap();
    let evaluation =
        Evaluation::new(&training.engine.model, images, settings.batch_size, &mut device).unwrap();
    evaluation.run(&mut device).unwrap();
    log.take()
}

/// Two sizes of a step: samples, width, classes.
const SIZES: [[usize; 3]; 2] = [[4, 8, 10], [8, 16, 24]];

/// Steps of the methods that have kernels of their own, at two sizes.
fn steps(precision: Precision, methods: &[&str], optimizers: &[&str]) -> Vec<Ran> {
    let mut ran = Vec::new();
    for [batch, width, classes] in SIZES {
        for method in methods {
            let settings = settings(method, batch, width);
            let with_steps = GivenSettings::default().with("prior-from", "steps".to_string());
            let own = if *method == "solar" { with_steps } else { GivenSettings::default() };
            ran.extend(run(&given(settings, own), precision, classes));
        }
        for optimizer in optimizers {
            let mixed = Settings { mixup: true, debias: Debias::Records, ..settings("corr", batch, width) };
            ran.extend(run(&Settings { optimizer: (*optimizer).into(), ..mixed }, precision, classes));
        }
    }
    ran
}

fn given(mut settings: Settings, own: GivenSettings) -> Settings {
    own.apply(&mut settings).unwrap_or_else(|problem| panic!("{problem}"));
    settings
}

/// The losses and disambiguations of methods of one view, apart and a method's two in one; and CORR's over
/// more classes than a warp has registers for.
fn losses() -> Vec<Ran> {
    let mut ran = Vec::new();
    let lw = |loss| LwSettings { loss, beta: 1.0 }.method();
    let methods = [
        proden::method(),
        cavl::method(),
        lw(LwLoss::Sigmoid),
        lw(LwLoss::CrossEntropy),
        cc::method(),
        mse::method(),
        exp::method(),
    ];
    for (batch, classes) in [(32, 10), (64, 100)] {
        for method in &methods {
            ran.extend(rows(method, 1, batch, classes));
        }
        let single = LabelMethod { row_loss: Arc::new(Consistency), ..proden::method() };
        ran.extend(rows(&single, 1, batch, classes));
        ran.extend(rows(&corr::method(), 2, batch, 3 * classes + 270));
    }
    ran
}

/// A method's loss of so many views and its disambiguation, apart and side by side.
fn rows(method: &LabelMethod, views: usize, batch: usize, classes: usize) -> Vec<Ran> {
    let len = batch * classes;
    let operands = [
        (Element::F32, views * len),
        (Element::F32, len),
        (Element::F32, control::LEN),
        (Element::F32, views * len),
        (Element::F32, batch),
        (Element::U8, len),
        (Element::I32, batch),
    ];
    let [logits, confidence, control, d_logits, loss_rows, candidates, index] = std::array::from_fn(Tensor);
    let loss = Loss {
        row_loss: method.row_loss.clone(),
        term: Term::Plain,
        joint: method.joint,
        batch,
        classes,
        views,
        first: 0,
        logits,
        target: confidence,
        candidates,
        index: Some(index),
        d_logits,
        loss_rows,
    };
    let disambiguate = Disambiguate {
        disambiguation: method.disambiguation.clone(),
        joint: method.joint,
        batch,
        classes,
        logits,
        log_prior: None,
        candidates,
        index,
        control,
        confidence,
    };
    let both = operations![disambiguate.clone(), loss, disambiguate];
    [
        operate(82, &operands, &both[..2]),
        operate(82, &operands, &both[1..]),
        operate(82, &operands, &both[2..]),
    ]
    .concat()
}

/// Augmentation and the passes over activations at their usual size.
fn usual_images() -> Vec<Ran> {
    let of = |batch, width| Settings { image_size: 32, ..settings("corr", batch, width) };
    [run(&of(4, 16), Precision::Bf16, 10), run(&of(8, 8), Precision::Bf16, 10)].concat()
}

/// CORR over many classes: a kernel for each number of registers that a row takes.
fn wide_rows() -> Vec<Ran> {
    let mut ran = Vec::new();
    for classes in [48, 100, 200] {
        for batch in [4, 8] {
            ran.extend(run(&settings("corr", batch, 8), Precision::Bf16, classes));
        }
    }
    ran
}

/// Runs operations over fresh operands of these types and lengths on a GPU of so many multiprocessors.
fn operate(
    multiprocessors: usize,
    operands: &[(Element, usize)],
    operations: &[Arc<dyn Operation>],
) -> Vec<Ran> {
    operate_on(device(Precision::Bf16, multiprocessors), operands, operations)
}

/// The same on a device with its log.
fn operate_on(
    (mut device, log): (GpuDevice, Log),
    operands: &[(Element, usize)],
    operations: &[Arc<dyn Operation>],
) -> Vec<Ran> {
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let mut buffers = Vec::new();
    for &(element, len) in operands {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        match element {
            Element::U8 => device.write_u8(buffer, &vec![1; len]).unwrap(),
            // Distinct positions; a barrier, which begins with zeros, has two words.
            Element::I32 if len > 2 => {
                device.write_i32(buffer, &(0..len as i32).rev().collect::<Vec<_>>()).unwrap()
            }
            Element::I32 => {}
            _ => {
                let values: Vec<f32> = (0..len).map(|_| stream.uniform(0.01, 1.0) as f32).collect();
                device.write_f32(buffer, &values).unwrap();
            }
        }
        buffers.push(buffer);
    }
    let plan = Plan::record(Program::new(operations.to_vec(), buffers), &mut device).unwrap();
    device.replay(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    log.take()
}

/// Operations of [`convolution`]: the convolution with its batchnorm, and with the one before it; the data gradient
/// with the sums of a batchnorm's gradient, and with the gradient of the batchnorm before it; the weight gradient.
const FORWARD: Range<usize> = 1..3;
const FORWARD_OF_BATCHNORM: Range<usize> = 0..3;
const DATA_GRADIENT: Range<usize> = 4..6;
const DATA_GRADIENT_OF_BATCHNORM: Range<usize> = 3..6;
const WEIGHT_GRADIENT: Range<usize> = 6..7;

/// Some operations of a convolution.
fn convolution(
    numbers: Numbers,
    part: Range<usize>,
    [batch, size]: [usize; 2],
    channels: [usize; 2],
    stride: usize,
) -> Vec<Ran> {
    let ([in_channels, out_channels], stored) = (channels, numbers.element());
    let shape =
        ConvolutionShape { batch, height: size, width: size, in_channels, out_channels, kernel: 3, stride };
    let rows = shape.output_len() / out_channels;
    let operands = [
        (stored, shape.input_len()),
        (stored, shape.weight_len()),
        (stored, shape.output_len()),
        (stored, shape.input_len()),
        (Element::F32, shape.weight_len()),
        (Element::F32, 2 * out_channels),
        (Element::F32, 2 * out_channels),
        (Element::F32, 2 * out_channels),
        (stored, shape.output_len()),
        (Element::F32, 2 * in_channels),
        (Element::F32, 2 * in_channels),
        (Element::F32, 2 * in_channels),
        (stored, shape.input_len()),
        (stored, shape.input_len()),
        (Element::U8, positive_len(stored, shape.input_len())),
        (stored, shape.input_len()),
        (stored, shape.input_len()),
        (Element::F32, 2 * in_channels),
        (stored, shape.output_len()),
        (Element::F32, 2 * out_channels),
    ];
    let [
        x,
        w,
        y,
        dx,
        dw,
        affine,
        running,
        batch,
        out,
        affine_before,
        batch_before,
        d_affine,
        y_before,
        dx_before,
        positive_before,
        source,
        residual,
        running_before,
        dy,
        d_affine_behind,
    ] = std::array::from_fn(Tensor);
    let rows_before = shape.input_len() / in_channels;
    let behind = BatchNorm {
        rows,
        channels: out_channels,
        x: y,
        affine,
        running,
        batch,
        residual: None,
        relu: true,
        valid: None,
        y: out,
        positive: None,
    };
    let operations = operations![
        BatchNorm {
            rows: rows_before,
            channels: in_channels,
            x: source,
            affine: affine_before,
            running: running_before,
            batch: batch_before,
            residual: Some(residual),
            relu: true,
            valid: None,
            y: x,
            positive: Some(positive_before),
        },
        Convolution { shape, x, w, y },
        behind,
        BatchNormGradient {
            rows,
            channels: out_channels,
            x: y,
            y: out,
            positive: None,
            relu: false,
            residual: false,
            valid: None,
            affine,
            batch,
            dy: out,
            d_affine: d_affine_behind,
            dx: dy,
        },
        ConvolutionDataGradient { shape, dy, w, dx, accumulate: false },
        // Which the data gradient makes the sums of.
        BatchNormGradient {
            rows: rows_before,
            channels: in_channels,
            x,
            y: y_before,
            positive: Some(positive_before),
            relu: true,
            residual: true,
            valid: None,
            affine: affine_before,
            batch: batch_before,
            dy: dx,
            d_affine,
            dx: dx_before,
        },
        ConvolutionWeightGradient { shape, x, dy, dw },
    ];
    operate_on(numbers.device(), &operands, &operations[part])
}

/// A convolution and the batchnorm of an evaluation in one kernel.
fn inference(numbers: Numbers, [batch, size]: [usize; 2], channels: [usize; 2]) -> Vec<Ran> {
    let [in_channels, out_channels] = channels;
    let shape = ConvolutionShape {
        batch,
        height: size,
        width: size,
        in_channels,
        out_channels,
        kernel: 3,
        stride: 1,
    };
    let (mut device, log) = numbers.device();
    let stored = numbers.element();
    let mut tape = Tape::new(stored);
    let mut operand = |element: Element, len: usize| {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        tape.persistent(buffer)
    };
    let (x, w) = (operand(stored, shape.input_len()), operand(stored, shape.weight_len()));
    let [affine, running] = [0, 1].map(|_| operand(Element::F32, 2 * out_channels));
    let residual = operand(stored, shape.output_len());
    let y = convolve(&mut tape, shape, x, w);
    let epilogue = Epilogue { residual: Some(residual), relu: true };
    let rows = shape.output_len() / out_channels;
    let out = batchnorm_inference(&mut tape, [rows, out_channels], y, [affine, running], epilogue);
    tape.keep(out);
    let plan = tape.finish(&mut device).unwrap();
    device.replay(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    log.take()
}

/// The weight gradient of the first layer that computes dy from the gradient of the batchnorm behind it.
fn stem_of_batchnorm(numbers: Numbers, [batch, size]: [usize; 2]) -> Vec<Ran> {
    let shape = ConvolutionShape {
        batch,
        height: size,
        width: size,
        in_channels: 3,
        out_channels: 64,
        kernel: 3,
        stride: 1,
    };
    let (mut device, log) = Numbers { tiles: &["of_batchnorm"], ..numbers }.device();
    let stored = numbers.element();
    let mut tape = Tape::new(stored);
    let mut buffer = |element: Element, len: usize| device.allocate(element, len, "an operand").unwrap();
    let d_weights = buffer(Element::F32, shape.weight_len());
    let [affine, d_affine, running] = [0, 1, 2].map(|_| buffer(Element::F32, 2 * 64));
    let [images, dy] = [shape.input_len(), shape.output_len()].map(|len| buffer(stored, len));
    let copy = buffer(stored, shape.weight_len());
    let [x, dy, running] = [images, dy, running].map(|buffer| tape.persistent(buffer));
    let w = tape.parameter(copy, d_weights);
    let affine = tape.parameter(affine, d_affine);
    let y = convolve(&mut tape, shape, x, w);
    let rows = shape.output_len() / 64;
    let out = batchnorm(&mut tape, [rows, 64], y, [affine, running], Epilogue::default(), None);
    tape.backward(&[(out, dy)]);
    let plan = tape.finish(&mut device).unwrap();
    device.replay(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    let mut ran = log.take();
    ran.retain(|(launch, _)| launch.kernel.name.contains("stem_weight_gradient_of_batchnorm"));
    assert!(!ran.is_empty(), "dy is computed on the way");
    ran
}

/// Every tile of the tensor-core kernels with two lengths of its main loop, and nothing of the tile empty.
/// Where the numbers have no kernel of a tile, the first that takes the shape is launched.
fn tiles(numbers: Numbers) -> Vec<Ran> {
    let mut ran = Vec::new();
    let gathering: [(&'static [&'static str], _, _); 7] = [
        (&["128x128"], [2, 8], 128),
        (&["128x64"], [2, 8], 64),
        (&["64x64"], [2, 8], 64),
        (&["128x32"], [2, 8], 32),
        (&["halo_128x128"], [1, 16], 128),
        (&["halo_128x64"], [1, 16], 64),
        (&["halo_256x64"], [1, 16], 64),
    ];
    for (tiles, images, columns) in gathering {
        let numbers = Numbers { tiles, ..numbers };
        for depth in [64, 96] {
            ran.extend(convolution(numbers, FORWARD, images, [depth, columns], 1));
            ran.extend(inference(numbers, images, [depth, columns]));
            ran.extend(convolution(numbers, DATA_GRADIENT, images, [columns, depth], 1));
        }
    }
    let of_batchnorm: [(&'static [&'static str], _); 3] =
        [(&["of_batchnorm_128x128"], 128), (&["of_batchnorm_128x64"], 64), (&["of_batchnorm_256x64"], 64)];
    for (tiles, columns) in of_batchnorm {
        let numbers = Numbers { tiles, ..numbers };
        for depth in [64, 96] {
            ran.extend(convolution(numbers, FORWARD_OF_BATCHNORM, [1, 16], [depth, columns], 1));
            ran.extend(convolution(numbers, DATA_GRADIENT_OF_BATCHNORM, [1, 16], [columns, depth], 1));
        }
    }
    let weight_gradient: [(&'static [&'static str], _); 5] = [
        (&["128x128"], [128, 128]),
        (&["64x192"], [64, 64]),
        (&["64x64"], [64, 64]),
        (&["32x128"], [128, 32]),
        (&["halo_64x288"], [64, 64]),
    ];
    for (tiles, channels) in weight_gradient {
        let numbers = Numbers { tiles, ..numbers };
        for images in [[2, 8], [2, 16]] {
            ran.extend(convolution(numbers, WEIGHT_GRADIENT, images, channels, 1));
        }
    }
    let numbers = Numbers { tiles: &["64x64"], ..numbers };
    for part in [FORWARD, DATA_GRADIENT, WEIGHT_GRADIENT] {
        ran.extend(convolution(numbers, part, [1, 16], [64, 128], 2));
    }
    if numbers.architecture == 80 {
        for images in [[2, 16], [4, 16]] {
            ran.extend(stem_of_batchnorm(numbers, images));
        }
    }
    ran
}

/// Sinkhorn where its rows do not fit shared memory, and what only wide networks launch.
fn the_rest() -> Vec<Ran> {
    let mut ran = Vec::new();
    for (batch, classes) in [(256, 100), (384, 100)] {
        let operands = [
            (Element::F32, batch * classes),
            (Element::F32, classes),
            (Element::I32, 2),
            (Element::F32, batch * classes),
            (Element::F32, 2),
        ];
        let [predictions, class_prior, barrier, pseudo_labels, outcome] = std::array::from_fn(Tensor);
        let sinkhorn = Sinkhorn {
            batch,
            queue_rows: 0,
            classes,
            settings: SinkhornSettings::default(),
            predictions,
            queue: None,
            class_prior,
            barrier,
            pseudo_labels,
            outcome,
        };
        ran.extend(operate(1, &operands, &operations![sinkhorn]));
    }
    for len in [4096, 16_384] {
        let [a, b, out] = std::array::from_fn(Tensor);
        let sum = Sum { len, terms: [a, b], out };
        for numbers in [BF16, F16] {
            let stored = [(numbers.element(), len); 3];
            let device = || device_as(numbers.precision, 82, numbers.architecture);
            let both = operations![sum.clone(), Convert { len, from: a, to: out }];
            ran.extend(operate_on(device(), &stored, &both));
            let mixed = [(Element::F32, len), (numbers.element(), len)];
            ran.extend(operate_on(device(), &mixed, &operations![Convert { len, from: a, to: b }]));
            ran.extend(operate_on(device(), &stored, &operations![Add { len, x: a, into: out }]));
        }
        let f32 = [(Element::F32, len); 3];
        ran.extend(operate(82, &f32, &operations![sum, Convert { len, from: a, to: out }]));
    }
    for (rows, inputs, outputs) in [(256, 64, 10), (512, 96, 20)] {
        let len = outputs * (inputs + 1);
        let operands =
            [rows * inputs, len, rows * outputs, len, rows * inputs].map(|len| (Element::F32, len));
        let [x, parameters, dy, d_parameters, dx] = std::array::from_fn(Tensor);
        let gradient = LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx };
        ran.extend(operate(82, &operands, &operations![gradient]));
        let operands = [(Element::F32, rows * outputs), (Element::F32, outputs)];
        let largest = CountArgmax { rows, classes: outputs, x: Tensor(0), counts: Tensor(1) };
        ran.extend(operate(82, &operands, &operations![largest]));
    }
    ran
}

/// What several GPUs do between their exchanges.
fn divided() -> Vec<Ran> {
    let mut ran = Vec::new();
    for (count, len, channels) in [(64, 10, 64), (256, 100, 128)] {
        let (groups, share) = (2, Share { rank: 1, size: 4, joint_batchnorm: true });
        let all = groups * count * len;
        let operands = [
            (Element::F32, all),
            (Element::F32, all),
            (Element::F32, all / 4),
            (Element::I32, 1),
            (Element::I32, 1),
        ];
        let [x, out, part, rows, own] = std::array::from_fn(Tensor);
        let operations = operations![
            OwnRows { groups, count, len, share, is_whole: false, x, out: part },
            OwnCount { rows: share.of(count), count: rows, out: own },
            PlaceRows { groups, count, len, ranks: 4, gathered: x, out },
            AddParts { len: all / 4, rank: 1, ranks: 4, received: x, values: part },
        ];
        ran.extend(operate(82, &operands, &operations));
        ran.extend(joint_batchnorm([16 * count, channels]));
    }
    // The other kernels of batchnorm are learnt from elsewhere.
    ran.retain(|(launch, _)| ["batchnorm_joint.cu", "division.cu"].contains(&launch.kernel.source.name));
    ran
}

/// Batchnorm by the kernels of several GPUs.
fn joint_batchnorm([rows, channels]: [usize; 2]) -> Vec<Ran> {
    let stored = (Element::Bf16, rows * channels);
    let of_channels = (Element::F32, 2 * channels);
    let operands = [stored, of_channels, of_channels, of_channels, stored, stored, of_channels, stored];
    let [x, affine, running, batch, y, dy, d_affine, dx] = std::array::from_fn(Tensor);
    let (residual, relu, valid) = (None, true, None);
    let positive = None;
    let forward = BatchNorm { rows, channels, x, affine, running, batch, residual, relu, valid, y, positive };
    let residual = false;
    let gradient = BatchNormGradient {
        rows,
        channels,
        x,
        y,
        relu,
        residual,
        valid,
        affine,
        batch,
        dy,
        d_affine,
        dx,
        positive,
    };
    operate(82, &operands, &operations![JointBatchNorm(forward), JointBatchNormGradient(gradient)])
}

/// A name, and what makes launches.
type Case = (&'static str, fn() -> Vec<Ran>);

/// All launches of all cases.
pub fn all() -> Vec<Ran> {
    let cases: [Case; 11] = [
        ("steps in bf16", || steps(Precision::Bf16, &["corr", "solar", "pico"], &["adamw", "nesterov"])),
        ("steps in f16", || steps(Precision::F16, &["solar", "pico"], &["adamw", "nesterov"])),
        ("steps in f32", || steps(Precision::F32, &["solar"], &["sgd"])),
        ("losses", losses),
        ("usual images", usual_images),
        ("wide rows", wide_rows),
        ("tiles in bf16", || tiles(BF16)),
        ("tiles in f16", || tiles(F16)),
        ("tiles in f16 with sums in f16", || tiles(F16_SHORT)),
        ("the rest", the_rest),
        ("a divided batch", divided),
    ];
    let run = |&(name, case): &Case| {
        let ran = case();
        assert!(!ran.is_empty(), "{name}: nothing was launched");
        ran
    };
    cases.par_iter().map(run).collect::<Vec<_>>().concat()
}
