//! Numbers at the ends of all ranges, for all flags, settings, metadata strings and file headers: each is
//! accepted, or refused with one line that names it; nothing panics, overflows, takes excessive memory or
//! runs forever.
//!
//! Flags come from the definition of the command line and settings from their serialised names, so new ones
//! are tried automatically. `RECORDS_ALL_NUMBERS=1` tries all values through the program instead of some of
//! them, which takes minutes.

use std::any::TypeId;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use records::cli::parse::{Parsed, allowed, parse};
use records::cli::train::{TrainArguments, resolve};
use records::cli::{self, Cli};
use records::device::cpu::CpuDevice;
use records::error::{exit_code, one_line};
use records::settings::{GivenSettings, Settings, config_toml};
use records::train::replay::{keys, replay};
use records::train::tensor_file::{TensorFile, Values};

/// The values that are tried everywhere.
const EXTREMES: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "2",
    "3",
    "0.5",
    "1.5",
    "0.99999999999",
    "0.9999999999999999",
    "1.0000000000000002",
    "1e-320",
    "5e-324",
    "1e-45",
    "1e-31",
    "1e-30",
    "1e30",
    "1.1e30",
    "1e39",
    "1e308",
    "1e309",
    "-1e308",
    "1e400",
    "NaN",
    "-nan",
    "inf",
    "-inf",
    "127",
    "128",
    "255",
    "256",
    "32767",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "-9223372036854775809",
    "340282366920938463463374607431768211456",
    "1e5",
    "0x10",
    "1_000",
    "+1",
    "00",
    "",
    " ",
    " 1",
    "1 ",
    "1,2",
    "1,1",
    "0,0",
    "1,,2",
    ",",
    "1e308,1e308",
    "true",
    "\u{663}",
    "1\u{1b}[31m",
];

/// The values that are tried where each starts the program.
const FEW: &[&str] = &[
    "0",
    "-1",
    "1e-320",
    "1e308",
    "NaN",
    "inf",
    "9223372036854775808",
    "18446744073709551615",
    "1,",
    "x\u{1b}[31m",
];

/// The extremes, and the numbers in the text about allowed values with their neighbours.
fn values_of(name: &str, extremes: &[&str]) -> Vec<String> {
    let mut values: Vec<String> = extremes.iter().map(ToString::to_string).collect();
    let text = allowed(name).unwrap_or_default();
    for bound in text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()) {
        let near = [bound.checked_sub(1), Some(bound), bound.checked_add(1)];
        values.extend(near.into_iter().flatten().map(|value| value.to_string()));
    }
    values.sort();
    values.dedup();
    values
}

/// Allowed values that make a command slow.
fn takes_long(command: &str, name: &str, value: &str) -> bool {
    let from_to = match (command, name) {
        (_, "width") => 9..=1024,
        ("bench", "steps") => 100..=100_000,
        ("bench", "batch-size") => 100..=4096,
        _ => return false,
    };
    value.trim().parse::<usize>().is_ok_and(|value| from_to.contains(&value))
}

fn everything() -> bool {
    std::env::var_os("RECORDS_ALL_NUMBERS").is_some()
}

