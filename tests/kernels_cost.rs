//! The cost of each kernel, counted by the interpreter for fixed cases and compared with kernels/costs.txt.
//!
//! The counts depend only on kernel, compiler and input, so a change of a kernel shows up as a diff of that
//! file. RECORDS_UPDATE_COSTS=1 regenerates it for review. The times are predictions of a roofline model, not
//! measurements.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ptx_sim::{Counters, Gpu};
use records::collective::Share;
use records::declaration::Values;
use records::device::gpu::launch::Kernel;
use records::device::gpu::sim::{Costs, SimDriver};
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Buffer, Device, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::{BatchNorm, BatchNormGradient, JointBatchNorm, JointBatchNormGradient};
use records::ops::confidence::Disambiguate;
use records::ops::control;
use records::ops::convolution::{
    Convolution, ConvolutionDataGradient, ConvolutionShape, ConvolutionWeightGradient,
};
use records::ops::division::{AddParts, OwnCount, OwnRows, PlaceRows};
use records::ops::elementwise::{Relu, ReluGradient};
use records::ops::loss::{Loss, RowLoss, Term};
use records::ops::mixup::{Draws, Mixup};
use records::pll::corr::Consistency;
use records::pll::lw::settings::{LwLoss, LwSettings};
use records::pll::pico::contrast::Contrast;
use records::pll::pico::encoder::MoveAverage;
use records::pll::pico::projection::{NormaliseRows, NormaliseRowsGradient};
use records::pll::pico::prototypes::{MovePrototypes, PseudoLabels};
use records::pll::solar;
use records::pll::solar::operations::{Sinkhorn, SinkhornSettings};
use records::pll::solar::settings::PriorFrom;
use records::pll::{LabelMethod, cavl, cc, exp, mse, proden};
use records::random::philox::{Purpose, Stream};
use records::settings::{Debias, Method, Settings};
use records::train::evaluate::{Evaluation, ResidentImages};
use records::train::run::recipe;
use records::train::training::Training;

/// A device in bf16, and the costs of its launches.
fn device() -> (GpuDevice, Costs) {
    let driver = SimDriver::open(0).unwrap_or_else(|error| panic!("{error:#}"));
    let costs = driver.costs();
    (GpuDevice::new(Box::new(driver), Precision::Bf16), costs)
}

/// A training step of CORR+RECORDS with 8 samples at width 16, then the statistics of the confidence rows and
/// an evaluation of 16 images.
fn step(rows: &mut Vec<Row>) {
    let settings = Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: 4,
        synthetic_test_per_class: 2,
        imb_factor: 0.5,
        partial_rate: 0.3,
        debias: Debias::Records,
        upd_start: 0,
        batch_size: 8,
        width: 16,
        ..Settings::default()
    };
    let (mut device, costs) = device();
    let data = records::data::recipe::prepare(&recipe(&settings).unwrap()).unwrap();
    let mut training = Training::new(&settings, &data, &mut device).unwrap();
    training.begin_epoch(0, &mut device).unwrap();
    costs.take();
    device.replay(&training.engine.plan).unwrap_or_else(|error| panic!("{error:#}"));
    add(rows, "step, 8 samples, width 16", costs.take());
    training.confidence_statistics(&mut device).unwrap();
    add(rows, "confidence statistics, 27 rows", costs.take());
    training.not_finite(&mut device).unwrap();
    add(rows, "search of the state for values that are not finite, width 16", costs.take());
    let test = data.test.as_ref().unwrap();
    let images = ResidentImages::new(test, data.test_normalisation, &mut device).unwrap();
    let evaluation = Evaluation::new(&training.engine.model, images, 16, &mut device).unwrap();
    costs.take();
    evaluation.run(&mut device).unwrap();
    add(rows, "evaluation, 20 images in batches of 16", costs.take());
}

