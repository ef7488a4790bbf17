//! What predictions are made from: instructions, loads and passes through shared memory of every kernel as the interpreter counts
//! them at several sizes, and the main loops of its machine code, compared with kernels/facts.txt. And what every launch declares of
//! its work, compared with what is counted.
//!
//! RECORDS_UPDATE_COSTS=1 writes the facts anew, to be reviewed as a diff. tools/test provides compiler and disassembler.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ptx_sim::Counters;
use records::autograd::Add;
use records::device::gpu::cache::KernelCache;
use records::device::gpu::kernels::SIGNATURES;
use records::device::gpu::launch::Launch;
use records::device::gpu::sim::{Log, SimDriver};
use records::device::gpu::work::Work;
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Device, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::BatchNorm;
use records::ops::confidence::Disambiguate;
use records::ops::control;
use records::ops::convolution::{
    Convolution, ConvolutionDataGradient, ConvolutionShape, ConvolutionWeightGradient,
};
use records::ops::elementwise::{Convert, Sum};
use records::ops::linear::LinearGradient;
use records::ops::loss::{Loss, Term};
use records::pll::corr::{self, Consistency};
use records::pll::lw::settings::LwSettings;
use records::pll::solar::operations::{CountLargest, Sinkhorn, SinkhornSettings};
use records::pll::{LabelMethod, cavl, cc, exp, mse, proden};
use records::profile::data::Shape;
use records::profile::facts::{self, ARCHITECTURES, Count, Counted, Loop, Table};
use records::random::philox::{Purpose, Stream};
use records::settings::{Debias, GivenSettings, LwLoss, Settings};
use records::train::evaluate::{Evaluation, ResidentImages};
use records::train::training::Training;

#[path = "support/sass.rs"]
mod sass;

/// A launch and what the interpreter counted of it.
type Ran = (Launch, Counters);

/// The interpreter standing for a GPU of so many multiprocessors, and its log.
fn device(precision: Precision, multiprocessors: usize) -> (GpuDevice, Log) {
    let driver = SimDriver::open(0).unwrap_or_else(|error| panic!("{error:#}"));
    let mut driver = driver.with_multiprocessors(multiprocessors);
    let log = driver.log();
    (GpuDevice::new(Box::new(driver), precision), log)
}

/// Settings of a step of a method on small images, with its own settings small enough for the interpreter.
fn settings(method: &str, batch_size: usize, width: usize) -> Settings {
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
        "solar" => given = given.with("est-epochs", 0_usize).with("queue-length", 2_usize).with("warmup-epoch", 1_usize),
        "pico" => given = given.with("moco-queue", 64 * batch_size),
        _ => {}
    }
    given.apply(&mut settings).unwrap_or_else(|problem| panic!("{problem}"));
    settings.upd_start = 0;
    settings
}