/// Runs the program with at most `gib` GiB of address space, for at most half a minute.
fn records<S: AsRef<str>>(folder: &Path, gib: u32, arguments: &[S]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$1\"; shift; exec \"$@\"", "sh", &(gib << 20).to_string()]);
    command.arg(env!("CARGO_BIN_EXE_records")).args(arguments.iter().map(AsRef::as_ref));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let shown: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("{shown:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// Asserts that a message is one line, safe for a terminal, that names `what`.
fn assert_message(what: &str, tried: &str, message: &str) {
    assert!(!message.contains("panicked"), "{tried}: {message}");
    assert!(message.contains(what), "{tried}: {what} is not in {message:?}");
    assert!(!message.chars().any(char::is_control), "{tried}: {message:?}");
}

/// Asserts exit code 0, or 2 with one line that names `what`.
fn assert_taken_or_refused(what: &str, tried: &str, output: &Output) {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    match output.status.code() {
        Some(0) => assert!(!message.contains("panicked"), "{tried}: {message}"),
        Some(2) => {
            let line = message.strip_prefix("error: ").and_then(|line| line.strip_suffix('\n'));
            assert_message(what, tried, line.unwrap_or_else(|| panic!("{tried}: {message:?}")));
        }
        code => panic!("{tried}: {code:?} {message}"),
    }
}

/// The flags of a command that take values, except names of files and folders.
fn flags(command: &clap::Command) -> Vec<String> {
    let takes_text_or_numbers = |argument: &&clap::Arg| {
        argument.get_action().takes_values()
            && argument.get_value_parser().type_id() != TypeId::of::<PathBuf>()
    };
    let named = command.get_arguments().filter(takes_text_or_numbers);
    named.filter_map(|argument| argument.get_long()).map(String::from).collect()
}

fn command(path: &[&str]) -> clap::Command {
    let mut command = Cli::command();
    for name in path {
        command = command.find_subcommand(name).unwrap().clone();
    }
    command
}

/// `records train FLAG=VALUE` up to its settings, without starting the program.
fn train_settings(arguments: &[&str]) -> Result<Settings, anyhow::Error> {
    let argv = ["records", "train"].iter().chain(arguments).map(OsString::from);
    match parse(argv)? {
        Parsed::Command(cli::Command::Train(arguments)) => resolve(&arguments),
        other => panic!("{other:?}"),
    }
}

/// Asserts that settings can be written and read again, and that they are in range.
fn assert_round_trip(tried: &str, settings: &Settings) {
    assert_eq!(settings.problems(), [], "{tried}");
    let text = config_toml(settings).unwrap_or_else(|error| panic!("{tried}: {error}"));
    assert_eq!(toml::from_str::<Settings>(&text).unwrap(), *settings, "{tried}");
}

#[test]
fn every_flag_of_train_takes_or_refuses_every_number() {
    let flags = flags(&command(&["train"]));
    assert!(flags.len() > 40, "{flags:?}");
    for (flag, method) in flags.iter().flat_map(|flag| ["corr", "solar", "lw"].map(|method| (flag, method))) {
        for value in values_of(flag, EXTREMES) {
            let argument = format!("--{flag}={value}");
            match train_settings(&["--method", method, &argument]) {
                Ok(settings) => assert_round_trip(&argument, &settings),
                Err(error) => {
                    assert_eq!(exit_code(&error), 2, "{argument}: {error}");
                    assert_message(&format!("--{flag}"), &argument, &one_line(&error));
                }
            }
        }
    }
}

#[test]
fn every_setting_in_a_file_takes_or_refuses_every_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let arguments = TrainArguments { config: Some(file.clone()), ..TrainArguments::default() };
    let bare = EXTREMES.iter().map(|value| value.to_lowercase()).filter(|value| !value.contains('\u{1b}'));
    let other = [
        "[]",
        "[1]",
        "[0.5, 0.5]",
        "[1, 1]",
        "[nan, inf]",
        "[9223372036854775807]",
        "[-1]",
        "{}",
        "1979-05-27",
    ];
    let values: Vec<String> =
        bare.chain(other.map(String::from)).chain(EXTREMES.iter().map(|v| format!("{v:?}"))).collect();
    for name in GivenSettings::names() {
        let bounds = values_of(&name, &[]);
        for value in values.iter().chain(&bounds) {
            let text = format!("{name} = {value}\n");
            fs::write(&file, &text).unwrap();
            match resolve(&arguments) {
                Ok(settings) => assert_round_trip(&text, &settings),
                Err(error) => {
                    assert_eq!(exit_code(&error), 2, "{text}: {error}");
                    assert_message("run.toml", &text, &one_line(&error));
                }
            }
        }
    }
}