/// The launches of a step of SoLar beside the kernels of the step above.
fn step_of_solar(rows: &mut Vec<Row>) {
    let settings = Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: 4,
        synthetic_test_per_class: 2,
        imb_factor: 0.5,
        partial_rate: 0.3,
        method: Method(&solar::ENTRY),
        mixup: true,
        own: Values::default()
            .with("est-epochs", 0_usize)
            .with("queue-length", 2_usize)
            .with("warmup-epoch", 1_usize)
            .with("prior-from", PriorFrom::Steps),
        batch_size: 8,
        width: 16,
        ..Settings::default()
    };
    let (mut device, costs) = device();
    let data = records::data::recipe::prepare(&recipe(&settings).unwrap()).unwrap();
    let mut training = Training::new(&settings, &data, &mut device).unwrap();
    // Nothing is chosen in the first epoch.
    training.begin_epoch(1, &mut device).unwrap();
    costs.take();
    device.replay(&training.engine.plan).unwrap_or_else(|error| panic!("{error:#}"));
    let mut launched = costs.take();
    launched.retain(|kernel, _| rows.iter().all(|row| row.kernel != *kernel));
    add(rows, "step of SoLar, 8 samples, width 16", launched);
}

/// The operations of PiCO beside the network, for a batch of 64 with 100 classes and a queue of 256.
fn contrast(rows: &mut Vec<Row>) {
    let (mut device, costs) = device();
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let (batch, classes, columns, queue_rows) = (64, 100, 128, 256);
    let filled = |len: usize| filled(&mut device, &mut stream, len, 0.1);
    let rows_of = |rows: usize| rows * columns;
    let mut buffers: Vec<_> = [
        rows_of(batch),
        rows_of(batch),
        rows_of(queue_rows),
        queue_rows,
        control::LEN,
        batch * classes,
        rows_of(classes),
        batch * classes,
        batch,
        rows_of(batch),
        batch,
    ]
    .map(filled)
    .into();
    let [candidates, index] = candidates_and_index(&mut device, batch, classes);
    let copy = device.allocate(Element::Bf16, rows_of(queue_rows), "an operand").unwrap();
    buffers.extend([candidates, index, copy]);
    for operation in pico_operations([batch, classes, columns, queue_rows]) {
        device.execute(&*operation, &buffers).unwrap_or_else(|error| panic!("{error:#}"));
    }
    add(rows, "PiCO, 64 rows of 128 of 100 classes, a queue of 256", costs.take());
}

/// PiCO's operations, over the tensors of [`contrast`].
fn pico_operations([batch, classes, columns, queue_rows]: [usize; 4]) -> Vec<Arc<dyn Operation>> {
    let rows_of = |rows: usize| rows * columns;
    let [embeddings, keys, queue, queue_labels, control, logits, prototypes] = std::array::from_fn(Tensor);
    let [confidence, labels, gradient, loss_rows, candidates, index, copy] =
        std::array::from_fn(|i| Tensor(7 + i));
    let temperature = 0.07;
    let operations = operations![
        NormaliseRows { rows: batch, columns, x: keys, y: embeddings },
        NormaliseRowsGradient { rows: batch, columns, x: keys, dy: embeddings, dx: gradient },
        Relu { len: rows_of(batch), x: keys, y: gradient },
        ReluGradient { len: rows_of(batch), y: keys, dy: embeddings, dx: gradient },
        MoveAverage {
            len: rows_of(queue_rows),
            momentum: 0.9,
            values: queue,
            average: queue,
            copy: Some(copy)
        },
        PseudoLabels {
            batch,
            classes,
            columns,
            logits,
            log_prior: None,
            candidates,
            index,
            embeddings,
            prototypes,
            control,
            labels,
            confidence
        },
        MovePrototypes { batch, classes, columns, momentum: 0.9, embeddings, labels, prototypes },
        Contrast {
            batch,
            columns,
            queue_rows,
            temperature,
            weight: 0.5,
            embeddings,
            keys,
            labels,
            queue,
            queue_labels,
            control,
            gradient,
            loss_rows
        },
    ];
    operations.into()
}

/// `len` values from 0.01 to `high`.
fn filled(device: &mut GpuDevice, stream: &mut Stream, len: usize, high: f64) -> Buffer {
    let buffer = device.allocate(Element::F32, len, "an operand").unwrap();
    let values: Vec<f32> = (0..len).map(|_| stream.uniform(0.01, high) as f32).collect();
    device.write_f32(buffer, &values).unwrap();
    buffer
}

