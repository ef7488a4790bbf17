//! Tiles that are timed: what `records tune` keeps, what later runs take, and that a run goes on with its
//! own. The stand-in gives every launch the same time where it runs none, so ways of fewer launches are
//! faster there, which by the model they are not always.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::stand_in::{is_launched, kernel_cache, taken_since};
use super::{SHORT, TRAIN, assert_equal_runs, finish, notes, text, train, with_stand_in};

/// A folder with a kernel cache of its own.
struct Place {
    folder: tempfile::TempDir,
    cache: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = kernel_cache(folder.path());
        Self { folder, cache }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `records` with these arguments, where kernels take the time of their launches.
    fn records(&self, arguments: &[&str]) -> Command {
        let mut command = with_stand_in(env!("CARGO_BIN_EXE_records"), self.path());
        command.args(arguments).env("RECORDS_KERNEL_CACHE", &self.cache).env("STAND_IN_SKIP", "1");
        command
    }

    /// The same of the run that the tests train.
    fn of_run(&self, command: &str, more: &[&str]) -> Command {
        let [_, settings @ .., _] = &TRAIN;
        self.records(&[&[command], settings.as_slice(), more].concat())
    }

    /// What `records tune` prints of that run.
    fn tune(&self, more: &[&str]) -> Value {
        let output = done(self.of_run("tune", &["--format=json"]).args(more).output().unwrap(), self);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The files of times.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.cache).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
    }

    /// The only one.
    fn file(&self) -> PathBuf {
        let kept = self.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        kept[0].clone()
    }

    fn log_of(&self, run: &str) -> String {
        std::fs::read_to_string(self.path().join("runs").join(run).join("log.txt")).unwrap()
    }

    /// The calls since the last time.
    fn calls(&self) -> String {
        let path = self.path().join("calls");
        let calls = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        calls
    }

    /// What the row of the doctor says.
    fn doctor(&self, variables: &[(&str, &str)]) -> String {
        let output = self.records(&["doctor"]).envs(variables.iter().copied()).output().unwrap();
        let rows = text(&output.stdout);
        let row = rows.lines().find_map(|line| line.strip_prefix("tiles "));
        row.unwrap_or_else(|| panic!("{rows}")).trim().into()
    }
}

/// Whether a row of the doctor says that tiles were timed.
fn is_tuned(row: &str) -> bool {
    row.starts_with("by ") && row.ends_with(" times measured on Stand-in GPU (RTX 3090)")
}

fn done(output: Output, place: &Place) -> Output {
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), notes(place.path()));
    output
}

/// The one line of a refusal.
fn refused(output: &Output) -> String {
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    line
}

#[test]
fn tiles_are_timed_once_and_taken_from_then_on() {
    let place = Place::new();
    assert!(place.doctor(&[]).starts_with("by the model; `records tune`"), "{}", place.doctor(&[]));
    let first = place.tune(&[]);
    let times = first["measured"].as_u64().unwrap();
    assert!(times > 20 && first["known"] == 0, "{first:#}");
    assert_eq!(first["file"], place.file().to_str().unwrap());
    let text_of_file = std::fs::read(place.file()).unwrap();
    let (model, tuned) = taken_since(&first);

    let second = place.tune(&[]);
    assert_eq!((&second["measured"], &second["known"]), (&0.into(), &times.into()));
    assert_eq!(second["choices"], first["choices"]);
    assert_eq!(std::fs::read(place.file()).unwrap(), text_of_file);
    let shown = text(&done(place.of_run("tune", &[]).output().unwrap(), &place).stdout);
    assert!(
        shown.contains(&format!("all {times} times were there already, nothing was measured")),
        "{shown}"
    );
    assert_eq!(place.tune(&["--again"])["measured"], times);

    // Another batch adds its times and leaves those that are there.
    let more = place.tune(&["--batch-size=4"])["measured"].as_u64().unwrap();
    let file: Value = serde_json::from_slice(&std::fs::read(place.file()).unwrap()).unwrap();
    assert_eq!(file["seconds"].as_object().unwrap().len() as u64, times + more);
    assert!(more > 0 && is_tuned(&place.doctor(&[])), "{}", place.doctor(&[]));

    place.calls();
    for (tiles, name, said, [is_tuned, is_model]) in [
        (
            "",
            "tuned",
            &*format!("bf16 with f32 sums, tiles by {} times measured on ", times + more),
            [true, false],
        ),
        ("model", "model", "tiles by the model, as RECORDS_TILES says", [false, true]),
    ] {
        let mut train = place.of_run("train", &["--device=cuda", "--epochs=1", "--name", name]);
        done(train.env("RECORDS_TILES", tiles).output().unwrap(), &place);
        let calls = place.calls();
        assert_eq!(
            [&tuned, &model].map(|kernel| is_launched(&calls, kernel)),
            [is_tuned, is_model],
            "{name}: {model} {tuned}\n{calls}"
        );
        assert!(place.log_of(name).contains(said), "{}", place.log_of(name));
        assert_eq!(place.path().join("runs").join(name).join("tiles.json").exists(), is_tuned);
    }
}