/// A replay of one step of a network of width 1.
fn case(method: &str, batch: usize) -> TensorFile {
    let mut case = TensorFile::default();
    let len = batch * 3 * 64;
    for name in ["batch.weak", "batch.strong"] {
        let values = (0..len).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        case.tensors.insert(name.into(), (vec![1, batch, 3, 8, 8], Values::F32(values)));
    }
    let rows: Vec<i64> = (0..batch as i64).collect();
    for name in ["batch.index", "mixup.permutation"] {
        case.tensors.insert(name.into(), (vec![1, batch], Values::I64(rows.clone())));
    }
    case.tensors.insert("mixup.weight".into(), (vec![1], Values::F32(vec![0.75])));
    case.tensors.insert("prior".into(), (vec![3], Values::F32(vec![0.5, 0.25, 0.25])));
    case.tensors.insert("candidates".into(), (vec![batch, 3], Values::U8([1, 1, 0].repeat(batch))));
    for (key, value) in [("width", "1"), ("update", "true"), ("method", method)] {
        case.metadata.insert(key.into(), value.into());
    }
    case
}

#[test]
fn every_metadata_string_of_a_replay_takes_or_refuses_every_number() {
    for method in ["corr", "solar", "proden"] {
        for key in &keys() {
            for value in values_of(&key.replace('_', "-"), EXTREMES) {
                if takes_long("replay", key, &value) {
                    continue;
                }
                let mut case = case(method, 4);
                case.metadata.insert(key.to_string(), value.clone());
                let tried = format!("{method}: {key} = {value:?}");
                if let Err(error) = replay(&case, &mut CpuDevice::new(1).unwrap()) {
                    assert_eq!(exit_code(&error), 2, "{tried}: {error:#}");
                    assert_message(&format!("'{key}'"), &tried, &one_line(&error));
                }
            }
        }
    }
}

/// One value of each key that is wrong for every method.
#[test]
fn metadata_that_the_method_does_not_read_is_checked_too() {
    let wrong = [
        ("lw_beta", "-1"),
        ("lw_loss", "hinge"),
        ("queue_length", "-1"),
        ("queue_length", "1e3"),
        ("lamd", "0"),
        ("tau", "nan"),
        ("eta", "2"),
        ("rho", "-0.1"),
        ("alpha", "inf"),
        ("m", "1"),
        ("mixup", "1"),
        ("lr", "-1"),
        ("momentum", "1"),
        ("weight_decay", "-1"),
        ("update", "yes"),
        ("update", "true,false"),
        ("seed", "-1"),
        ("arch", "vgg"),
        ("width", "0"),
        ("debias", "all"),
    ];
    for (method, batch) in [("corr", 4), ("solar", 4), ("proden", 1), ("corr", 1)] {
        for (key, value) in wrong {
            let mut case = case(method, batch);
            case.metadata.insert(key.into(), value.into());
            let error = replay(&case, &mut CpuDevice::new(1).unwrap()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(&format!("'{key}'")), "{method}, {key} = {value}: {error}");
        }
    }
}

#[test]
fn a_batch_of_one_is_refused_what_others_are() {
    for (method, key, value) in [
        ("lw", "mixup", "true"),
        ("cc", "mixup", "true"),
        ("solar", "debias", "records"),
        ("solar", "debias", "oracle"),
    ] {
        for batch in [1, 4] {
            let mut case = case(method, batch);
            case.metadata.insert(key.into(), value.into());
            let error = replay(&case, &mut CpuDevice::new(1).unwrap()).map(|_| ()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("'{key}'")) && error.contains("does not go with"),
                "{batch}: {error}"
            );
        }
    }
}

