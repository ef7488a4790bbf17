//! What a run writes for people to look at: the report and the files beside it, checked against
//! metrics.jsonl, and looked at in a real browser.

mod support {
    pub mod browser;
    pub mod python;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use records::protobuf::{Field, fields};
use records::train::checkpoint::Checkpoint;
use records::train::metrics::EpochMetrics;
use serde_json::Value;
use support::browser::ask;
use support::python::python_with;

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Settings with which an epoch takes some tenths of a second.
const TINY: &[&str] = &[
    "train",
    "--preset=tiny",
    "--synthetic-test-per-class=3",
    "--synthetic-train-per-class=12",
    "--imb-factor=0.3",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--eval-every=2",
];

/// Epochs of the runs here; the last and every second one are evaluated.
const EPOCHS: usize = 5;

/// A folder with the runs `one` and `two`, of two seeds, made once.
fn runs() -> &'static Path {
    static RUNS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = RUNS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for (name, seed) in [("one", "--seed=1"), ("two", "--seed=2")] {
            let place = ["--exp-dir", folder.path().to_str().unwrap(), "--name", name, "--epochs=5", seed];
            succeed(&records(&[TINY, &place].concat()));
        }
        folder
    });
    folder.path()
}

fn metrics(run: &Path) -> Vec<EpochMetrics> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The values of an attribute of the elements in a page, in order.
fn attributes(page: &str, name: &str) -> Vec<String> {
    let start = format!(" {name}=\"");
    page.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap().to_string()).collect()
}

/// The figure of a chart.
fn chart<'a>(page: &'a str, title: &str) -> &'a str {
    let start = page.find(&format!("data-chart=\"{title}\"")).unwrap_or_else(|| panic!("no chart {title}"));
    &page[start..][..page[start..].find("</figure>").unwrap()]
}

/// Series of a chart: how many points it has, and the last.
fn series(page: &str, title: &str) -> BTreeMap<String, (usize, f64)> {
    let figure = chart(page, title);
    let [names, counts, last] =
        ["data-series", "data-count", "data-last"].map(|name| attributes(figure, name));
    let numbers =
        counts.iter().zip(last).map(|(count, last)| (count.parse().unwrap(), last.parse().unwrap()));
    names.into_iter().zip(numbers).collect()
}

