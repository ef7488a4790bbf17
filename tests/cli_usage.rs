//! The command line through the real binary: bad usage is one line and exit code 2, the reference's spellings
//! work, and help and doctor say what they should.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn records<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The TOML that `records train ARGUMENTS --dry-run` prints.
fn resolved(arguments: &[&str]) -> toml::Table {
    let output = records(["train", "--dry-run"].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
    out(&output).parse().unwrap()
}

/// Asserts exit code 2, nothing on standard output and one line that contains all of `parts`.
fn assert_one_line(arguments: &[&str], output: &Output, parts: &[&str]) {
    let line = err(output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
    assert_eq!(line.matches('\n').count(), 1, "{arguments:?}: one line, not {line:?}");
    assert!(line.starts_with("error: ") && line.ends_with('\n'), "{arguments:?}: {line:?}");
    for part in parts {
        assert!(line.contains(part), "{arguments:?}: {part:?} is not in {line:?}");
    }
}

/// Asserts that each of the commands is refused in one line that contains all its parts.
fn assert_each(cases: &[(&[&str], &[&str])]) {
    for (arguments, parts) in cases {
        assert_one_line(arguments, &records(*arguments), parts);
    }
}

#[test]
fn bad_commands_are_one_line_and_exit_code_2() {
    assert_each(&[
        (&[], &["a command is missing", "train", "doctor"]),
        (&["trian"], &["trian", "unknown command", "train"]),
        (&["--nothing"], &["--nothing", "unknown flag"]),
        (&["bench", "step", "--threads", "100000"], &["--threads 100000", "from 0 to 1024"]),
        (&["doctor", "--data-dir"], &["--data-dir", "value is missing"]),
        (&["doctor", "--epochs", "3"], &["--epochs", "unknown flag"]),
    ]);
}

#[test]
fn bad_usage_of_data_is_one_line() {
    assert_each(&[
        (&["data"], &["--dataset"]),
        (&["data", "surplus"], &["surplus", "not expected here"]),
        (&["data", "fecth", "cifar10"], &["fecth", "did you mean fetch?"]),
        (&["data", "fetch"], &["<NAME>"]),
        (&["data", "fetch", "mnist"], &["mnist: must be cifar10 or cifar100"]),
        (&["data", "fetch", "folder"], &["folder: must be cifar10 or cifar100"]),
        (&["data", "fetch", "a\nb"], &["must be cifar10 or cifar100"]),
        (&["data", "fetch", "cifar10", "surplus"], &["surplus", "not expected here"]),
        (&["data", "fetch", "cifar10", "--miror=x"], &["--miror", "did you mean --mirror?"]),
        (&["data", "fetch", "cifar10", "--mirror"], &["--mirror", "value is missing"]),
        #[cfg(feature = "fetch")]
        (&["data", "fetch", "cifar10", "--mirror", "file:///x"], &["--mirror file:///x", "http://"]),
        #[cfg(not(feature = "fetch"))]
        (
            &["data", "fetch", "cifar10"],
            &["without downloads", "the feature fetch", "cifar-10-binary.tar.gz"],
        ),
        (&["data", "fetch", "cifar10", "--dataset", "folder"], &["--dataset", "unknown flag"]),
        #[cfg(feature = "fetch")]
        (&["data", "fetch", "cifar10", "--data_dir", "/dev/null/x"], &["--data-dir /dev/null/x"]),
        (&["data", "--dataset", "folder", "fetch", "cifar10"], &["fetch", "--dataset"]),
    ]);
}

#[test]
fn bad_flags_and_numbers_of_train_are_one_line() {
    assert_each(&[
        (&["train", "--epoch", "3"], &["--epoch:", "did you mean --epochs?"]),
        (&["train", "--zzz=3"], &["--zzz", "unknown flag"]),
        (&["train", "surplus"], &["surplus", "not expected"]),
        (&["train", "-lr", "3"], &["-l", "unknown flag"]),
        (&["train", "--lr"], &["--lr", "value is missing", "a number from 1e-30 to 1e30"]),
        (&["train", "--gpu"], &["--gpu", "value is missing"]),
        (&["train", "--lr", "--cosine"], &["--lr --cosine", "a number from 1e-30 to 1e30"]),
        (&["train", "--lr", "abc"], &["--lr abc", "must be a number from 1e-30 to 1e30"]),
        (&["train", "--lr", "0"], &["--lr 0", "from 1e-30 to 1e30"]),
        (&["train", "--lr", "-inf"], &["--lr -inf"]),
        (&["train", "--lr", "nan"], &["--lr NaN"]),
        (&["train", "--learning_rate=-1"], &["--lr -1"]),
        (&["train", "--lr", "1e999"], &["--lr inf"]),
        (&["train", "--wd", "-0.1"], &["--weight-decay -0.1", "from 0 to 1e30"]),
        (&["train", "--partial-rate", "1.5"], &["--partial-rate 1.5: must be at least 0 and below 1"]),
        (&["train", "--partial_rate", "1"], &["--partial-rate 1:"]),
        (&["train", "--imb-factor", "0"], &["--imb-factor 0", "above 0 and at most 1"]),
        (&["train", "--imb_ratio", "0.5"], &["--imb-ratio 0.5", "from 1 to 1e30"]),
        (&["train", "--imb_ratio", "100", "--imb_factor", "0.1"], &["--imb-ratio 100", "--imb-factor 0.1"]),
        (&["train", "--imb-type", "poly"], &["--imb-type poly", "exp, step, none"]),
        (&["train", "--m", "1"], &["--m 1", "below 1"]),
        (&["train", "--momentum", "1"], &["--momentum 1", "below 1"]),
        (&["train", "--alpha", "inf"], &["--alpha inf"]),
        (&["train", "--epochs", "0"], &["--epochs 0", "from 1 to"]),
        (&["train", "--epochs", "-5"], &["--epochs -5", "whole number"]),
        (&["train", "--epochs", "2.5"], &["--epochs 2.5", "whole number"]),
        (&["train", "-b", "1"], &["--batch-size 1", "from 2"]),
        (&["train", "--batch_size", "1e3"], &["--batch-size 1e3"]),
        (&["train", "--image-size", "7"], &["--image-size 7"]),
        (&["train", "--width", "0"], &["--width 0"]),
        (&["train", "--threads", "5000"], &["--threads 5000"]),
        (&["train", "--eval-every", "0"], &["--eval-every 0"]),
        (&["train", "--seed", "-1"], &["--seed -1", "whole number"]),
        (&["train", "--seed", "9223372036854775808"], &["--seed 9223372036854775808"]),
        (&["train", "--data-seed", "4294967296"], &["--data-seed 4294967296"]),
        (&["train", "-lr_decay_epochs", "1,x"], &["--lr-decay-epochs x", "whole numbers"]),
        (&["train", "-lr_decay_rate", "2"], &["--lr-decay-rate 2"]),
    ]);
}

#[test]
fn bad_words_of_train_are_one_line() {
    assert_each(&[
        (&["train", "--schedule", "linear"], &["--schedule linear", "cosine, step"]),
        (&["train", "--cosine", "--schedule", "step"], &["--cosine", "--schedule step"]),
        (&["train", "--records", "--debias", "none"], &["--records", "--debias none"]),
        (&["train", "--debias", "magic"], &["--debias magic", "none, oracle, oracle-post, records"]),
        (&["train", "--device", "tpu"], &["--device tpu", "auto, cpu, cuda, sim"]),
        (&["train", "--dataset", "imagenet"], &["--dataset imagenet", "cifar10-lt", "synthetic"]),
        (&["train", "--dataset", "folder"], &["--data-dir", "--dataset folder"]),
        (&["train", "--dataset", "csv"], &["--data-dir", "--dataset csv"]),
        (&["train", "--dataset", "voc", "--num-class", "10"], &["--num-class 10", "20"]),
        (&["train", "--arch", "vgg"], &["--arch vgg", "resnet18, resnet34, resnet50, resnet101"]),
        (&["train", "-a", "resnet152"], &["--arch resnet152", "resnet101"]),
        (
            &["train", "--method", "dino"],
            &["--method dino", "corr, proden, lw, cavl, cc, mse, exp, solar, pico"],
        ),
        (
            &["train", "--method", "solar", "--records"],
            &["--debias records", "--method solar", "none or oracle-post"],
        ),
        (&["train", "--method", "lw", "--mixup"], &["--mixup true", "--method lw", "must be false"]),
        (&["train", "--method", "cc", "--mixup"], &["--mixup true", "--method cc", "must be false"]),
        (&["train", "--method", "solar", "--lw-beta", "2"], &["--lw-beta 2", "only with --method lw"]),
        (&["train", "--lw-loss", "hinge"], &["--lw-loss hinge", "sigmoid, cross-entropy"]),
        (&["train", "--method", "solar", "--gamma", "0.1"], &["--gamma 0.1", "two numbers"]),
        (&["train", "--method", "solar", "--tau", "0"], &["--tau 0", "from 1e-30"]),
        (&["train", "--method", "solar", "--prior-from", "guess"], &["--prior-from guess", "pass, steps"]),
        (&["train", "--mixup=perhaps"], &["--mixup perhaps"]),
        (&["train", "--reverse=2"], &["--reverse 2", "true or false"]),
        (&["train", "--preset", "nothing"], &["--preset nothing", "records-cifar10", "tiny"]),
        (
            &["train", "--preset", "solar-cifar10", "--debias", "records"],
            &["--debias records", "--method solar"],
        ),
        (&["train", "--est_epochs", "3"], &["--est-epochs 3", "solar"]),
        (&["train", "--hierarchical"], &["--hierarchical", "cifar10-lt", "superclasses"]),
        (&["train", "--num_class", "100"], &["--num-class 100", "must be 10"]),
        (&["train", "--num-class", "10", "--preset", "tiny"], &["--num-class 10", "synthetic"]),
        (&["train", "--start_epoch", "7"], &["--start-epoch 7", "--resume"]),
        (&["train", "--name", "a/b"], &["--name a/b"]),
        (&["train", "--name", ".."], &["--name ..:"]),
        (&["train", "--name", "a\nb"], &["--name \"a\\nb\""]),
        (&["train", "--name", ""], &["--name \"\""]),
        (&["train", "--config", "nowhere.toml"], &["nowhere.toml", "cannot be read"]),
        (&["train", "--config", "/dev/zero"], &["/dev/zero", "device"]),
        (&["train", "--resume", "nowhere"], &["--resume nowhere", "not found"]),
        (&["train", "--resume", "/"], &["--resume /", "config.toml"]),
        (&["train", "--resume", "x", "--config", "y"], &["--config y", "--resume"]),
    ]);
}

#[test]
fn bad_usage_of_table_is_one_line() {
    assert_each(&[
        (&["table"], &["DATA"]),
        (&["table", "voc"], &["table voc", "cifar10 or cifar100"]),
        (
            &["table", "cifar10", "--methods", "corr,dino"],
            &["--methods dino", "corr, oracle, records, solar"],
        ),
        (&["table", "cifar10", "--methods", "corr,corr"], &["--methods", "corr is given twice"]),
        (&["table", "cifar10", "--q", "0.3,1"], &["--q 1", "below 1"]),
        (&["table", "cifar10", "--q", "x"], &["--q x", "numbers of at least 1e-30"]),
        (&["table", "cifar10", "--rho", "0.5"], &["--rho 0.5", "from 1 to 1e30"]),
        (&["table", "cifar10", "--rho", "inf"], &["--rho inf"]),
        (&["table", "cifar10", "--seeds", "1,2,1"], &["--seeds", "1 is given twice"]),
        (&["table", "cifar10", "--seeds", "-1"], &["--seeds -1", "whole numbers"]),
        (&["table", "cifar10", "--format", "pdf"], &["--format pdf", "markdown or csv"]),
        (&["table", "cifar10", "--show", "mean"], &["--show mean", "best or last"]),
        (&["table", "cifar10", "--report", "--slurm"], &["--report", "--slurm"]),
        (&["table", "cifar10", "--method", "solar"], &["--method", "--methods"]),
        (&["table", "cifar10", "--debias", "records"], &["--debias", "--methods"]),
        (&["table", "cifar10", "--mixup"], &["--mixup", "--methods"]),
        (&["table", "cifar10", "--partial-rate", "0.3"], &["--partial-rate", "--q"]),
        (&["table", "cifar10", "--imb-factor", "0.01"], &["--imb-factor", "--rho"]),
        (&["table", "cifar10", "--seed", "1"], &["--seed", "--seeds"]),
        (&["table", "cifar10", "--name", "x"], &["--name", "--exp-dir"]),
        (&["table", "cifar10", "--lw-beta", "1"], &["--lw-beta", "not a row"]),
        (
            &["table", "cifar10", "--width", "9223372036854775808"],
            &["--width 9223372036854775808", "from 1 to 1024"],
        ),
        // Also settings that no row reads.
        (&["table", "cifar10", "--methods", "corr", "--alpha", "nan"], &["--alpha NaN", "from 0 to 1e30"]),
        (&["table", "cifar10", "--seeds", "18446744073709551615"], &["--seeds 18446744073709551615"]),
        (&["table", "cifar10", "--lr", "0", "--report"], &["--lr 0", "from 1e-30"]),
        (&["table", "cifar10", "--dataset", "folder", "--report"], &["--data-dir", "--dataset folder"]),
        (
            &["table", "cifar10", "--dataset", "voc", "--report"],
            &["--dataset voc", "its own imbalance", "folder"],
        ),
        (&["table", "cifar10", "--commands", "--output", "/nowhere/x"], &["/nowhere/x", "does not exist"]),
    ]);
}

#[test]
fn bad_files_are_reported_with_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let path = file.to_str().unwrap();
    let cases: &[(&[u8], &[&str])] = &[
        (b"epochs = 3\nlr = \"fast\"\n", &["run.toml:2:", "lr", "fast", "a number from 1e-30 to 1e30"]),
        (b"\n\nbatchsize = 3\n", &["run.toml:3:", "batchsize", "unknown key", "did you mean batch-size?"]),
        (b"batch_size = 3\n", &["run.toml:1:", "batch_size", "did you mean batch-size?"]),
        (b"zzzzzzzzzzz = 3\n", &["run.toml:1:", "zzzzzzzzzzz", "--help"]),
        (b"[data]\nlr = 1.0\n", &["run.toml:1:", "data", "unknown key"]),
        (b"epochs = 3\nepochs = 4\n", &["run.toml:2:", "epochs", "duplicate"]),
        (b"epochs = \n", &["run.toml:1:"]),
        (b"epochs = -1\n", &["run.toml:1:", "epochs", "-1", "whole number"]),
        (b"# q\npartial-rate = 1.5\n", &["run.toml:2:", "partial-rate = 1.5", "at least 0 and below 1"]),
        (b"lr = nan\n", &["run.toml:1:", "lr = NaN"]),
        (b"dataset = \"imagenet\"\n", &["run.toml:1:", "dataset = imagenet", "cifar10-lt"]),
        (
            b"debias = \"records\"\nmethod = \"solar\"\n",
            &["run.toml:1:", "debias = records", "--method solar"],
        ),
        (b"method = \"lw\"\ntau = 0.5\n", &["run.toml:2:", "tau = 0.5", "--method solar"]),
        (b"schedule = 1\n", &["run.toml:1:", "schedule", "cosine, step"]),
        (b"lr = 0.1\nname = \"\xff\"\n", &["run.toml", "byte 17", "UTF-8"]),
    ];
    for (text, parts) in cases {
        fs::write(&file, text).unwrap();
        let arguments = ["train", "--config", path, "--dry-run"];
        assert_one_line(&arguments, &records(arguments), parts);
    }
    let arguments = ["train", "--config", folder.path().to_str().unwrap()];
    assert_one_line(&arguments, &records(arguments), &["is a folder"]);
}

#[test]
fn a_flag_mends_a_bad_value_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    fs::write(&file, "partial-rate = 1.5\nepochs = 7\n").unwrap();
    let settings = resolved(&["--config", file.to_str().unwrap(), "--partial-rate", "0.5"]);
    assert_eq!(settings["partial-rate"].as_float(), Some(0.5));
    assert_eq!(settings["epochs"].as_integer(), Some(7));
    // Where a bad flag overrides a bad value, the flag is reported.
    let arguments = ["train", "--config", file.to_str().unwrap(), "--partial-rate", "3"];
    assert_one_line(&arguments, &records(arguments), &["--partial-rate 3:"]);
}