#[test]
fn numbers_in_tensors_that_steps_cannot_be_made_with_are_refused() {
    let error = |name: &str, tensor: (Vec<usize>, Values), method: &str| {
        let mut case = case(method, 4);
        for (key, value) in [("mixup", "true"), ("debias", "oracle"), ("eta", "0.5")] {
            case.metadata.insert(key.into(), value.into());
        }
        if method == "solar" {
            case.metadata.insert("debias".into(), "none".into());
        }
        case.tensors.insert(name.into(), tensor);
        replay(&case, &mut CpuDevice::new(1).unwrap()).map(|_| ()).unwrap_err()
    };
    for index in [-1, 4, i64::MAX, i64::MIN, 1 << 32] {
        for name in ["batch.index", "mixup.permutation"] {
            let error = error(name, (vec![1, 4], Values::I64(vec![0, 1, 2, index])), "corr");
            assert!(error.to_string().contains(&format!("'{name}'")), "{error}");
        }
    }
    for count in [-1, i64::MAX, i64::MIN] {
        let name = "encoder.bn1.num_batches_tracked";
        let error = error(name, (vec![], Values::I64(vec![count])), "corr");
        assert!(error.to_string().contains(name), "{error}");
    }
    for share in [-1.0, f32::NAN, f32::INFINITY, 1e38] {
        let shares = |count| (vec![count], Values::F32(vec![share; count]));
        for (name, tensor, method) in [
            ("mixup.weight", shares(1), "corr"),
            ("prior", shares(3), "corr"),
            ("class_prior", shares(3), "solar"),
        ] {
            let error = error(name, tensor, method).to_string();
            assert!(error.contains(&format!("'{name}'")) && error.contains("0 to 1"), "{error}");
        }
    }
    let error = error("candidates", (vec![4, 3], Values::U8(vec![255; 12])), "corr");
    assert!(error.to_string().contains("'candidates': 255"), "{error}");
}

