//! What predictions are made from: instructions, loads and passes through shared memory of every kernel as
//! the interpreter counts them at several sizes, and the main loops of its machine code, compared with
//! kernels/facts.txt. And what every launch declares of its work, compared with what is counted.
//!
//! RECORDS_UPDATE_COSTS=1 writes the facts anew, to be reviewed as a diff. tools/test provides compiler and
//! disassembler.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ptx_sim::Counters;
use records::device::Device;
use records::device::gpu::Precision;
use records::device::gpu::cache::KernelCache;
use records::device::gpu::driver::{Choice, Gpu};
use records::device::gpu::kernels::SIGNATURES;
use records::device::gpu::launch::Launch;
use records::device::gpu::work::Work;
use records::profile::data::{Given, Shape};
use records::profile::facts::{self, ARCHITECTURES, Count, Counted, Loop, Table};
use records::profile::plan::Plan;
use records::settings::{Debias, Settings};
use records::train::run::recipe;
use records::train::training::Training;

use cases::Ran;

mod cases;
#[path = "../support/sass.rs"]
mod sass;

/// The count that fits best, in shares of what was counted: neither part is below 0.
fn fit(samples: &[(f64, f64, f64)]) -> Count {
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        samples
            .iter()
            .filter(|(.., y)| *y > 0.0)
            .map(|&(warps, items, y)| of(warps / y, items / y))
            .sum::<f64>()
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
            let is_it =
                |text: &&&str| text.split_whitespace().any(|word| word.split('.').next() == Some(name));
            part.iter().filter(is_it).count() as u32
        };
        let short = part.iter().filter(|text| text.contains("HMMA.16816.F16 ")).count();
        let cached = part.iter().filter(|text| text.contains("LDGSTS") && !text.contains("BYPASS")).count();
        Loop {
            all: part.len() as u32,
            hmma: of("HMMA"),
            short: short as u32,
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
    let ran = cases::all();
    let table = table(&ran);
    let missing: Vec<&str> = SIGNATURES
        .iter()
        .map(|(kernel, _)| kernel)
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
        assert_eq!(
            ours, theirs,
            "kernels/facts.txt differs; review and write it anew with RECORDS_UPDATE_COSTS=1"
        );
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/facts.txt lists other kernels");
    assert_eq!(missing, Vec::<&str>::new(), "no case launches these kernels");
}

/// The driver that plans lists the launches that the interpreter runs.
#[test]
fn what_is_planned_is_what_runs() {
    let settings = Settings { debias: Debias::Records, mixup: true, ..cases::settings("corr", 4, 8) };
    // As the interpreter stands for it.
    let choice = Choice { rates: Some("rtx3090"), tiles: &[] };
    let gpu =
        Gpu { name: "any".into(), architecture: 80, multiprocessors: 82, shared_bytes: 99 << 10, choice };
    let plan = Plan::new(&settings, Given::default(), gpu).unwrap();
    let shape = Shape::of(&recipe(&settings).unwrap(), Given::default()).unwrap();
    let data = shape.blank(settings.image_size).unwrap();
    let (mut device, log) = cases::device(Precision::Bf16, 82);
    let mut training = Training::new(&settings, &data, &mut device).unwrap();
    training.begin_epoch(1, &mut device).unwrap();
    log.take();
    device.replay(&training.engine.plan).unwrap_or_else(|error| panic!("{error:#}"));
    let of = |launch: &Launch| (launch.kernel, launch.grid, launch.block, launch.shared_bytes);
    let ran: Vec<_> = log.take().iter().map(|(launch, _)| of(launch)).collect();
    let planned: Vec<_> = plan.step.iter().map(|planned| of(&planned.launch)).collect();
    assert!(ran.len() > 150);
    assert_eq!(planned, ran);
}

/// Files of kernels that read as much as the data want: a confidence only where its class is a candidate, a
/// row only if it was chosen, an image of the augmentation only where its crop is.
const READ_BY_NEED: [&str; 6] =
    ["augment.cu", "loss.cu", "loss_by_kind.cu", "pico.cu", "sinkhorn.cu", "solar.cu"];

/// Bytes that sectors may add to what is declared: a few operands that begin or end inside of one, indices,
/// scalars.
const SECTORS: f64 = 512.0;

/// What launches declare is what the interpreter counts: operations of the tensor cores exactly, distinct
/// sectors of memory within five to ten in a hundred, for sectors are counted whole.
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
        let gathers =
            work.product.iter().flat_map(|product| &product.groups).filter_map(|group| group.gather.as_ref());
        // Every second pixel of 16 bytes has a sector to itself.
        let most = if gathers.into_iter().any(|gather| gather.pixel_bytes < 32) { 2.05 } else { 1.1 };
        let least = if READ_BY_NEED.contains(&launch.kernel.source.name) { 0.5 } else { 0.95 };
        assert_near("reads", work.read_bytes(), counters.unique_load_sectors, [least, most]);
        assert_near("writes", work.written_bytes(), counters.unique_store_sectors, [0.95, 1.1]);
    }
}