#[test]
fn published_commands_can_be_pasted() {
    // SPEC 10, row records-cifar10, in the spelling of the reference's command line, with all its flags.
    let pasted = resolved(&[
        "--exp_dir",
        "experiment/RECORDS",
        "--dataset",
        "cifar10_im",
        "--num_class",
        "10",
        "--dist_url",
        "tcp://localhost:10002",
        "--dist_backend",
        "nccl",
        "--multiprocessing_distributed",
        "--world_size",
        "-1",
        "--rank",
        "-1",
        "--gpu",
        "0",
        "-j",
        "32",
        "-p",
        "100",
        "--seed",
        "123",
        "--arch",
        "resnet18",
        "--lr",
        "0.01",
        "--wd",
        "1e-3",
        "--cosine",
        "--epochs",
        "800",
        "--batch_size",
        "256",
        "--partial_rate",
        "0.3",
        "--imb_factor",
        "0.01",
        "--upd_start",
        "1",
        "--records",
        "--m",
        "0.9",
        "-lr_decay_epochs",
        "700,800,900",
        "-lr_decay_rate",
        "0.1",
        "--start_epoch",
        "0",
    ]);
    let preset = resolved(&["--preset", "records-cifar10", "--exp-dir", "experiment/RECORDS"]);
    assert_eq!(pasted, preset);

    let nu = resolved(&["--dataset", "cifar100_im", "--hierarchical", "--num_class", "100"]);
    assert_eq!(nu["dataset"].as_str(), Some("cifar100-lt-nu"));
    let ratio = resolved(&["--imb_ratio", "50", "--learning_rate=0.5", "--imb_type", "step"]);
    assert_eq!(ratio["imb-factor"].as_float(), Some(0.02));
    assert_eq!(ratio["lr"].as_float(), Some(0.5));
    // Underscores in values stay, and the last of repeated flags counts.
    let kept = resolved(&["--name", "a_b", "--exp_dir=my_runs", "--epochs", "3", "--epochs", "4"]);
    assert_eq!((kept["name"].as_str(), kept["exp-dir"].as_str()), (Some("a_b"), Some("my_runs")));
    assert_eq!(kept["epochs"].as_integer(), Some(4));
}