/// A file with this header, and `data` bytes after it.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn every_number_of_a_safetensors_header_is_held_against_the_file() {
    let numbers: Vec<&str> = EXTREMES.iter().copied().filter(|value| value.parse::<f64>().is_ok()).collect();
    let dtypes = ["BOOL", "U8", "I8", "F16", "BF16", "F32", "F64", "I64", "U64", "F4", "F6_E2M3", "X"];
    for dtype in dtypes {
        for number in &numbers {
            for [shape, start, end] in [
                [&format!("[{number}]"), "0", "8"],
                [&format!("[{number},0]"), "0", "0"],
                [&format!("[0,{number},{number}]"), "0", "0"],
                [&format!("[{number},{number}]"), "0", "8"],
                ["[2]", number, "8"],
                ["[2]", "0", number],
                ["[2]", number, number],
            ]
            .map(|[a, b, c]: [&str; 3]| [a, b, c])
            {
                let header = format!(
                    r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}}}"#
                );
                for data in [0, 8] {
                    if let Ok(file) = TensorFile::from_bytes(&with_header(&header, data)) {
                        let (shape, values) = &file.tensors["a"];
                        let held = match values {
                            Values::F32(v) => v.len(),
                            Values::F64(v) => v.len(),
                            Values::I64(v) => v.len(),
                            Values::I32(v) => v.len(),
                            Values::U32(v) => v.len(),
                            Values::U8(v) => v.len(),
                        };
                        assert_eq!(shape.iter().product::<usize>(), held, "{header}");
                    }
                }
            }
        }
    }
    // Two tensors whose lengths add up to more than the file; a header longer than the file or than any
    // number.
    let huge = 1u64 << 61;
    let pieces: Vec<String> = (0..8u64)
        .map(|i| {
            let end = if i == 7 { u64::MAX } else { (i + 1) * huge };
            let (start, len) = (i * huge, end - i * huge);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    assert!(TensorFile::from_bytes(&with_header(&format!("{{{}}}", pieces.join(",")), 0)).is_err());
    for length in [0, 1, 7, 1 << 24, 1 << 40, u64::MAX - 8, u64::MAX - 7, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        assert!(TensorFile::from_bytes(&bytes).is_err(), "{length}");
    }
    let deep =
        format!(r#"{{"a":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}}}"#, "1,".repeat(100_000));
    assert!(TensorFile::from_bytes(&with_header(&deep, 1)).unwrap_err().contains("at most 8"));
}

/// Files that the commands read, in their own folder.
fn prepare(folder: &Path) {
    case("corr", 2).write(&folder.join("case.safetensors")).unwrap();
    image::RgbImage::from_fn(9, 8, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 7]))
        .save(folder.join("a.png"))
        .unwrap();
    let run = [
        "train",
        "--preset",
        "tiny",
        "--width",
        "1",
        "--epochs",
        "1",
        "--synthetic-train-per-class",
        "10",
        "--synthetic-test-per-class",
        "1",
        "--batch-size",
        "8",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--exp-dir",
        "runs",
        "--name",
        "a",
    ];
    let output = records(folder, 4, &run);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every command except train through the program, with flags and arguments that make it quick.
#[test]
fn every_flag_of_the_other_commands_takes_or_refuses_every_number() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let commands: &[(&[&str], &[&str])] = &[
        (&["table"], &["cifar10", "--methods=corr", "--rho=100", "--q=0.5", "--commands", "--exp-dir=t"]),
        (&["eval"], &["--checkpoint=runs/a/checkpoint-0001.safetensors", "--device=cpu", "--threads=1"]),
        (
            &["replay"],
            &["--input=case.safetensors", "--output=out.safetensors", "--device=cpu", "--threads=1"],
        ),
        (&["data"], &["--dataset=synthetic"]),
        (&["data", "fetch"], &["cifar10", "--data-dir=d"]),
        (&["augment"], &["a.png", "--output=o.png"]),
        (&["bench", "step"], &["--steps=1", "--batch-size=2", "--width=1", "--device=cpu", "--threads=1"]),
        (&["profile"], &["--preset=tiny", "--width=8"]),
        (&["tune"], &["--preset=tiny", "--width=8"]),
        (
            &["predict"],
            &["a.png", "--checkpoint=runs/a/checkpoint-0001.safetensors", "--device=cpu", "--threads=1"],
        ),
        (&["disambiguate"], &["runs/a", "--device=cpu", "--threads=1"]),
        (
            &["export"],
            &[
                "--checkpoint=runs/a/checkpoint-0001.safetensors",
                "--format=safetensors",
                "--output=w.safetensors",
            ],
        ),
        (&["import"], &["case.safetensors", "--output=i.safetensors", "--preset=tiny", "--width=1"]),
        (&["report"], &["runs/a"]),
        (&["watch"], &["runs/a"]),
        (&["completions"], &["bash"]),
        (&["man"], &[]),
        (&["study"], &["loss-row"]),
        (&["doctor"], &[]),
        (&["gpu-check"], &["--tests=none", "--work=w", "--out=r.json"]),
    ];
    let tested = commands.iter().map(|(path, _)| path[0]).chain(["train"]);
    let known: Vec<String> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_string()).collect();
    assert!(known.iter().all(|name| tested.clone().any(|tested| tested == name)), "{known:?}");
    let mut calls = 0;
    let settings = flags(&command(&["train"]));
    for (path, rest) in commands {
        // The settings that profile, tune and import take are train's, and tested with it.
        let takes_settings = ["profile", "tune", "import"].contains(&path[0]);
        let is_its_own = |flag: &String| !takes_settings || !settings.contains(flag);
        for flag in flags(&command(path)).into_iter().filter(is_its_own) {
            let values = if everything() {
                values_of(&flag, EXTREMES)
            } else {
                FEW.iter().map(ToString::to_string).collect()
            };
            for value in values.iter().filter(|value| !takes_long(path[0], &flag, value)) {
                let argument = format!("--{flag}={value}");
                let all: Vec<&str> = path.iter().chain(*rest).copied().chain([argument.as_str()]).collect();
                let output = records(folder.path(), 5, &all);
                // A problem of a data set or method may be reported under another setting's name.
                assert_taken_or_refused("--", &format!("{all:?}"), &output);
                calls += 1;
            }
        }
    }
    println!("{calls} calls");
}