/// What a step, the end of an epoch and an evaluation launch, over so many classes.
fn run(settings: &Settings, precision: Precision, classes: usize) -> Vec<Ran> {
    let (mut device, log) = device(precision, 82);
    let samples = 2 * settings.batch_size.max(classes);
    let shape = Shape { counts: vec![samples.div_ceil(classes); classes], test: settings.batch_size };
    let data = shape.blank(settings.image_size).unwrap();
    let mut training = Training::new(settings, &data, &mut device).unwrap_or_else(|error| panic!("{error:#}"));
    training.begin_epoch(1, &mut device).unwrap();
    let failed = |error: anyhow::Error| panic!("{} {classes} classes: {error:#}", settings.method_title());
    device.replay(&training.engine.plan).unwrap_or_else(failed);
    training.confidence_statistics(&mut device).unwrap();
    let images = ResidentImages::new(data.test.as_ref().unwrap(), data.test_normalisation, &mut device).unwrap();
    let evaluation = Evaluation::new(&training.engine.model, images, settings.batch_size, &mut device).unwrap();
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
            let own = (*method == "solar").then_some(with_steps).unwrap_or_default();
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

/// The losses and disambiguations of methods of one view, apart and a method's two in one; and CORR's over more classes than a warp
/// has registers for.
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
    [operate(82, &operands, &both[..2]), operate(82, &operands, &both[1..]), operate(82, &operands, &both[2..])].concat()
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
    let (mut device, log) = device(Precision::Bf16, multiprocessors);
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let mut buffers = Vec::new();
    for &(element, len) in operands {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        match element {
            Element::U8 => device.write_u8(buffer, &vec![1; len]).unwrap(),
            // Distinct positions; a barrier, which begins with zeros, has two words.
            Element::I32 if len > 2 => device.write_i32(buffer, &(0..len as i32).rev().collect::<Vec<_>>()).unwrap(),
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

/// A convolution with its batchnorm, and its gradients.
fn convolution(batch: usize, size: usize, channels: [usize; 2], stride: usize) -> Vec<Ran> {
    let [in_channels, out_channels] = channels;
    let shape =
        ConvolutionShape { batch, height: size, width: size, in_channels, out_channels, kernel: 3, stride };
    let rows = shape.output_len() / out_channels;
    let operands = [
        (Element::Bf16, shape.input_len()),
        (Element::Bf16, shape.weight_len()),
        (Element::Bf16, shape.output_len()),
        (Element::Bf16, shape.input_len()),
        (Element::F32, shape.weight_len()),
        (Element::F32, 2 * out_channels),
        (Element::F32, 2 * out_channels),
        (Element::F32, 2 * out_channels),
        (Element::Bf16, shape.output_len()),
    ];
    let [x, w, y, dx, dw, affine, running, batch, out] = std::array::from_fn(Tensor);
    let batchnorm = BatchNorm {
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
    };
    let operations = operations![
        Convolution { shape, x, w, y },
        batchnorm,
        ConvolutionWeightGradient { shape, x, dy: y, dw },
        ConvolutionDataGradient { shape, dy: y, w, dx, accumulate: false },
    ];
    operate(1, &operands, &operations)
}

/// Every tile of the tensor-core kernels with two lengths of its main loop: on one multiprocessor the largest that fits is taken.
fn tiles() -> Vec<Ran> {
    let mut ran = Vec::new();
    for (batch, size, channels) in [
        (1, 16, [64, 128]),
        (2, 16, [128, 128]),
        (1, 16, [128, 64]),
        (2, 16, [64, 64]),
        (1, 16, [32, 32]),
        (2, 16, [64, 32]),
        (1, 8, [64, 64]),
        (2, 4, [128, 128]),
    ] {
        ran.extend(convolution(batch, size, channels, 1));
    }
    ran.extend(convolution(1, 32, [64, 128], 2));
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
        let bf16 = [(Element::Bf16, len); 3];
        let [a, b, out] = std::array::from_fn(Tensor);
        let sum = Sum { len, terms: [a, b], out };
        ran.extend(operate(82, &bf16, &operations![sum.clone(), Convert { len, from: a, to: out }]));
        let f32 = [(Element::F32, len); 3];
        ran.extend(operate(82, &f32, &operations![sum, Convert { len, from: a, to: out }]));
        let mixed = [(Element::F32, len), (Element::Bf16, len)];
        ran.extend(operate(82, &mixed, &operations![Convert { len, from: a, to: b }]));
        ran.extend(operate(82, &bf16, &operations![Add { len, x: a, into: out }]));
    }
    for (rows, inputs, outputs) in [(256, 64, 10), (512, 96, 20)] {
        let len = outputs * (inputs + 1);
        let operands = [rows * inputs, len, rows * outputs, len, rows * inputs].map(|len| (Element::F32, len));
        let [x, parameters, dy, d_parameters, dx] = std::array::from_fn(Tensor);
        let gradient = LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx };
        ran.extend(operate(82, &operands, &operations![gradient]));
        let operands = [(Element::F32, rows * outputs), (Element::F32, outputs)];
        let largest = CountLargest { rows, classes: outputs, x: Tensor(0), counts: Tensor(1) };
        ran.extend(operate(82, &operands, &operations![largest]));
    }
    ran
}

/// All launches of all cases.
fn all() -> Vec<Ran> {
    [
        ("steps in bf16", (|| steps(Precision::Bf16, &["corr", "solar", "pico"], &["adamw", "nesterov"])) as fn() -> Vec<Ran>),
        ("steps in f32", || steps(Precision::F32, &["solar"], &["sgd"])),
        ("losses", losses),
        ("usual images", usual_images),
        ("wide rows", wide_rows),
        ("tiles", tiles),
        ("the rest", the_rest),
    ]
    .into_iter()
    .flat_map(|(name, cases)| {
        let ran = cases();
        assert!(!ran.is_empty(), "{name}: nothing was launched");
        ran
    })
    .collect()
}

/// The count that fits best, in shares of what was counted: neither part is below 0.
fn fit(samples: &[(f64, f64, f64)]) -> Count {
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        samples.iter().filter(|(.., y)| *y > 0.0).map(|&(warps, items, y)| of(warps / y, items / y)).sum::<f64>()
    };
    let (ww, wi, ii) = (sum(&|w, _| w * w), sum(&|w, i| w * i), sum(&|_, i| i * i));
    let (w, i) = (sum(&|w, _| w), sum(&|_, i| i));
    let alone = Count { warp: if ww > 0.0 { w / ww } else { 0.0 }, item: 0.0 };
    let determinant = ww * ii - wi * wi;
    if determinant <= 1e-9 * ww * ii {
        // As many items in every warp: no telling them apart.
        return alone;
    }
    let both = Count { warp: (w * ii - i * wi) / determinant, item: (i * ww - w * wi) / determinant };
    match (both.warp < 0.0, both.item < 0.0) {
        (false, false) => both,
        (true, _) => Count { warp: 0.0, item: i / ii },
        (_, true) => alone,
    }
}

