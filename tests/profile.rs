//! `records profile`: every configuration is listed and timed without a GPU, in every format; the times
//! behave as times must; and those of the published run are the ones in kernels/times.txt, which
//! RECORDS_UPDATE_COSTS=1 writes anew.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use records::nn::registry;
use records::pll::registry::METHODS;
use records::profile::data::Given;
use records::profile::gpus::{self, Gpu};
use records::profile::model::{Model, Time};
use records::profile::plan::Plan;
use records::profile::show::{self, Format};
use records::profile::world::{Link, SharedStep};
use records::profile::{Profile, Timed, parts};
use records::settings::presets::{self, PRESETS};
use records::settings::{GivenSettings, PrecisionChoice, Settings};
use serde_json::Value;

fn gpu(word: &str) -> Gpu {
    Gpu::find(word).unwrap_or_else(|error| panic!("{error:#}"))
}

fn published() -> Settings {
    presets::find("records-cifar10").unwrap().settings()
}

fn profile(settings: &Settings, gpu: &Gpu) -> Profile {
    Profile::new(settings, Given::default(), gpu).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Every preset, method and network, both precisions, each GPU in turn; narrow where that changes nothing but
/// the time to list it.
#[test]
fn everything_is_profiled_in_seconds() {
    let mut all: Vec<(String, Settings)> =
        PRESETS.iter().map(|preset| (preset.name.to_string(), preset.settings())).collect();
    for method in METHODS {
        let mut settings =
            Settings { dataset: "synthetic".into(), epochs: 10, width: 16, ..Settings::default() };
        let given = GivenSettings::default().with("method", method.word.to_string());
        given.apply(&mut settings).unwrap_or_else(|problem| panic!("{problem}"));
        all.push((method.word.into(), settings.clone()));
        all.push((
            format!("{} in f32", method.word),
            Settings { precision: PrecisionChoice::F32, ..settings },
        ));
    }
    for arch in registry::NAMES {
        all.push((arch.to_string(), Settings { arch: arch.to_string(), width: 16, ..published() }));
    }
    for ((name, settings), word) in all.iter().zip(gpus::names().iter().cycle()) {
        let started = Instant::now();
        let profile = profile(settings, &gpu(word));
        let Time { best, expected, pessimistic } = profile.step.time;
        assert!(best > 0.0 && expected >= best && pessimistic >= expected, "{name} on {word}");
        assert!(pessimistic.is_finite() && profile.run().total().pessimistic.is_finite(), "{name} on {word}");
        for timed in &profile.step.launches {
            assert_ne!(timed.part, parts::OTHER, "{name}: {}", timed.planned.launch.kernel.name);
            assert!(timed.predicted.time.best > 0.0, "{name}: {}", timed.planned.launch.kernel.name);
        }
        // A few seconds; more only where others have the machine.
        let seconds = started.elapsed().as_secs_f64();
        assert!(seconds < 60.0, "{name} on {word} took {seconds:.0} s");
    }
}

#[test]
fn the_published_run_takes_what_was_reviewed() {
    let mut text = String::from(
        "The step of `--preset records-cifar10` (256 pairs, width 64): predictions, nothing measured. By tests/profile.rs.\n",
    );
    for word in ["rtx3090", "h100"] {
        let profile = profile(&published(), &gpu(word));
        let Time { best, expected, pessimistic } = profile.step.time;
        text += &format!(
            "\n{word}: {} launches, {:.2} ms best, {:.2} expected, {:.2} at worst\n{}",
            profile.step.launches.len(),
            1e3 * best,
            1e3 * expected,
            1e3 * pessimistic,
            show::lines(&profile)
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/times.txt");
    if std::env::var_os("RECORDS_UPDATE_COSTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, theirs) in text.lines().zip(reviewed.lines()) {
        assert_eq!(
            ours, theirs,
            "kernels/times.txt differs; review and write it anew with RECORDS_UPDATE_COSTS=1"
        );
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/times.txt has other launches");
}

/// The data gradient in front of a batchnorm makes the sums of that one's gradient; behind the pooling there is
/// none, and the batchnorm of a shortcut has its dy from another batchnorm.
#[test]
fn sums_of_batchnorm_gradients_are_made_on_the_way() {
    let profile = profile(&published(), &gpu("rtx3090"));
    let apart = profile.step.launches.iter().map(|timed| &timed.planned);
    let apart = apart.filter(|planned| planned.launch.kernel.name.contains("gradient_sums"));
    let layers: Vec<&str> = apart.map(|planned| &*planned.layer).collect();
    let shortcut = |stage: usize| format!("encoder.layer{stage}.0.shortcut.1");
    assert_eq!(layers, ["encoder.layer4.1.bn2", &shortcut(4), &shortcut(3), &shortcut(2)]);
}

/// Numbers of an object by path.
fn number(value: &Value, path: &str) -> f64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    value.pointer(&pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {path} in {value}"))
}

#[test]
fn json_has_its_keys_and_launches_sum_to_the_step() {
    let text = Format::Json.show(&profile(&published(), &gpu("rtx3090")), false);
    assert_eq!(text.lines().count(), 1);
    let value: Value = serde_json::from_str(&text).unwrap();
    for kind in ["best", "expected", "pessimistic"] {
        let launches = value["launches"].as_array().unwrap();
        assert_eq!(launches.len() as f64, number(&value, "step.launches"));
        let kernels: f64 = launches.iter().map(|launch| number(launch, &format!("{kind}_us"))).sum();
        let sum = kernels + launches.len() as f64 * number(&value, "gap_us");
        let step = 1e3 * number(&value, &format!("step.{kind}_ms"));
        let gained = -1e3 * number(&value, &format!("step.side_by_side.{kind}_ms"));
        assert_eq!(gained > 1e-6, kind != "pessimistic", "{kind}: {gained}");
        assert!((sum - gained - step).abs() < 1e-6 * step, "{kind}: {sum} of launches, {step} of the step");
        let parts: f64 =
            value["parts"].as_array().unwrap().iter().map(|part| number(part, &format!("{kind}_ms"))).sum();
        assert!((1e3 * parts - step).abs() < 1e-6 * step, "{kind}: {parts} of parts");
    }
    let minutes = number(&value, "run.expected_minutes");
    let parts: f64 =
        value["run"]["parts"].as_object().unwrap().values().map(|part| part.as_f64().unwrap()).sum();
    assert!((minutes - parts).abs() < 1e-6 * minutes && number(&value, "run.epochs") == 800.0);
    for share in ["share.records", "share.augmentation"] {
        assert!((1e-6..0.1).contains(&number(&value, share)), "{share}");
    }
    let launch = &value["launches"][2];
    assert_eq!(launch["layer"], "encoder.conv1");
    for key in
        ["kernel", "operation", "grid", "block", "shared_bytes", "registers", "flops", "read_bytes", "limit"]
    {
        assert!(!launch[key].is_null(), "{key}");
    }
}

#[test]
fn traces_are_kernels_one_after_the_other() {
    let profile = profile(&published(), &gpu("h100"));
    let trace: Value = serde_json::from_str(&Format::Trace.show(&profile, false)).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of_track = |track: u64| events.iter().filter(move |e| e["ph"] == "X" && e["tid"] == track);
    assert_eq!(of_track(1).count(), profile.step.launches.len());
    for track in [1, 2] {
        let mut end = 0.0;
        for event in of_track(track) {
            let (start, duration) = (number(event, "ts"), number(event, "dur"));
            assert!(start >= end - 1e-6 && duration > 0.0 && event["name"].is_string(), "{event}");
            end = start + duration;
        }
        let in_turn = profile.step.time - profile.step.gained(&profile.gpu);
        let step = 1e6 * (in_turn.expected - profile.gpu.gap);
        assert!((end - step).abs() < 1e-3, "{end} of {step}");
    }
    assert!(events.iter().all(|event| event["ph"] == "X" || event["ph"] == "M"));
}

/// Whether every element of the text is closed in order, and attributes are quoted.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("<{part}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        let name = tag.trim_start_matches('/').split_whitespace().next().unwrap().trim_end_matches('/');
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn pictures_are_well_formed_and_say_what_they_show() {
    for word in gpus::names() {
        let profile = profile(&published(), &gpu(&word));
        let svg = Format::Svg.show(&profile, false);
        assert_well_formed(&svg);
        for words in [
            "milliseconds of a step",
            "FLOP a byte",
            "TFLOP/s, expected",
            "predicted, not measured",
            "prefers-color-scheme",
        ] {
            assert!(svg.contains(words), "{word}: {words}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{word}");
        let computes = |timed: &&Timed| {
            let dram = timed.predicted.dram;
            timed.planned.work().flops > 0.0 && dram.read + dram.written > 0.0
        };
        let circles = profile.step.launches.iter().filter(computes).count();
        assert!(circles > 100, "{word}: {circles}");
        assert_eq!(svg.matches("<circle").count(), circles, "{word}");
    }
}

/// The step of a plan on a GPU, best case.
fn best(plan: &Plan, gpu: &Gpu) -> f64 {
    let times = Model::new(gpu).predict_repeated(plan.step.iter().map(|planned| &planned.launch)).unwrap();
    times.iter().map(|predicted| predicted.time.best).sum()
}

#[test]
fn a_better_gpu_is_never_slower() {
    let base = gpu("rtx3090");
    let plan = Plan::new(&published(), Given::default(), base.description()).unwrap();
    let mut before = best(&plan, &base);
    // The same launches; more multiprocessors finish them no later.
    for multiprocessors in [100, 128, 164, 328] {
        let time = best(&plan, &Gpu { multiprocessors, ..base.clone() });
        assert!(time <= before, "{multiprocessors}: {time} after {before}");
        before = time;
    }
    let base_time = best(&plan, &base);
    for better in [
        Gpu { clock: 1.2 * base.clock, ..base.clone() },
        Gpu { dram: 1.2 * base.dram, ..base.clone() },
        Gpu { l2: 1.2 * base.l2, ..base.clone() },
        Gpu { l2_bytes: 2.0 * base.l2_bytes, ..base.clone() },
        Gpu { hmma_cycles: 0.5 * base.hmma_cycles, ..base.clone() },
        Gpu { ramp: 0.0, ..base.clone() },
    ] {
        let time = best(&plan, &better);
        assert!(time <= base_time && time > 0.1 * base_time, "{better:?}: {time} after {base_time}");
    }
}

#[test]
fn twice_the_batch_takes_about_twice_as_long() {
    for word in gpus::names() {
        let gpu = gpu(&word);
        let mut before: Option<f64> = None;
        for batch_size in [128, 256, 512] {
            let time = profile(&Settings { batch_size, ..published() }, &gpu).step.time.best;
            if let Some(before) = before {
                assert!((1.5..2.5).contains(&(time / before)), "{word}, {batch_size}: {time} after {before}");
            }
            before = Some(time);
        }
    }
}

/// TFLOP/s, best case, of a matrix product of n x n x n on tiles of 128 x 128.
fn product_rate(n: usize, gpu: &Gpu) -> f64 {
    use records::device::gpu::kernels::convolution_forward::FORWARD;
    use records::device::gpu::launch::{Address, Arguments, Launch};
    use records::device::gpu::work::{Group, Product, Span, Work};
    let row = FORWARD.iter().find(|row| (row.halo, row.rows, row.columns) == (0, 128, 128)).unwrap();
    let (blocks, steps) = ((n / 128).pow(2), n / 32);
    let flops = 2.0 * (n as f64).powi(3);
    let matrix = |number: u64| Span::new(Address::Device(number << 32), 2 * n * n);
    let product = Product {
        tile: [128, 128],
        slice: 32,
        loads_ahead: false,
        barriers: 1,
        groups: vec![Group { blocks, steps, gather: None }],
    };
    let work = Work::of(flops).reading([matrix(1), matrix(2)]).writing([matrix(3)]).as_product(product);
    let launch =
        Launch::linear(row.kernel.kernel, blocks, 32 * row.warps_down * row.warps_across, Arguments::new());
    let launch = Launch { shared_bytes: 49_152, ..launch }.doing(work);
    let times = Model::new(gpu).predict([&launch]).unwrap();
    1e-12 * flops / times[0].time.best
}

/// cuBLAS on a GeForce RTX 3090 Ti, f16 with f32 sums (mli/transformers-benchmarks, micro_bench.ipynb): 71.5
/// TFLOP/s of n = 2048, 81.3 of n = 8192. Nothing was fitted to them but the judgement of the calibration.
#[test]
fn public_figures_of_matrix_products_are_near() {
    let base = gpu("rtx3090");
    let gpu = Gpu { multiprocessors: 84, clock: 1.86e9, dram: 0.9 * 1008e9, ..base };
    let (small, large) = (product_rate(2048, &gpu), product_rate(8192, &gpu));
    println!("n = 2048: {small:.1} TFLOP/s of 71.5; n = 8192: {large:.1} of 81.3");
    // Tiles of 128 x 128 leave a quarter of the last turn idle at 2048, where cuBLAS has others.
    assert!((0.75..1.05).contains(&(small / 71.5)), "{small}");
    assert!((0.90..1.05).contains(&(large / 81.3)), "{large}");
}

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).arg("profile").args(arguments).output().unwrap()
}

/// The one line that a refused command ends with.
fn refusal(arguments: &[&str]) -> String {
    let output = records(arguments);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{arguments:?}: {line}");
    line
}

#[test]
fn what_cannot_be_is_refused_in_a_line() {
    for (arguments, words) in [
        (&["--gpu", "rtx9999"][..], &["--gpu rtx9999", "rtx3090", "h100"][..]),
        (&["--gpu", "missing.toml"], &["missing.toml"]),
        (&["--format", "pdf"], &["--format pdf", "table, json, trace, svg"]),
        (&["--preset", "none"], &["--preset none", "records-cifar10"]),
        (&["--dataset", "folder", "--data-dir", "."], &["--classes", "folder"]),
        (&["--dataset", "folder", "--data-dir", ".", "--classes", "5"], &["--samples", "folder"]),
        (&["--classes", "1"], &["--classes 1"]),
        (&["--preset", "tiny", "--batch-size", "4096"], &["--batch-size 4096", "78 samples"]),
        (&["--preset", "tiny", "--link", "wire"], &["--link wire", "nvlink, pcie, ib"]),
        (&["--preset", "tiny", "--world", "1"], &["--world 1", "2 to 64"]),
        (&["--preset", "tiny", "--world", "2", "--format", "json"], &["--world 2", "--format table"]),
        (&["--preset", "tiny", "--output", "/nowhere/at/all.svg"], &["/nowhere/at/all.svg"]),
    ] {
        let line = refusal(arguments);
        words.iter().for_each(|word| assert!(line.contains(word), "{arguments:?}: {line}"));
    }
}

/// Of a step that GPUs share: the bytes are those of a ring, nothing is faster than the local step, a slower
/// link costs more, joint batchnorm costs more than local, and a link without limits leaves the kernels that add up.
#[test]
fn a_step_that_gpus_share_waits_for_what_the_backward_pass_does_not_hide() {
    let of_one = profile(&published(), &gpu("a100"));
    let parameters = of_one.plan.parameters as f64;
    let [nvlink, pcie, ib] = ["nvlink", "pcie", "ib"].map(|word| Link::find(word).unwrap());
    for processes in [2, 3, 4, 8] {
        let sent = 2.0 * (processes - 1) as f64 / processes as f64 * 4.0 * parameters;
        let steps = [nvlink, pcie, ib].map(|link| SharedStep::of(&of_one, processes, link));
        for step in steps {
            assert_eq!(step.local, of_one.step.time.expected);
            assert!((step.sent - sent).abs() < 1.0, "{processes}: {} bytes, {sent} expected", step.sent);
            assert!(0.0 < step.exposed && step.exposed < step.exchange, "{processes}: {step:?}");
            assert!(step.seconds(true) > step.seconds(false) && step.seconds(false) > step.local);
        }
        assert!(steps.is_sorted_by(|a, b| a.seconds(true) < b.seconds(true)), "{processes}: {steps:?}");
        let free = Link { bandwidth: f64::INFINITY, latency: 0.0, ..nvlink };
        let step = SharedStep::of(&of_one, processes, free);
        let kernels = step.seconds(true) - step.local;
        assert!(step.rows == 0.0 && 0.0 < kernels && kernels < 0.1 * step.local, "{processes}: {step:?}");
        // So slow that the backward pass hides next to nothing of it.
        let slow = Link { bandwidth: 1e6, ..nvlink };
        let step = SharedStep::of(&of_one, processes, slow);
        assert!(step.exposed > 0.99 * sent / 1e6, "{processes}: {step:?}");
        // As fast as possible, and late: what counts is in how many turns. 8 parts of a bucket are not equal, so that
        // they need no ring.
        let late = Link { bandwidth: f64::INFINITY, latency: 1.0, ..nvlink };
        let step = SharedStep::of(&of_one, processes, late);
        let turns = [(2, 2.0), (3, 2.0), (4, 4.0), (8, 2.0)].into_iter().find(|(of, _)| *of == processes);
        let turns = turns.unwrap().1;
        assert!((step.exchange - 8.0 * turns).abs() < 0.01, "{processes}: {step:?}");
        // Of logits and features.
        assert!((step.rows - 2.0 * (processes - 1) as f64).abs() < 1e-9, "{processes}: {step:?}");
    }
}

#[test]
fn the_table_of_shared_steps_has_a_row_for_each_number_of_gpus() {
    let output = records(&["--preset", "records-cifar10", "--gpu", "a100", "--world", "8", "--link", "ib"]);
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    let (_, rows) = shown.split_once("eff. local\n").unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split_whitespace().collect()).collect();
    let batches: Vec<[&str; 3]> = rows.iter().map(|row| [row[0], row[1], row[2]]).collect();
    let expected = [
        ["2", "256", "128"],
        ["2", "512", "256"],
        ["4", "256", "64"],
        ["4", "1024", "256"],
        ["8", "256", "32"],
        ["8", "2048", "256"],
    ];
    assert_eq!(batches, expected, "{shown}");
}

/// The table of a built-in GPU as a file of one's own.
fn own_file() -> String {
    let all = include_str!("../src/device/gpu/model/gpus.toml");
    let from = all.find("[rtx3090]\n").unwrap() + "[rtx3090]\n".len();
    all[from..from + all[from..].find("\n[").unwrap()].into()
}

#[test]
fn a_gpu_of_ones_own_is_read_and_its_slips_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let word = path.to_str().unwrap();
    std::fs::write(&path, own_file()).unwrap();
    assert_eq!(gpu(word), gpu("rtx3090"));
    let line = |key: &str, new: &str| {
        let lines = own_file();
        let changed: Vec<&str> =
            lines.lines().map(|line| if line.starts_with(key) { new } else { line }).collect();
        std::fs::write(&path, changed.join("\n")).unwrap();
        format!("{:#}", Gpu::find(word).unwrap_err())
    };
    for (key, new, words) in [
        ("clock-ghz", "", &["clock-ghz", "missing"][..]),
        ("clock-ghz", "clock-ghz = nan", &["clock-ghz", "0.1 to 10"]),
        ("clock-ghz", "clock-ghz = 1695", &["clock-ghz = 1695", "0.1 to 10"]),
        ("dram-gb-s", "dram-gb-s = -1", &["dram-gb-s = -1"]),
        ("dram-gb-s", "dram-gb-s = inf", &["dram-gb-s = inf"]),
        ("l2-mb", "l2-mb = \"six\"", &["l2-mb", "six"]),
        ("l2-mb", "l2-mb = { value = 6, sorce = \"?\" }", &["l2-mb", "sorce"]),
        ("l2-mb", "l2-mb = { source = \"?\" }", &["l2-mb", "no value"]),
        ("l2-mb", "l2-mb = 6\nl3-mb = 60", &["l3-mb"]),
        ("name", "name = 5", &["name"]),
        ("shared-kb", "shared-kb = [100, 64]", &["shared-kb"]),
        (
            "calibration.product-pessimistic",
            "calibration.product-pessimistic = 0.95",
            &["product-pessimistic", "0.9"],
        ),
        ("gap-us", "gap-us = ", &["own.toml:"]),
        ("compute-capability", "compute-capability = 75", &["compute-capability = 75", "80"]),
    ] {
        let error = line(key, new);
        assert!(!error.contains('\n'), "{error}");
        words.iter().for_each(|word| assert!(error.contains(word), "{new}: {error}"));
    }
}

#[test]
fn the_command_shows_and_writes() {
    let table = String::from_utf8(records(&["--preset", "tiny"]).stdout).unwrap();
    for words in ["a step", "backbone forward", "together", "slowest launches", "nothing here was measured"] {
        assert!(table.contains(words), "{words} in {table}");
    }
    let all = String::from_utf8(records(&["--preset", "tiny", "--launches"]).stdout).unwrap();
    assert!(all.lines().count() > 190 + 20, "{all}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.json");
    let output = records(&["--preset", "tiny", "--format", "json", "--output", path.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    let value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(value["gpu"], "GeForce RTX 3090");
}