#[test]
fn every_operation_on_images_takes_or_refuses_every_number() {
    let folder = tempfile::tempdir().unwrap();
    image::RgbImage::from_pixel(9, 8, image::Rgb([1, 2, 3])).save(folder.path().join("a.png")).unwrap();
    let operations = [
        ("brightness", 1),
        ("color", 1),
        ("contrast", 1),
        ("sharpness", 1),
        ("posterize", 1),
        ("rotate", 1),
        ("shear-x", 1),
        ("shear-y", 1),
        ("translate-x", 1),
        ("translate-y", 1),
        ("solarize", 1),
        ("jitter-brightness", 1),
        ("jitter-contrast", 1),
        ("jitter-saturation", 1),
        ("hue", 1),
        ("cutout", 3),
        ("resized-crop", 4),
    ];
    let values = if everything() { EXTREMES } else { &["1e308", "-1e308", "1e-320", "18446744073709551615"] };
    for (operation, count) in operations {
        for value in values {
            for place in 0..count {
                let numbers: Vec<&str> = (0..count).map(|i| if i == place { value } else { "1" }).collect();
                let numbers = format!("--value={}", numbers.join(","));
                let all = ["augment", "a.png", "--output=o.png", "--op", operation, &numbers];
                assert_taken_or_refused("--value", &format!("{all:?}"), &records(folder.path(), 2, &all));
            }
        }
    }
}

/// What each command needs does not fit, and is refused before it is allocated: exit code 2 and a line with
/// the size or the flag.
#[test]
fn what_does_not_fit_is_refused_before_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image::RgbImage::from_pixel(9, 8, image::Rgb([1, 2, 3])).save(at("a.png")).unwrap();
    // 600,000 rows of 13 bytes.
    fs::create_dir(at("csv")).unwrap();
    let rows: String = (0..600_000).map(|i| format!("{i}.png,a|b\n")).collect();
    fs::write(at("csv/train.csv"), format!("path,candidates\n{rows}")).unwrap();
    // Files with false claims, and sparse files as large as a disk.
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, 1u64 << 40);
    fs::write(at("claims.safetensors"), with_header(&header, 0)).unwrap();
    fs::write(at("hole.safetensors"), with_header(&header, 0)).unwrap();
    let hole = fs::OpenOptions::new().write(true).open(at("hole.safetensors")).unwrap();
    hole.set_len(8 + header.len() as u64 + (1 << 40)).unwrap();
    fs::create_dir(at("cifar")).unwrap();
    let batch = fs::File::create(at("cifar/data_batch_1.bin")).unwrap();
    batch.set_len(1 << 40).unwrap();
    fs::write(
        at("names.safetensors"),
        with_header(r#"{"\u001b[31ma":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#, 0),
    )
    .unwrap();

    let train = "train --dataset synthetic --imb-factor 1 --device cpu --exp-dir r";
    let cases: &[(&str, &str)] = &[
        ("augment a.png -o o.png --grid 32 --size 1024", "--grid 32"),
        (
            "augment a.png -o o.png --op resized-crop --value=18446744073709551615,0,2,2",
            "--value 18446744073709551615,0,2,2",
        ),
        (
            "augment a.png -o o.png --op resized-crop --value=1,0,18446744073709551615,2",
            "--value 1,0,18446744073709551615,2",
        ),
        ("eval --checkpoint /dev/zero", "/dev/zero"),
        ("eval --checkpoint claims.safetensors", "claims.safetensors: not a whole safetensors file"),
        ("eval --checkpoint hole.safetensors", "hole.safetensors"),
        ("eval --checkpoint names.safetensors", "tensor '\\u{1b}[31ma'"),
        ("replay --input /dev/zero --output o.safetensors --device cpu", "/dev/zero"),
        ("data --dataset cifar10-lt --data-dir cifar", "data_batch_1.bin"),
        ("data --dataset csv --data-dir csv", "not enough memory: 600000 images"),
        ("bench step --device cpu --width 1024", "not enough memory: a network of"),
        ("bench step --device cpu --batch-size 4096 --threads 1", "not enough memory"),
        (&format!("{train} --synthetic-train-per-class 100000"), "not enough memory: the built-in images"),
        (&format!("{train} --arch resnet101 --width 1024"), "not enough memory: a network of"),
        (&format!("{train} --batch-size 4096 --threads 1"), "not enough memory: the step's temporaries"),
    ];
    for (line, what) in cases {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = records(folder.path(), 1, &arguments);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert_taken_or_refused(what, line, &output);
    }
}