/// The main loop in a kernel's machine code.
fn main_loop(code: &str) -> Loop {
    let (mut instructions, mut labels) = (Vec::new(), BTreeMap::new());
    for line in code.lines() {
        let line = line.trim();
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with(".L_")) {
            labels.insert(label, instructions.len());
        }
        let instruction = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        if let Some((_, text)) = instruction.filter(|(address, _)| address.len() >= 4) {
            instructions.push(text.trim().trim_end_matches(';').trim());
        }
    }
    let count = |part: &[&str]| {
        let of = |name: &str| {
            let is_it = |text: &&&str| text.split_whitespace().any(|word| word.split('.').next() == Some(name));
            part.iter().filter(is_it).count() as u32
        };
        let cached = part.iter().filter(|text| text.contains("LDGSTS") && !text.contains("BYPASS")).count();
        Loop {
            all: part.len() as u32,
            hmma: of("HMMA"),
            ldsm: of("LDSM"),
            ldgsts: of("LDGSTS"),
            cached: cached as u32,
            ldg: of("LDG"),
        }
    };
    let loops = instructions.iter().enumerate().filter_map(|(at, text)| {
        let label = text.split_whitespace().find(|word| word.contains(".L_"))?;
        let label = label.trim_matches(|c| "`()".contains(c));
        let start = *labels.get(label).filter(|start| text.contains("BRA") && **start <= at)?;
        Some(count(&instructions[start..=at]))
    });
    let best = loops.max_by_key(|l| (l.hmma, l.ldg, std::cmp::Reverse(l.all)));
    // Products outside of every loop make no main loop.
    best.filter(|l| l.hmma + l.ldg > 0).unwrap_or_else(|| Loop { hmma: 0, ..count(&instructions) })
}