/// Stopped inside an epoch, gone on with when the times are gone: the bits of the interpreter with the same
/// tiles.
#[test]
fn a_run_goes_on_with_its_own_tiles() {
    let place = Place::new();
    let (_, tuned) = taken_since(&place.tune(&[]));
    let train = |device: &str, name: &str, tiles: &str| {
        let mut command = train(place.path(), device, name);
        command.args(SHORT).env("RECORDS_KERNEL_CACHE", &place.cache);
        command.env("RECORDS_TILES", tiles);
        command
    };
    let stopped = train("cuda", "stopped", "").arg("--max-minutes=1e-9").output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", notes(place.path()));
    std::fs::remove_file(place.file()).unwrap();
    place.calls();
    let whole = train("sim", "whole", "runs/stopped/tiles.json").spawn().unwrap();
    let mut resumed = with_stand_in(env!("CARGO_BIN_EXE_records"), place.path());
    resumed.args(["train", "--resume=runs/stopped"]).env("RECORDS_KERNEL_CACHE", &place.cache);
    done(resumed.output().unwrap(), &place);
    finish(whole, place.path());
    assert!(is_launched(&place.calls(), &tuned), "{tuned}");
    let [stopped, whole] = ["stopped", "whole"].map(|name| place.path().join("runs").join(name));
    assert_equal_runs(&stopped, &whole);
    let file = |run: &Path| std::fs::read(run.join("tiles.json")).unwrap();
    assert_eq!(file(&stopped), file(&whole));
    assert!(!place.log_of("stopped").contains("bits differ"), "{}", place.log_of("stopped"));
    assert_eq!(notes(place.path()), "");
}

/// What was measured since changes nothing for a run that began by the model; where its own tiles are gone,
/// damaged or of another GPU, a run says so.
#[test]
fn a_run_says_where_it_goes_on_with_other_tiles() {
    let place = Place::new();
    let begin = |name: &str| {
        let arguments = ["--device=cuda", "--epochs=1", "--max-minutes=1e-9", "--name", name];
        let output = place.of_run("train", &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    };
    let resume = |name: &str| {
        let folder = format!("--resume=runs/{name}");
        done(place.records(&["train", &folder]).output().unwrap(), &place);
        let log = place.log_of(name);
        log.lines().filter(|line| line.contains("tiles")).map(String::from).collect::<Vec<_>>()
    };
    begin("model");
    place.tune(&[]);
    let said = resume("model");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|line| line.contains("tiles by the model")), "{said:?}");

    for (name, said) in [
        ("gone", ""),
        ("damaged", "tiles.json: no measured times of `records tune`"),
        ("foreign", "tiles.json: its times were measured on Another GPU"),
    ] {
        begin(name);
        let own = place.path().join("runs").join(name).join("tiles.json");
        let was = std::fs::read_to_string(&own).unwrap();
        match name {
            "gone" => std::fs::remove_file(&own).unwrap(),
            "damaged" => std::fs::write(&own, &was[..was.len() / 2]).unwrap(),
            _ => {
                std::fs::write(&own, was.replace("Stand-in GPU", "Another GPU")).unwrap();
                // With the same times, the GPU would not matter.
                std::fs::remove_file(place.file()).unwrap();
            }
        }
        let lines = resume(name).join("\n");
        assert!(lines.contains("with tuned tiles and goes on with tiles by the model"), "{lines}");
        assert!(lines.contains(said), "{lines}");
    }
}

/// Times of another GPU or of other kernels, a damaged file, no GPU, nowhere to keep them: one line each.
#[test]
fn times_that_cannot_be_used_or_kept_are_said() {
    let place = Place::new();
    place.tune(&[]);
    let file = place.file();
    let was = std::fs::read_to_string(&file).unwrap();
    assert!(is_tuned(&place.doctor(&[])));
    assert!(place.doctor(&[("STAND_IN_GPU", "h100")]).starts_with("by the model; `records tune`"));

    let kernels = was.lines().find(|line| line.contains("\"kernels\"")).unwrap();
    let cut = &was[..was.len() / 2];
    for (is, said) in [
        (
            was.replace(kernels, "\"kernels\": \"0\""),
            "was measured on another GPU or with other kernels; remove it",
        ),
        (cut.into(), "is damaged ("),
    ] {
        std::fs::write(&file, &is).unwrap();
        let row = place.doctor(&[]);
        assert!(row.starts_with("by the model: ") && row.contains(said), "{row}");
        let output = done(
            place
                .records(&["bench", "step", "--device=cuda", "--width=8", "--batch-size=4"])
                .output()
                .unwrap(),
            &place,
        );
        let line = text(&output.stderr);
        assert!(line.starts_with("note: ") && line.contains(said) && line.lines().count() == 1, "{line}");
    }
    // It is measured anew.
    let output = done(place.of_run("tune", &[]).output().unwrap(), &place);
    assert!(text(&output.stderr).contains("is damaged ("), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), was);

    for device in ["cpu", "sim"] {
        let line = refused(&place.of_run("tune", &["--device", device]).output().unwrap());
        assert!(
            line.contains(&format!("--device {device}: tiles are timed on a GPU; must be cuda")),
            "{line}"
        );
    }
    let line = refused(&place.of_run("tune", &[]).env_remove("LD_LIBRARY_PATH").output().unwrap());
    assert!(line.contains("no GPU to time tiles on: no libcuda.so.1; "), "{line}");
    let nowhere =
        place.of_run("tune", &[]).env("RECORDS_KERNEL_CACHE", "/proc/none/kernels").output().unwrap();
    let line = refused(&nowhere);
    assert!(line.contains("/proc/none/kernels: the folder cannot be made"), "{line}");
    for (tiles, said) in [("fast", "RECORDS_TILES \"fast\": must be model"), ("none.json", "none.json: ")] {
        let line = refused(&place.of_run("tune", &[]).env("RECORDS_TILES", tiles).output().unwrap());
        assert!(line.contains(said), "{line}");
    }
}