#[test]
fn a_number_of_the_environment_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    for value in ["100000", "-1", "18446744073709551616", "x"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        let output = command
            .args(["train", "--dry-run"])
            .env("RAYON_NUM_THREADS", value)
            .current_dir(folder.path())
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_taken_or_refused("RAYON_NUM_THREADS", value, &output);
    }
}

/// The table reads run folders: numbers in metrics.jsonl at the ends of their ranges, endless lines, escape
/// bytes.
#[test]
fn the_table_reads_any_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let train = ["--dataset=synthetic", "--width=8", "--batch-size=8", "--device=cpu"];
    let table = |more: &[&str]| {
        let given = ["table", "cifar10", "--methods=corr", "--rho=100", "--q=0.5", "--exp-dir=t"];
        let all: Vec<&str> = given.iter().chain(&train).chain(more).copied().collect();
        records(folder.path(), 1, &all)
    };
    let run = folder.path().join("t/corr-rho100-q0.5-seed123");
    fs::create_dir_all(&run).unwrap();
    let config = [
        "train",
        "--preset=records-cifar10",
        "--debias=none",
        "--imb-factor=0.01",
        "--partial-rate=0.5",
        "--name=x",
        "--dry-run",
    ];
    let config = Command::new(env!("CARGO_BIN_EXE_records")).args(config).args(train).output().unwrap();
    fs::write(run.join("config.toml"), config.stdout).unwrap();
    let line = |epoch: &str, number: &str| {
        format!(
            r#"{{"epoch":{epoch},"learning_rate":{number},"loss":{number},"train_accuracy":null,"mean_max_confidence":{number},
"label_accuracy":null,"prior_distance":null,"class_prior":null,"test":{{"top1":{number},"top5":{number},"many":null,"medium":null,
"few":null,"per_class":[]}},"seconds":{number},"images_per_second":{number}}}"#
        )
        .replace('\n', "")
    };
    for epoch in ["0", "18446744073709551615", "18446744073709551616", "-1"] {
        for number in ["0", "-1e308", "1e308", "1e400", "null", "5e-324"] {
            fs::write(run.join("metrics.jsonl"), line(epoch, number) + "\n").unwrap();
            assert_taken_or_refused("t/corr", &format!("{epoch} {number}"), &table(&["--report"]));
        }
    }
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    // A line as long as a disk is large.
    fs::File::create(run.join("metrics.jsonl")).unwrap().set_len(1 << 40).unwrap();
    let log = fs::File::create(run.join("log.txt")).unwrap();
    log.set_len(1 << 40).unwrap();
    assert_taken_or_refused("t/corr", "long files", &table(&["--report"]));
    fs::write(run.join("log.txt"), "failed: a\u{1b}[31mb\u{7}\n").unwrap();
    let output = table(&["--report", "--output=table.txt"]);
    assert_taken_or_refused("t/corr", "escapes", &output);
    let text = fs::read_to_string(folder.path().join("table.txt")).unwrap();
    assert!(text.contains("a\\u{1b}[31mb\\u{7}"), "{text}");
}