/// What is known of every kernel that was launched.
fn table(ran: &[Ran]) -> Table {
    let cache = KernelCache::open().unwrap_or_else(|error| panic!("{error:#}"));
    let mut launched: BTreeMap<_, Vec<&Ran>> = BTreeMap::new();
    for one in ran {
        let kernel = one.0.kernel;
        launched.entry((kernel.source.name, kernel.name)).or_default().push(one);
    }
    let files: BTreeSet<&str> = launched.keys().map(|(file, _)| *file).collect();
    let mut code = BTreeMap::new();
    for file in files {
        for (column, architecture) in ARCHITECTURES.into_iter().enumerate() {
            for (kernel, text) in sass::disassembled(&cache, file, architecture) {
                code.insert((file, kernel, column), main_loop(&text));
            }
        }
    }
    let row = |(&(file, kernel), ran): (&(&str, &str), &Vec<&Ran>)| {
        let of = |count: fn(&Counters) -> u64| {
            let sample = |(launch, counters): &&Ran| {
                let work = launch.work.as_ref().expect("a launch with its work");
                let warps = (launch.blocks() * launch.warps()) as f64;
                (warps, work.items(launch.warps()), count(counters) as f64)
            };
            fit(&ran.iter().map(sample).collect::<Vec<_>>())
        };
        let loops = std::array::from_fn(|column| code[&(file, kernel.to_string(), column)]);
        let counted = Counted {
            instructions: of(|c| c.instructions() - c.moves),
            loads: of(|c| c.global_loads),
            wavefronts: of(|c| c.shared_wavefronts),
            loops,
        };
        ((file.to_string(), kernel.to_string()), counted)
    };
    launched.iter().map(row).collect()
}

#[test]
fn the_facts_are_those_that_were_reviewed() {
    let ran = all();
    let table = table(&ran);
    let study = |name: &str| name.starts_with("study/") || name.starts_with("convolution_0");
    let missing: Vec<&str> = SIGNATURES
        .iter()
        .map(|(kernel, _)| kernel)
        .filter(|kernel| !study(kernel.source.name))
        .filter(|kernel| !table.contains_key(&(kernel.source.name.to_string(), kernel.name.to_string())))
        .map(|kernel| kernel.name)
        .collect();
    assert_declared(&ran);
    let text = facts::write(&table);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/facts.txt");
    if std::env::var_os("RECORDS_UPDATE_COSTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, theirs) in text.lines().zip(reviewed.lines()) {
        assert_eq!(ours, theirs, "kernels/facts.txt differs; review and write it anew with RECORDS_UPDATE_COSTS=1");
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/facts.txt lists other kernels");
    assert_eq!(missing, Vec::<&str>::new(), "no case launches these kernels");
}

/// Files of kernels that read as much as the data want: a confidence only where its class is a candidate, a row only if it was chosen,
/// an image of the augmentation only where its crop is.
const READ_BY_NEED: [&str; 6] = ["augment.cu", "loss.cu", "loss_by_kind.cu", "pico.cu", "sinkhorn.cu", "solar.cu"];

/// Bytes that sectors may add to what is declared: a few operands that begin or end inside of one, indices, scalars.
const SECTORS: f64 = 512.0;

/// What launches declare is what the interpreter counts: operations of the tensor cores exactly, distinct sectors of memory within
/// five to ten in a hundred, for sectors are counted whole.
fn assert_declared(ran: &[Ran]) {
    for (launch, counters) in ran {
        let name = launch.kernel.name;
        let work: &Work = launch.work.as_ref().unwrap_or_else(|| panic!("{name} says nothing"));
        assert_eq!(work.tensor_flops(), counters.mma_flops as f64, "{name} {:?}", launch.grid);
        let assert_near = |what: &str, declared: f64, sectors: u64, [least, most]: [f64; 2]| {
            let counted = 32.0 * sectors as f64;
            assert!(
                counted >= least * declared - SECTORS && counted <= most * declared + SECTORS,
                "{name} {:?} says that it {what} {declared} bytes and {what} {counted}",
                launch.grid
            );
        };
        let gathers = work.product.iter().flat_map(|product| &product.groups).filter_map(|group| group.gather.as_ref());
        // Every second pixel of 16 bytes has a sector to itself.
        let most = if gathers.into_iter().any(|gather| gather.pixel_bytes < 32) { 2.05 } else { 1.1 };
        let least = if READ_BY_NEED.contains(&launch.kernel.source.name) { 0.5 } else { 0.95 };
        assert_near("reads", work.read_bytes(), counters.unique_load_sectors, [least, most]);
        assert_near("writes", work.written_bytes(), counters.unique_store_sectors, [0.95, 1.1]);
    }
}