/// Candidate sets of every third class, and the samples of a batch in reverse order.
fn candidates_and_index(device: &mut GpuDevice, batch: usize, classes: usize) -> [Buffer; 2] {
    let candidates = device.allocate(Element::U8, batch * classes, "an operand").unwrap();
    let sets: Vec<u8> = (0..batch * classes).map(|i| u8::from(i % 3 == 0)).collect();
    device.write_u8(candidates, &sets).unwrap();
    let index = device.allocate(Element::I32, batch, "an operand").unwrap();
    device.write_i32(index, &(0..batch as i32).rev().collect::<Vec<_>>()).unwrap();
    [candidates, index]
}

/// The losses and disambiguations of all one-view methods, and the joint kernels.
fn losses(rows: &mut Vec<Row>) {
    let (mut device, costs) = device();
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let (batch, classes) = (256, 100);
    let mut buffers: Vec<_> = [classes * batch, classes * batch, control::LEN, classes * batch, batch]
        .map(|len| filled(&mut device, &mut stream, len, 1.0))
        .into();
    buffers.extend(candidates_and_index(&mut device, batch, classes));
    let [logits, confidence, control, d_logits, loss_rows, candidates, index] = std::array::from_fn(Tensor);
    let loss = |row_loss: Arc<dyn RowLoss>, joint| Loss {
        row_loss,
        term: Term::Plain,
        joint,
        batch,
        classes,
        views: 1,
        first: 0,
        logits,
        target: confidence,
        candidates,
        index: Some(index),
        d_logits,
        loss_rows,
    };
    let disambiguate = |method: &LabelMethod| Disambiguate {
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
    let lw = |loss| LwSettings { loss, beta: 1.0 }.method();
    let methods =
        [proden::method(), cavl::method(), lw(LwLoss::Sigmoid), lw(LwLoss::CrossEntropy), cc::method()];
    for method in &methods {
        let alone = loss(method.row_loss.clone(), method.joint);
        // As separate launches, and as neighbours in one.
        let operations = operations![disambiguate(method), alone.clone(), disambiguate(method)];
        let plan = Plan::record(Program::new(operations, buffers.clone()), &mut device).unwrap();
        device.replay(&plan).unwrap_or_else(|error| panic!("{error:#}"));
        device.execute(&alone, &buffers).unwrap_or_else(|error| panic!("{error:#}"));
    }
    for alone in [Arc::new(Consistency) as Arc<dyn RowLoss>, mse::method().row_loss, exp::method().row_loss] {
        device.execute(&loss(alone, None), &buffers).unwrap_or_else(|error| panic!("{error:#}"));
    }
    add(rows, "losses and disambiguations, 256 rows of 100 classes", costs.take());
}

/// The convolutions of ResNet-18's stages at full width, for two images each.
fn convolutions(rows: &mut Vec<Row>) {
    for (channels, size) in [(64, 32), (128, 16), (256, 8), (512, 4)] {
        let shape = ConvolutionShape {
            batch: 2,
            height: size,
            width: size,
            in_channels: channels,
            out_channels: channels,
            kernel: 3,
            stride: 1,
        };
        let (mut device, costs) = device();
        let mut stream = Stream::new(7, Purpose::Initialisation, 0, channels as u32, 0);
        let mut random = |len: usize| (0..len).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let mut buffers = Vec::new();
        for len in [shape.input_len(), shape.weight_len(), shape.output_len()] {
            let buffer = device.allocate(Element::Bf16, len, "an operand").unwrap();
            device.write_f32(buffer, &random(len)).unwrap();
            buffers.push(buffer);
        }
        buffers.push(device.allocate(Element::Bf16, shape.input_len(), "dx").unwrap());
        buffers.push(device.allocate(Element::F32, shape.weight_len(), "dw").unwrap());
        let [x, w, y, dx, dw] = [0, 1, 2, 3, 4].map(Tensor);
        for operation in operations![
            Convolution { shape, x, w, y },
            ConvolutionDataGradient { shape, dy: y, w, dx, accumulate: false },
            ConvolutionWeightGradient { shape, x, dy: y, dw },
        ] {
            device.execute(&*operation, &buffers).unwrap_or_else(|error| panic!("{error:#}"));
        }
        add(rows, &format!("{channels} to {channels} channels, 2 images of {size} x {size}"), costs.take());
    }
}

/// SoLar's label refinery over a whole batch, and the mixing of views.
fn refinery_and_mixup(rows: &mut Vec<Row>) {
    let (mut device, costs) = device();
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let (batch, classes) = (256, 10);
    let mut filled = |device: &mut GpuDevice, element: Element, len: usize| {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        let values: Vec<f32> = (0..len).map(|_| stream.uniform(0.01, 1.0) as f32).collect();
        device.write_f32(buffer, &values).unwrap();
        buffer
    };
    let predictions = filled(&mut device, Element::F32, batch * classes);
    let class_prior = device.allocate(Element::F32, classes, "an operand").unwrap();
    device.write_f32(class_prior, &vec![1.0 / classes as f32; classes]).unwrap();
    let barrier = device.allocate(Element::I32, 2, "an operand").unwrap();
    let pseudo_labels = device.allocate(Element::F32, batch * classes, "an operand").unwrap();
    let outcome = device.allocate(Element::F32, 2, "an operand").unwrap();
    let sinkhorn = Sinkhorn {
        batch,
        queue_rows: 0,
        classes,
        settings: SinkhornSettings::default(),
        predictions: Tensor(0),
        queue: None,
        class_prior: Tensor(1),
        barrier: Tensor(2),
        pseudo_labels: Tensor(3),
        outcome: Tensor(4),
    };
    let buffers = [predictions, class_prior, barrier, pseudo_labels, outcome];
    device.execute(&sinkhorn, &buffers).unwrap_or_else(|error| panic!("{error:#}"));
    add(rows, "Sinkhorn, 256 rows of 10 classes", costs.take());

    let (views, len) = (16, 32 * 32 * 3);
    let x = filled(&mut device, Element::Bf16, views * len);
    let weights = filled(&mut device, Element::F32, 1);
    let permutations = device.allocate(Element::I32, views / 2, "an operand").unwrap();
    device.write_i32(permutations, &(0..views as i32 / 2).rev().collect::<Vec<_>>()).unwrap();
    let step = device.allocate(Element::I32, 1, "an operand").unwrap();
    let out = device.allocate(Element::Bf16, views * len, "an operand").unwrap();
    let mixup = Mixup {
        batch: views / 2,
        rows: views,
        len,
        draws: Draws { weights: Tensor(0), permutations: Tensor(1), step: Tensor(2) },
        index: None,
        x: Tensor(3),
        out: Tensor(4),
    };
    device
        .execute(&mixup, &[weights, permutations, step, x, out])
        .unwrap_or_else(|error| panic!("{error:#}"));
    add(rows, "mixup, 16 views of 32 x 32", costs.take());
}

struct Row {
    case: String,
    kernel: Kernel,
    counters: Counters,
}

/// What one of four GPUs does between the exchanges: rows of a batch of 256 with 100 classes, a bucket of
/// gradients and a batchnorm.
fn divided(rows: &mut Vec<Row>) {
    let (mut device, costs) = device();
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let (groups, count, len, channels) = (2, 256, 100, 64);
    let all = groups * count * len;
    let share = Share { rank: 1, size: 4, joint_batchnorm: true };
    let mut buffers: Vec<_> = [all, all, all / 4, 2 * channels, 2 * channels, 2 * channels, 2 * channels]
        .map(|len| filled(&mut device, &mut stream, len, 1.0))
        .into();
    buffers.extend([(); 2].map(|()| device.allocate(Element::I32, 1, "an operand").unwrap()));
    let [x, out, part, affine, running, batch, d_affine, first, own] = std::array::from_fn(Tensor);
    let activations = all.next_multiple_of(channels);
    let [xs, y, dy, dx] = std::array::from_fn(|i| Tensor(9 + i));
    for _ in 0..4 {
        let buffer = device.allocate(Element::Bf16, activations, "an operand").unwrap();
        let values: Vec<f32> = (0..activations).map(|_| stream.uniform(0.01, 1.0) as f32).collect();
        device.write_f32(buffer, &values).unwrap();
        buffers.push(buffer);
    }
    let (batch_rows, residual, relu, valid) = (activations / channels, None, true, None);
    let positive = None;
    let forward = BatchNorm {
        rows: batch_rows,
        channels,
        x: xs,
        affine,
        running,
        batch,
        residual,
        relu,
        valid,
        y,
        positive,
    };
    let gradient = BatchNormGradient {
        rows: batch_rows,
        channels,
        x: xs,
        y,
        relu,
        residual: false,
        valid,
        affine,
        batch,
        dy,
        d_affine,
        dx,
        positive,
    };
    let operations = operations![
        OwnRows { groups, count, len, share, is_whole: false, x, out: part },
        OwnCount { rows: share.of(count), count: first, out: own },
        PlaceRows { groups, count, len, ranks: 4, gathered: x, out },
        AddParts { len: all / 4, rank: 1, ranks: 4, received: x, values: part },
        JointBatchNorm(forward),
        JointBatchNormGradient(gradient),
    ];
    for operation in operations {
        device.execute(&*operation, &buffers).unwrap_or_else(|error| panic!("{error:#}"));
    }
    add(rows, "one of four GPUs, 256 samples of 100 classes, 800 rows of 64 channels", costs.take());
}

fn add(rows: &mut Vec<Row>, case: &str, costs: BTreeMap<Kernel, Counters>) {
    assert!(!costs.is_empty(), "{case}: no launch");
    rows.extend(costs.into_iter().map(|(kernel, counters)| Row { case: case.into(), kernel, counters }));
}

fn table(rows: &[Row]) -> String {
    let gpu = Gpu::built_in("rtx3090").unwrap();
    let version = records::device::gpu::nvrtc_search::find().unwrap().version;
    let mut text = format!(
        "Counted by the interpreter on PTX of NVRTC {}.{}: warp instructions; tensor-core MFLOP; 32-byte\n\
         sectors loaded and stored, with the least that could hold the bytes; passes lost to bank\n\
         conflicts; barriers. Predicted time on an RTX 3090, in us, and what limits it.\n",
        version.0, version.1
    );
    let mut case = "";
    for Row { case: of, kernel, counters } in rows {
        if of != case {
            case = of;
            let _ = writeln!(
                text,
                "\n{case}\n{:<38}{:>6}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>9}  limit",
                "kernel",
                "calls",
                "instr",
                "MFLOP",
                "load",
                "least",
                "store",
                "least",
                "conflict",
                "bar",
                "us"
            );
        }
        let prediction = gpu.predict(counters);
        let _ = writeln!(
            text,
            "{:<38}{:>6}{:>10}{:>10.2}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>9.2}  {}",
            kernel.name,
            counters.launches,
            counters.instructions(),
            counters.mma_flops as f64 / 1e6,
            counters.load_sectors,
            counters.load_sectors_least,
            counters.store_sectors,
            counters.store_sectors_least,
            counters.bank_conflicts,
            counters.barriers_completed,
            1e6 * prediction.seconds,
            prediction.limit,
        );
    }
    text
}

#[test]
fn the_kernels_cost_what_was_reviewed() {
    let mut rows = Vec::new();
    step(&mut rows);
    step_of_solar(&mut rows);
    losses(&mut rows);
    convolutions(&mut rows);
    refinery_and_mixup(&mut rows);
    contrast(&mut rows);
    divided(&mut rows);
    let text = table(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/costs.txt");
    if std::env::var_os("RECORDS_UPDATE_COSTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, theirs) in text.lines().zip(reviewed.lines()) {
        assert_eq!(
            ours, theirs,
            "kernels/costs.txt differs; review and regenerate it with RECORDS_UPDATE_COSTS=1"
        );
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/costs.txt has other rows");
}