#[test]
fn the_report_shows_what_metrics_say() {
    let run = runs().join("one");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    let metrics = metrics(&run);
    let last = metrics.last().unwrap();
    let test = last.test.as_ref().unwrap();
    let evaluated = metrics.iter().filter(|metrics| metrics.test.is_some()).count();
    assert_eq!((metrics.len(), evaluated), (EPOCHS, 3));
    for (title, name, count, value) in [
        ("Loss", "loss", EPOCHS, last.loss),
        ("Accuracy", "top-1", evaluated, test.top1),
        ("Accuracy", "top-5", evaluated, test.top5.unwrap()),
        ("Accuracy", "training", EPOCHS, last.train_accuracy.unwrap()),
        ("Many, medium, few", "many", evaluated, test.many.unwrap()),
        ("Many, medium, few", "medium", evaluated, test.medium.unwrap()),
        ("Many, medium, few", "few", evaluated, test.few.unwrap()),
        ("Label accuracy", "labels", EPOCHS, last.label_accuracy.unwrap()),
        ("Mean max confidence", "MMC", EPOCHS, last.mean_max_confidence),
        ("Learning rate", "learning rate", EPOCHS, last.learning_rate),
        ("Distance of the class prior", "distance", evaluated, last.prior_distance.unwrap()),
    ] {
        assert_eq!(series(&page, title).get(name), Some(&(count, value)), "{title}, {name}");
    }
    // The groups' shares of the class prior are all of it, and so are the true ones.
    let prior = series(&page, "Class prior");
    for names in [["many", "medium", "few"], ["many, true", "medium, true", "few, true"]] {
        let sum: f64 = names.iter().map(|name| prior[*name].1).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
    let values = |title: &str| -> BTreeMap<usize, f64> {
        let figure = chart(&page, title);
        let classes = attributes(figure, "data-class").into_iter().map(|class| class.parse().unwrap());
        classes.zip(attributes(figure, "data-value").iter().map(|value| value.parse().unwrap())).collect()
    };
    let estimate = last.class_prior.as_ref().unwrap();
    assert_eq!(values("Class prior by class"), estimate.iter().copied().enumerate().collect());
    let accuracies = test.per_class.iter().map(|accuracy| accuracy.unwrap()).enumerate().collect();
    assert_eq!(values("Accuracy by class"), accuracies);
    assert!(page.contains(&format!("data-tile=\"top1\">{:.2} %", test.top1)));
    assert!(page.contains("5 of 5 epochs") && page.contains(">finished<"));
    // Nothing from elsewhere, and nothing that runs.
    for part in ["http:", "https:", "<script", "src=\"/", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn the_confusion_matrix_is_the_test_s() {
    let run = runs().join("one");
    let confusion: Value = serde_json::from_slice(&fs::read(run.join("confusion.json")).unwrap()).unwrap();
    let last = metrics(&run).pop().unwrap();
    assert_eq!(confusion["epoch"], last.epoch);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    let figure = chart(&page, "Confusion");
    let [truth, predicted, drawn] =
        ["data-true", "data-predicted", "data-value"].map(|name| attributes(figure, name));
    let mut total = 0;
    for (class, accuracy) in last.test.unwrap().per_class.iter().enumerate() {
        let row: Vec<u64> = confusion["counts"][class]
            .as_array()
            .unwrap()
            .iter()
            .map(|count| count.as_u64().unwrap())
            .collect();
        assert_eq!(row.iter().sum::<u64>(), 3);
        assert_eq!(accuracy.unwrap(), 100.0 * row[class] as f64 / 3.0);
        for (other, &count) in row.iter().enumerate() {
            let cell = (0..drawn.len())
                .find(|&at| truth[at] == class.to_string() && predicted[at] == other.to_string());
            assert_eq!(cell.map_or(0, |at| drawn[at].parse().unwrap()), count);
            total += count;
        }
    }
    assert_eq!(total, 30);
}

/// The confidences are those of the checkpoint, and the candidates those of the data.
#[test]
fn samples_are_followed_from_the_first_epoch_to_the_last() {
    let run = runs().join("one");
    let lines: Vec<Value> = fs::read_to_string(run.join("samples.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let samples = lines[0]["samples"].as_array().unwrap();
    assert!((5..=12).contains(&samples.len()), "{}", samples.len());
    assert_eq!(lines.len(), 1 + EPOCHS);
    let checkpoint = Checkpoint::read(&run.join("checkpoint-0005.safetensors")).unwrap();
    let (shape, confidence) = checkpoint.confidence().unwrap();
    for (number, sample) in samples.iter().enumerate() {
        let at = sample["sample"].as_u64().unwrap() as usize;
        let candidates = sample["candidates"].as_array().unwrap();
        assert!(candidates.len() > 1 && candidates.contains(&sample["truth"]));
        for (place, class) in candidates.iter().enumerate() {
            let written = lines[EPOCHS]["confidence"][number][place].as_f64().unwrap();
            let kept = f64::from(confidence[at * shape[1] + class.as_u64().unwrap() as usize]);
            assert!((written - kept).abs() <= 0.5e-4 + 1e-6, "{written} {kept}");
        }
        assert!(sample["png"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    }
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(page.matches("data:image/png;base64,").count(), samples.len());
    let first = series(&page, &format!("Sample {}", samples[0]["sample"]));
    assert!(first.values().all(|(count, _)| *count == EPOCHS) && first.len() > 1);
}

#[test]
fn metrics_csv_has_the_same_numbers() {
    let run = runs().join("one");
    let mut table = csv::Reader::from_path(run.join("metrics.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let rows: Vec<BTreeMap<String, String>> = table
        .records()
        .map(|row| header.iter().map(String::from).zip(row.unwrap().iter().map(String::from)).collect())
        .collect();
    let metrics = metrics(&run);
    assert_eq!(rows.len(), metrics.len());
    for (row, metrics) in rows.iter().zip(&metrics) {
        let same = |column: &str, value: Option<f64>| {
            let found =
                Some(&row[column]).filter(|cell| !cell.is_empty()).map(|cell| cell.parse::<f64>().unwrap());
            assert_eq!(found, value, "{column} of epoch {}", metrics.epoch);
        };
        let test = metrics.test.as_ref();
        assert_eq!(row["epoch"], metrics.epoch.to_string());
        same("learning_rate", Some(metrics.learning_rate));
        same("loss", Some(metrics.loss));
        same("train_accuracy", metrics.train_accuracy);
        same("mean_max_confidence", Some(metrics.mean_max_confidence));
        same("label_accuracy", metrics.label_accuracy);
        same("prior_distance", metrics.prior_distance);
        same("top1", test.map(|test| test.top1));
        same("top5", test.and_then(|test| test.top5));
        same("many", test.and_then(|test| test.many));
        same("few", test.and_then(|test| test.few));
    }
}

fn events_file(run: &Path) -> PathBuf {
    run.join("events.out.tfevents.0.records")
}

/// The tags and values of an epoch, as the events must have them.
fn expected_scalars(metrics: &EpochMetrics) -> BTreeMap<String, f32> {
    let test = metrics.test.as_ref();
    let all = [
        ("Train Acc", metrics.train_accuracy),
        ("Classification Loss", Some(metrics.loss)),
        ("Top1 Acc", test.map(|test| test.top1)),
        ("Top5 Acc", test.and_then(|test| test.top5)),
        ("Many Acc", test.and_then(|test| test.many)),
        ("Medium Acc", test.and_then(|test| test.medium)),
        ("Few Acc", test.and_then(|test| test.few)),
        ("Label Acc", metrics.label_accuracy),
        ("Mean Max Confidence", Some(metrics.mean_max_confidence)),
        ("Prior Distance", metrics.prior_distance),
        ("Learning Rate", Some(metrics.learning_rate)),
        ("Chosen Samples", metrics.chosen),
        ("Steps Left Out", metrics.steps_left_out.map(|steps| steps as f64)),
    ];
    all.into_iter().filter_map(|(tag, value)| Some((tag.to_string(), value? as f32))).collect()
}

/// CRC-32C as its definition says, a bit at a time.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[test]
fn events_have_sound_checksums_and_the_numbers() {
    let run = runs().join("one");
    let bytes = fs::read(events_file(&run)).unwrap();
    let (mut rest, mut messages) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
        let message = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked_crc(message).to_le_bytes());
        messages.push(message);
        rest = &rest[16 + length..];
    }
    assert_eq!(fields(messages[0]).unwrap()[1], (3, Field::Bytes(b"brain.Event:2")));
    let metrics = metrics(&run);
    assert_eq!(messages.len(), 1 + metrics.len());
    for (message, metrics) in messages[1..].iter().zip(&metrics) {
        let event = fields(message).unwrap();
        assert_eq!(event[1], (2, Field::Integer(metrics.epoch as u64)));
        let Field::Bytes(summary) = event[2].1 else { panic!() };
        let mut found = BTreeMap::new();
        for (_, value) in fields(summary).unwrap() {
            let Field::Bytes(value) = value else { panic!() };
            let [(1, Field::Bytes(tag)), (2, Field::Fixed32(number))] = fields(value).unwrap()[..] else {
                panic!()
            };
            found.insert(text(tag), f32::from_le_bytes(number));
        }
        assert_eq!(found, expected_scalars(metrics));
    }
}

#[test]
fn tensorboard_s_own_loader_reads_the_events() {
    let run = runs().join("one");
    let Some(mut python) = python_with(&["tensorboard"]) else { return };
    let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
for tag in events.Tags()['scalars']:
    for event in events.Scalars(tag):
        print(tag, event.step, repr(event.value), sep='|')
";
    let printed = succeed(&python.args(["-c", script]).arg(&run).output().unwrap());
    let mut found: BTreeMap<usize, BTreeMap<String, f32>> = BTreeMap::new();
    for line in printed.lines().filter(|line| line.matches('|').count() == 2) {
        let parts: Vec<&str> = line.split('|').collect();
        let value = parts[2].parse::<f64>().unwrap() as f32;
        found.entry(parts[1].parse().unwrap()).or_default().insert(parts[0].into(), value);
    }
    let expected = metrics(&run).iter().map(|metrics| (metrics.epoch, expected_scalars(metrics))).collect();
    assert_eq!(found, expected);
}

/// What is lost, cut short or of another time is made again by a resume, to the same bytes.
#[test]
fn a_resume_puts_the_files_right() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("one");
    let place = ["--exp-dir", folder.path().to_str().unwrap(), "--name=one", "--seed=1", "--epochs=5"];
    // The same settings as `one` of the others, so the same bytes.
    succeed(&records(&[TINY, &place].concat()));
    let names = ["metrics.csv", "samples.jsonl", "confusion.json", "events.out.tfevents.0.records"];
    let whole = names.map(|name| fs::read(runs().join("one").join(name)).unwrap());
    assert_eq!(names.map(|name| fs::read(run.join(name)).unwrap()), whole);
    for (name, bytes) in names.iter().zip(&whole).take(2).chain([(&names[3], &whole[3])]) {
        fs::write(run.join(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    fs::remove_file(run.join("report.html")).unwrap();
    fs::remove_file(run.join("confusion.json")).unwrap();
    fs::remove_file(run.join("checkpoint-0005.safetensors")).unwrap();
    let printed = succeed(&records(&["train", "--resume", run.to_str().unwrap()]));
    assert!(!printed.contains("not written"), "{printed}");
    for (name, bytes) in names.iter().zip(&whole).filter(|(name, _)| **name != "samples.jsonl") {
        assert!(fs::read(run.join(name)).unwrap() == *bytes, "{name}");
    }
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("5 of 5 epochs"));
    // Of samples.jsonl, half was lost: the head is made again, and the epochs that were run again are there.
    let samples = fs::read_to_string(run.join("samples.jsonl")).unwrap();
    let mine: Vec<&str> = samples.lines().collect();
    let theirs = text(&whole[1]);
    let theirs: Vec<&str> = theirs.lines().collect();
    assert_eq!(mine.first(), theirs.first());
    assert_eq!(mine.last(), theirs.last());
}

#[test]
fn a_folder_that_cannot_take_a_report_does_not_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("one");
    let place = ["--exp-dir", folder.path().to_str().unwrap(), "--name=one", "--epochs=1"];
    succeed(&records(&[TINY, &place].concat()));
    fs::remove_file(run.join("report.html")).unwrap();
    fs::create_dir(run.join("report.html")).unwrap();
    let printed = succeed(&records(&["train", "--resume", run.to_str().unwrap()]));
    assert!(
        printed.contains("not written, and the run goes on") && printed.contains("report.html"),
        "{printed}"
    );
}

#[test]
fn a_run_that_failed_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = ["--exp-dir", folder.path().to_str().unwrap(), "--name=bad", "--epochs=5", "--lr=1e25"];
    let output = records(&[TINY, &place].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let run = folder.path().join("bad");
    // Where no epoch was finished, there is no report yet; it can be asked for.
    let at = run.to_str().unwrap();
    succeed(&records(&["report", at]));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains(">failed<") && page.contains("lower --lr"), "{page}");
    assert!(!page.contains("refresh"));
    let watched = succeed(&records(&["watch", at]));
    assert!(watched.contains("failed: ") && watched.contains("records train --resume"), "{watched}");
}

#[test]
fn runs_are_compared_by_mean_and_spread() {
    let (one, two) = (runs().join("one"), runs().join("two"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("both.html");
    let [a, b, to] = [&one, &two, &out].map(|path| path.to_str().unwrap());
    let printed = succeed(&records(&["report", a, b, "--output", to]));
    let top1 = [&one, &two].map(|run| metrics(run).pop().unwrap().test.unwrap().top1);
    let mean = (top1[0] + top1[1]) / 2.0;
    let deviation = (top1[0] - top1[1]).abs() / 2f64.sqrt();
    let shown = format!("{mean:.2} \u{b1} {deviation:.2}");
    let page = fs::read_to_string(&out).unwrap();
    assert!(printed.contains(&shown) && page.contains(&shown), "{shown} is not in {printed}");
    assert_eq!(attributes(&page, "data-group").len(), 1);
    let line = series(&page, "Top-1");
    assert_eq!(line.values().collect::<Vec<_>>(), [&(3, mean)]);
    // A run with another setting is a group of its own.
    let place = ["--exp-dir", folder.path().to_str().unwrap(), "--name=c", "--epochs=1", "--lr=0.2"];
    succeed(&records(&[TINY, &place].concat()));
    let third = folder.path().join("c");
    let printed = succeed(&records(&["report", a, b, third.to_str().unwrap(), "--output", to]));
    assert!(printed.contains("lr 0.2"), "{printed}");
    assert_eq!(attributes(&fs::read_to_string(&out).unwrap(), "data-group").len(), 2);
    let refused = records(&["report", folder.path().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("not the folder of a run"), "{}", text(&refused.stderr));
}

/// Every chart is laid out with its data; nothing sticks out of its picture or, on a phone, of the page.
#[test]
fn a_browser_shows_every_chart() {
    let script = "
const wrong = []; let lines = 0;
for (const figure of document.querySelectorAll('figure')) {
  const name = figure.dataset.chart, svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  if (box.width < 100 || box.height < 20) wrong.push(name + ': no picture');
  for (const line of figure.querySelectorAll('polyline')) {
    lines += 1;
    if (line.dataset.count > 1 && line.getTotalLength() < 1) wrong.push(name + ': an empty line');
    if (getComputedStyle(line).stroke === 'none') wrong.push(name + ': a line without colour');
  }
  for (const part of figure.querySelectorAll('text, polyline, circle, svg rect')) {
    const b = part.getBoundingClientRect();
    if (b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1)
      wrong.push(name + ': sticks out: ' + (part.textContent || part.tagName));
  }
}
for (const image of document.images) if (!image.complete || image.naturalWidth === 0) wrong.push('an image is missing');
if (document.documentElement.scrollWidth > window.innerWidth) wrong.push('wider than the window');
answer = JSON.stringify({ figures: document.querySelectorAll('figure').length, lines, wrong, width: window.innerWidth });
";
    let (one, two) = (runs().join("one"), runs().join("two"));
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.html");
    let [a, b, to] = [&one, &two, &both].map(|path| path.to_str().unwrap());
    succeed(&records(&["report", a, b, "--output", to]));
    let page = one.join("report.html");
    let written = fs::read_to_string(&page).unwrap();
    for (path, width, figures) in
        [(&page, 1280, Some(written.matches("<figure").count())), (&page, 500, None), (&both, 500, Some(8))]
    {
        let Some((answer, console)) = ask(path, script, width) else { return };
        assert_eq!(console, "");
        let found: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(found["wrong"].as_array().unwrap(), &Vec::<Value>::new(), "{answer}");
        assert!(found["lines"].as_u64().unwrap() >= 8, "{answer}");
        if let Some(figures) = figures {
            assert_eq!(found["figures"], figures, "{answer}");
        }
    }
}