#[test]
fn flags_without_effect_are_reported_in_one_line() {
    let output = records(["train", "--dry-run", "--workers", "4", "--gpu=0", "--dist_url", "tcp://x"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(err(&output), "note: without effect here: --workers, --dist-url, --gpu\n");
    assert_eq!(err(&records(["train", "--dry-run"])), "");
}

/// With MPI, tests/world.rs has what there is to say.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_says_how_to_build_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command
        .args(["train", "--preset=tiny"])
        .envs([("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")]);
    let parts = ["one of 2 processes that mpirun has started", "built without MPI", "--features mpi"];
    assert_one_line(&["train"], &command.output().unwrap(), &parts);
}

#[test]
fn help_gives_units_defaults_and_what_is_allowed() {
    let output = records(["train", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let help = out(&output);
    for heading in ["Data:", "Network:", "Method:", "Optimisation:", "Run:"] {
        assert!(help.contains(heading), "{heading}");
    }
    for unit in ["in pixels", "in epochs", "Samples per step", "CPU threads"] {
        assert!(help.contains(unit), "{unit}");
    }
    // Every default is in the help of its flag, which extends from the line that begins with the flag to the
    // next line that begins with one.
    let mut entries: Vec<String> = Vec::new();
    for line in help.lines() {
        match entries.last_mut() {
            Some(entry) if !line.trim_start().starts_with('-') => entry.push_str(line),
            _ => entries.push(line.to_string()),
        }
    }
    for (name, value) in resolved(&[]) {
        let value = match value {
            toml::Value::String(word) => word,
            toml::Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        };
        let flag = format!("--{name}");
        let first_flag =
            |entry: &&String| entry.split([' ', '[']).find(|word| word.starts_with("--")) == Some(&flag);
        let entry = entries.iter().find(first_flag).unwrap_or_else(|| panic!("{flag} is not in the help"));
        assert!(entry.contains(&format!("[default: {value}]")), "{flag}: {value} is not in {entry}");
    }
    assert!(help.contains("(at least 0 and below 1) [default: 0.1]"));

    let version = records(["--version"]);
    assert_eq!(out(&version), format!("records {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(records(["help"]).status.code(), Some(0));
}

#[test]
fn presets_are_listed() {
    let output = records(["train", "--list-presets"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    let row =
        |name: &str| text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_string();
    for part in ["cifar100-lt-nu", "0.03", "0.01", "CORR+RECORDS"] {
        assert!(row("records-cifar100-nu").contains(part), "{part}");
    }
    assert!(
        row("solar-cifar100").contains("SoLar")
            && row("records-mixup-cifar10").contains("CORR+RECORDS+mixup")
    );
    assert!(!text.contains("not there yet"), "every preset can be run");
}

#[test]
fn a_run_is_resumed_with_its_own_settings() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("first");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("checkpoint-0003.safetensors"), b"").unwrap();
    let written = records(["train", "--preset", "tiny", "--lr", "0.125", "--dry-run"]);
    fs::write(run.join("config.toml"), &written.stdout).unwrap();
    for path in [run.clone(), run.join("checkpoint-0003.safetensors")] {
        let settings = resolved(&["--resume", path.to_str().unwrap(), "--epochs", "9"]);
        assert_eq!(settings["lr"].as_float(), Some(0.125));
        assert_eq!(settings["dataset"].as_str(), Some("synthetic"));
        assert_eq!(settings["epochs"].as_integer(), Some(9));
    }
}

#[test]
fn a_closed_pipe_is_no_failure_but_a_full_disk_is() {
    for arguments in
        [&["train", "--help"][..], &["train", "--list-presets"], &["train", "--dry-run"], &["doctor"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        let output = command.args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()), "{arguments:?}");
    }
    if let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        let output =
            command.args(["train", "--dry-run"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).starts_with("error: cannot write to standard output"), "{}", err(&output));
    }
}

/// Threads of a process that may use one processor: what the doctor says, what a device starts, and what
/// `--threads` asks for.
#[cfg(target_os = "linux")]
#[test]
fn processors_that_are_not_allowed_get_no_threads() {
    use std::os::unix::process::CommandExt;

    let on_one_processor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        // SAFETY: between fork and exec only two system calls are made, on memory of this frame.
        unsafe {
            command.args(arguments).pre_exec(|| {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::sched_getaffinity(0, size_of_val(&set), &mut set);
                let first =
                    (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap_or(0);
                libc::CPU_ZERO(&mut set);
                libc::CPU_SET(first, &mut set);
                match libc::sched_setaffinity(0, size_of_val(&set), &set) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        command.output().unwrap()
    };
    let doctor = out(&on_one_processor(&["doctor"]));
    assert!(doctor.contains("1 threads for --threads 0"), "{doctor}");
    let bench = |threads| {
        let step = ["bench", "step", "--device", "cpu", "--width", "1", "--batch-size", "2", "--steps", "1"];
        out(&on_one_processor(&[&step[..], &["--threads", threads]].concat()))
    };
    assert!(bench("0").contains("cpu: 1 threads"), "{}", bench("0"));
    assert!(bench("3").contains("cpu: 3 threads"), "{}", bench("3"));
}

#[test]
fn doctor_runs_where_nothing_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_records"))
        .arg("doctor")
        .env_clear()
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
    let text = out(&output);
    for item in [
        "records ",
        "device ",
        "CPU ",
        "cores ",
        "SIMD ",
        "memory ",
        "NVIDIA driver ",
        "NVRTC ",
        "data ",
        "runs ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(item)), "{item} is not in\n{text}");
    }
    assert!(text.contains(env!("CARGO_PKG_VERSION")));
    assert!(text.contains("none in data"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "doctor leaves nothing behind");

    let nowhere = records(["doctor", "--data-dir", "/nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(0));
    let odd = Command::new(env!("CARGO_BIN_EXE_records"))
        .arg("doctor")
        .env("RECORDS_NVRTC", "/dev/null")
        .env("CUDA_HOME", "/dev/null")
        .env("VIRTUAL_ENV", "\n")
        .output()
        .unwrap();
    assert_eq!((odd.status.code(), err(&odd)), (Some(0), String::new()));
}

/// A stand-in for the NVIDIA driver and NVRTC: two GPUs, CUDA 12.8, NVRTC 12.9.
#[cfg(target_os = "linux")]
const STAND_IN: &str = r#"
use std::ffi::{c_char, c_int, c_uint};
#[unsafe(no_mangle)] pub extern "C" fn cuInit(_: c_uint) -> c_int {
    std::env::var("STAND_IN_ERROR").map_or(0, |code| code.parse().unwrap())
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuGetErrorName(_: c_int, text: *mut *const c_char) -> c_int {
    unsafe { *text = c"CUDA_ERROR_STAND_IN".as_ptr() }; 0
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDriverGetVersion(v: *mut c_int) -> c_int { unsafe { *v = 12080 }; 0 }
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDeviceGetCount(n: *mut c_int) -> c_int { unsafe { *n = 2 }; 0 }
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDeviceGet(d: *mut c_int, i: c_int) -> c_int { unsafe { *d = 40 + i }; 0 }
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, length: c_int, d: c_int) -> c_int {
    let name = if d == 41 { "Stand-in B\n\0" } else { "Stand-in A\0" };
    assert!(name.len() <= length as usize);
    for (i, byte) in name.bytes().enumerate() { unsafe { *text.add(i) = byte as c_char } }
    0
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> c_int {
    unsafe { *bytes = 80 << 30 }; 0
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn cuDeviceGetAttribute(v: *mut c_int, what: c_int, _: c_int) -> c_int {
    unsafe { *v = match what { 16 => 132, 75 => 9, 76 => 0, _ => return 1 } }; 0
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> c_int {
    unsafe { *major = 12; *minor = 9 }; 0
}
"#;

#[cfg(target_os = "linux")]
fn stand_in(folder: &Path) {
    let source = folder.join("stand_in.rs");
    fs::write(&source, STAND_IN).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .arg(folder.join("libcuda.so.1"))
        .arg(&source)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", err(&built));
}

#[cfg(target_os = "linux")]
#[test]
fn doctor_shows_driver_gpus_and_compiler() {
    let folder = tempfile::tempdir().unwrap();
    stand_in(folder.path());
    let wheel = folder.path().join("env/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib");
    fs::create_dir_all(&wheel).unwrap();
    fs::copy(folder.path().join("libcuda.so.1"), wheel.join("libnvrtc.so.12")).unwrap();
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        command.arg("doctor").env_clear().env("LD_LIBRARY_PATH", folder.path());
        command.env("VIRTUAL_ENV", folder.path().join("env"));
        command
    };
    let text = out(&doctor().output().unwrap());
    for part in [
        "found, serves CUDA up to 12.8",
        "Stand-in A, sm_90, 132 multiprocessors, 80.0 GiB",
        "Stand-in B\\n, sm_90",
        "GPU 1",
        "12.9, ",
        "libnvrtc.so.12 (by Python package); libnvrtc-builtins is missing",
        "takes cpu: NVRTC",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    fs::write(wheel.join("libnvrtc-builtins.so.12.9"), b"").unwrap();
    assert!(!out(&doctor().output().unwrap()).contains("builtins"));

    let failed = doctor().env("STAND_IN_ERROR", "999").output().unwrap();
    assert_eq!(failed.status.code(), Some(0));
    assert!(out(&failed).contains("cuInit failed with CUDA_ERROR_STAND_IN (999)"), "{}", out(&failed));
}

/// Every command is in the completions, and has a manual page with its flags.
#[test]
fn completions_and_manual_pages_follow_the_commands() {
    let help = out(&records(["--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"predict") && commands.len() > 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&records(["completions", shell]));
        for name in commands.iter().chain(&["top-k", "partial-rate"]) {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    let page = out(&records(["man"]));
    assert!(page.starts_with(".ie") || page.contains(".TH records 1"), "{page}");
    for name in &commands {
        let page = out(&records(["man", name]));
        assert!(page.contains(&format!("records-{name}").replace('-', "\\-")), "{name}: {page}");
    }
    assert!(out(&records(["man", "train"])).contains("partial\\-rate"));
    assert_each(&[
        (&["completions", "tcsh"], &["completions tcsh", "bash, zsh, fish"]),
        (&["man", "nothing"], &["man nothing", "no such command"]),
    ]);
}
