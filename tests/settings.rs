//! Settings: which place overrides which, the presets against SPEC 10, TOML written and read back, and that
//! all numbers are checked.

use std::ffi::OsString;
use std::fs;

use proptest::prelude::*;
use records::cli::Command;
use records::cli::parse::{Parsed, parse};
use records::cli::train::resolve;
use records::declaration::{Group, Values};
use records::error::UsageError;
use records::nn::registry;
use records::pll::solar::settings::PriorFrom;
use records::settings::choices::network_names;
use records::settings::presets::{self, PRESETS};
use records::settings::{
    Debias, GivenSettings, Method, ScheduleChoice, Settings, allowed, config_toml, document, flags,
};
use records::train::grid::{Benchmark, Column, Grid, ROWS};

/// What `records train ARGUMENTS` resolves to.
fn settings_of<A: Into<OsString> + Clone>(arguments: &[A]) -> anyhow::Result<Settings> {
    let start = ["records", "train"].map(OsString::from);
    let argv = start.into_iter().chain(arguments.iter().cloned().map(Into::into));
    match parse(argv)? {
        Parsed::Command(Command::Train(arguments)) => resolve(&arguments),
        other => panic!("not a command to train: {other:?}"),
    }
}

#[test]
fn defaults_are_the_references() {
    let settings = settings_of::<&str>(&[]).unwrap();
    assert_eq!(settings, Settings::default());
    // SPEC 5.
    assert_eq!((settings.lr, settings.weight_decay, settings.momentum), (0.02, 1e-5, 0.9));
    assert_eq!((settings.epochs, settings.batch_size, settings.upd_start), (800, 256, 1));
    assert_eq!(
        (settings.partial_rate, settings.imb_factor, settings.m, settings.alpha),
        (0.1, 0.01, 0.9, 1.0)
    );
    assert_eq!(
        (settings.schedule, settings.debias, settings.mixup),
        (ScheduleChoice::Step, Debias::None, false)
    );
    assert_eq!((settings.lr_decay_epochs, settings.lr_decay_rate), (vec![700, 800, 900], 0.1));
    assert_eq!((settings.data_seed, settings.width, settings.image_size), (0, 64, 32));
}

#[test]
fn flags_beat_file_beats_preset_beats_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, "lr = 1\nbatch-size = 33\ndataset = \"cifar100_im\"\nseed = 7\n").unwrap();
    let file = path.to_str().unwrap();
    let preset = presets::find("records-cifar10").unwrap().settings();

    let all = settings_of(&["--batch-size", "44", "--config", file, "--preset", "records-cifar10"]).unwrap();
    let expected = Settings {
        batch_size: 44, // flag over file
        lr: 1.0,        // file over preset; a whole number is a number
        dataset: "cifar100-lt".into(),
        seed: 7,
        ..preset.clone() // preset over defaults
    };
    assert_eq!(all, expected);
    assert_ne!(preset.weight_decay, Settings::default().weight_decay, "else the preset shows nothing");
    // A flag with the default value overrides a file with another value.
    assert_eq!(settings_of(&["--seed", "123", "--config", file]).unwrap().seed, 123);
    assert_eq!(settings_of(&["--config", file]).unwrap().seed, 7);
    // A switch can be turned off again.
    assert!(!settings_of(&["--preset", "records-mixup-cifar10", "--mixup=false"]).unwrap().mixup);
    assert_eq!(
        settings_of(&["--preset", "records-cifar10", "--debias", "none"]).unwrap().debias,
        Debias::None
    );
}

/// A data set whose images have another size brings its size; a size that is given with it or later wins.
#[test]
fn voc_brings_its_image_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, "dataset = \"voc\"\n").unwrap();
    let file = path.to_str().unwrap();
    for (arguments, size) in [
        (&["--dataset", "voc"][..], 128),
        (&["--dataset", "voc", "--image-size", "64"], 64),
        (&["--image-size", "64", "--dataset", "voc"], 64),
        (&["--config", file], 128),
        (&["--config", file, "--image-size", "32"], 32),
        (&["--config", file, "--dataset", "voc"], 128),
        (&["--config", file, "--dataset", "cifar10-lt"], 32),
        (&["--preset", "records-cifar10", "--dataset", "voc"], 128),
        (&["--dataset", "csv", "--data-dir", "x"], 32),
    ] {
        assert_eq!(settings_of(arguments).unwrap().image_size, size, "{arguments:?}");
    }
    fs::write(&path, "image-size = 64\ndataset = \"voc\"\n").unwrap();
    assert_eq!(settings_of(&["--config", file, "--dataset", "voc"]).unwrap().image_size, 64);
}

/// A user's own folders keep all images unless a flag, a file or a preset asks for a subset.
#[test]
fn folders_keep_all_images_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let folder = file("folder.toml", "dataset = \"folder\"\ndata-dir = \"d\"\n");
    let subset = file("subset.toml", "dataset = \"folder\"\ndata-dir = \"d\"\nimb-factor = 0.05\n");
    let cifar = file("cifar.toml", "dataset = \"cifar10-lt\"\ndata-dir = \"d\"\n");
    let plain = ["--dataset", "folder", "--data-dir", "d"];
    for (arguments, expected) in [
        (&plain[..], 1.0),
        (&["--config", &folder], 1.0),
        (&["--config", &subset], 0.05),
        (&["--config", &cifar], 0.01),
        (&["--config", &cifar, "--dataset", "folder"], 1.0),
        (&["--config", &folder, "--dataset", "cifar10_im"], 0.01),
        (&["--config", &folder, "--imb-factor", "0.01"], 0.01),
        (&["--config", &folder, "--imb-ratio", "50"], 0.02),
        (&["--preset", "quick", "--dataset", "folder", "--data-dir", "d"], 0.02),
        (&["--preset", "records-cifar10", "--config", &folder], 0.01),
    ] {
        let settings = settings_of(arguments).unwrap();
        assert_eq!(settings.imb_factor, expected, "{arguments:?}");
        // config.toml and the command line of a run reproduce its settings.
        let config = file("again.toml", &config_toml(&settings).unwrap());
        assert_eq!(settings_of(&["--config", &config]).unwrap(), settings);
        assert_eq!(settings_of(&flags(&settings).unwrap()).unwrap(), settings, "{arguments:?}");
    }
}

#[test]
fn every_flag_reaches_its_setting() {
    // One value for each flag, different from the default; the resulting TOML must contain exactly these.
    let common = [
        ("dataset", "synthetic"),
        ("data-dir", "\"somewhere\""),
        ("imb-factor", "0.25"),
        ("imb-type", "step"),
        ("reverse", "true"),
        ("partial-rate", "0.75"),
        ("data-seed", "5"),
        ("image-size", "64"),
        ("skip-unreadable", "true"),
        ("synthetic-train-per-class", "40"),
        ("synthetic-test-per-class", "30"),
        ("arch", "resnet50"),
        ("width", "16"),
        ("debias", "records"),
        ("m", "0.5"),
        ("mixup", "true"),
        ("alpha", "2.5"),
        ("upd-start", "3"),
        ("epochs", "9"),
        ("batch-size", "10"),
        ("lr", "0.5"),
        ("momentum", "0.25"),
        ("optimizer", "adamw"),
        ("beta2", "0.75"),
        ("weight-decay", "0.125"),
        ("schedule", "cosine"),
        ("lr-decay-epochs", "[1, 2]"),
        ("lr-decay-rate", "0.5"),
        ("seed", "77"),
        ("device", "cpu"),
        ("precision", "f32"),
        ("threads", "2"),
        ("exp-dir", "elsewhere"),
        ("name", "\"mine\""),
        ("checkpoint-every", "4"),
        ("eval-every", "6"),
        ("on-divergence", "rollback"),
        ("batchnorm", "local"),
    ];
    // Flags that go with one method only, and the method.
    let lw = [("method", "lw"), ("lw-loss", "cross-entropy"), ("lw-beta", "2.0")];
    let solar = [
        ("method", "solar"),
        ("est-epochs", "3"),
        ("rho-range", "[0.25, 0.75]"),
        ("gamma", "[0.5, 0.25]"),
        ("queue-length", "8"),
        ("lamd", "2.5"),
        ("eta", "0.75"),
        ("tau", "0.5"),
        ("warmup-epoch", "7"),
        ("prior-from", "steps"),
    ];
    let pico = [
        ("method", "pico"),
        ("moco-queue", "64"),
        ("moco-m", "0.5"),
        ("proto-m", "0.75"),
        ("conf-ema-range", "[0.75, 0.5]"),
        ("loss-weight", "0.25"),
        ("low-dim", "32"),
        ("temperature", "0.125"),
    ];
    let passes = [&common[..], &lw, &solar, &pico];
    let mut names: Vec<&str> = passes.iter().flat_map(|pass| pass.iter().map(|(name, _)| *name)).collect();
    let mut all = GivenSettings::names();
    names.sort_unstable();
    names.dedup();
    all.sort_unstable();
    assert_eq!(names, all, "this test must give every flag");

    let flag_value = |value: &str| value.replace(['[', ']', '"', ' '], "");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for values in passes {
        let flags: Vec<String> =
            values.iter().map(|(name, value)| format!("--{name}={}", flag_value(value))).collect();
        let settings = settings_of(&flags).unwrap();
        let table: toml::Table = config_toml(&settings).unwrap().parse().unwrap();
        let defaults = toml::Table::try_from(Settings::default()).unwrap();
        for (name, value) in values {
            let found = &table[*name];
            assert_ne!(Some(found), defaults.get(*name), "--{name}: give another value than the default");
            assert_eq!(found.to_string().replace('"', ""), value.replace('"', ""), "--{name}");
        }
        // The same through a file.
        fs::write(&path, config_toml(&settings).unwrap()).unwrap();
        assert_eq!(settings_of(&["--config", path.to_str().unwrap()]).unwrap(), settings);
    }
}

/// The method of a word.
fn method(word: &str) -> Method {
    Method::from_word(word).unwrap()
}

#[test]
fn presets_are_those_of_the_paper() {
    // SPEC 10: name, data, q, mu, method, debias, mixup, SoLar's est, rho and gamma.
    type SolarValues = (usize, [f64; 2], [f64; 2]);
    type Row = (&'static str, &'static str, f64, Method, Debias, bool, Option<SolarValues>);
    use Debias::{None as Plain, Records};
    let [corr, solar_method] = ["corr", "solar"].map(method);
    let rows: [Row; 7] = [
        ("corr-cifar10", "cifar10-lt", 0.3, corr, Plain, false, None),
        ("records-cifar10", "cifar10-lt", 0.3, corr, Records, false, None),
        ("records-cifar100-nu", "cifar100-lt-nu", 0.03, corr, Records, false, None),
        ("solar-cifar10", "cifar10-lt", 0.3, solar_method, Plain, true, Some((100, [0.2, 0.6], [0.1, 0.01]))),
        (
            "solar-cifar100",
            "cifar100-lt",
            0.03,
            solar_method,
            Plain,
            true,
            Some((20, [0.2, 0.5], [0.05, 0.01])),
        ),
        ("records-mixup-cifar10", "cifar10-lt", 0.3, corr, Records, true, None),
        ("records-cifar100", "cifar100-lt", 0.03, corr, Records, false, None),
    ];
    for (name, dataset, q, method, debias, mixup, solar) in rows {
        let expected = Settings {
            dataset: dataset.into(),
            partial_rate: q,
            imb_factor: 0.01,
            method,
            debias,
            mixup,
            lr: 0.01,
            weight_decay: 1e-3,
            schedule: ScheduleChoice::Cosine,
            epochs: 800,
            seed: 123,
            upd_start: 1,
            own: Values::default()
                .with("est-epochs", solar.map(|(est, _, _)| est))
                .with("rho-range", solar.map(|(_, rho, _)| rho))
                .with("gamma", solar.map(|(_, _, gamma)| gamma)),
            ..Settings::default()
        };
        assert_eq!(presets::find(name).unwrap().settings(), expected, "{name}");
        assert_eq!(settings_of(&["--preset", name]).unwrap(), expected, "{name}");
    }
    for name in ["quick", "tiny"] {
        let settings = settings_of(&["--preset", name]).unwrap();
        assert_eq!((settings.dataset.as_str(), settings.debias), ("synthetic", Records), "{name}");
    }
    assert_eq!(PRESETS.len(), rows.len() + 2, "a new preset needs a row here");
}

/// Settings accept all networks, and each can be created.
#[test]
fn every_network_can_be_chosen() {
    for arch in network_names() {
        let settings = settings_of(&["--arch", arch]).unwrap();
        assert_eq!(registry::find(&settings.arch).unwrap()(settings.width, 10).name(), arch);
        assert!(allowed("arch").unwrap().contains(arch), "the help names it");
    }
}

/// SoLar mixes; LW and CAVL update from the first epoch. Setting the same method again brings nothing, so
/// that a run's own configuration stays as it is.
#[test]
fn a_chosen_method_brings_its_mixup_and_first_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, "method = \"solar\"\nmixup = false\nupd-start = 5\n").unwrap();
    let file = path.to_str().unwrap();
    for (arguments, mixup, upd_start) in [
        (&["--method", "corr"][..], false, 1),
        (&["--method", "proden"], false, 1),
        (&["--method", "lw"], false, 0),
        (&["--method", "cavl"], false, 0),
        (&["--method", "cc"], false, 1),
        (&["--method", "mse"], false, 1),
        (&["--method", "exp"], false, 1),
        (&["--method", "solar"], true, 1),
        // Given values win, before or after the method.
        (&["--method", "solar", "--mixup=false"], false, 1),
        (&["--mixup=false", "--method", "solar"], false, 1),
        (&["--method", "cavl", "--upd-start", "4", "--mixup"], true, 4),
        // The method overrides a preset; a file's other settings override its method.
        (&["--preset", "records-mixup-cifar10", "--method", "proden"], false, 1),
        (&["--preset", "records-mixup-cifar10", "--method", "corr"], true, 1),
        (&["--config", file], false, 5),
        (&["--config", file, "--method", "solar"], false, 5),
        (&["--config", file, "--method", "lw"], false, 0),
    ] {
        let settings = settings_of(arguments).unwrap();
        assert_eq!((settings.mixup, settings.upd_start), (mixup, upd_start), "{arguments:?}");
    }
}

/// Every method with every debias, mixed or not: exactly the combinations without a meaning are refused.
#[test]
fn methods_debias_and_mixup_combine_but_for_a_few() {
    use Debias::{Oracle, OraclePost, Records};
    for method in ["corr", "proden", "lw", "cavl", "cc", "mse", "exp", "solar", "pico"] {
        for debias in ["none", "oracle", "oracle-post", "records"] {
            for mixup in ["--mixup=false", "--mixup=true"] {
                let resolved = settings_of(&["--method", method, "--debias", debias, mixup]);
                let mixed = mixup.ends_with("true");
                let refused = match (method, debias) {
                    ("solar", "oracle" | "records") => {
                        Some(format!("--debias {debias}: does not go with --method solar"))
                    }
                    ("lw" | "cc" | "mse" | "exp" | "pico", _) if mixed => {
                        Some(format!("--mixup true: does not go with --method {method}"))
                    }
                    _ => None,
                };
                match (resolved, refused) {
                    (Ok(settings), None) => {
                        assert_eq!((settings.method.word(), settings.debias.word()), (method, debias));
                        assert_eq!(settings.mixup, mixed);
                    }
                    (Err(error), Some(start)) => assert!(error.to_string().starts_with(&start), "{error}"),
                    (Ok(_), Some(start)) => panic!("not refused: {start}"),
                    (Err(error), None) => panic!("{error}"),
                }
            }
        }
    }
    let title =
        |method, debias, mixup| Settings { method, debias, mixup, ..Settings::default() }.method_title();
    assert_eq!(title(method("corr"), Records, true), "CORR+RECORDS+mixup");
    assert_eq!(title(method("corr"), Oracle, false), "CORR+Oracle-LA");
    assert_eq!(title(method("proden"), OraclePost, false), "PRODEN+Oracle-LA (at test)");
    assert_eq!(
        (title(method("solar"), Debias::None, true), title(method("solar"), Debias::None, false)),
        ("SoLar".into(), "SoLar without mixup".into())
    );
}

#[test]
fn toml_gives_the_same_settings_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for preset in PRESETS {
        let settings = Settings {
            name: Some("a \"quoted\" # name".into()),
            data_dir: Some("C:\\data\\ü".into()),
            lr: 0.1 + 0.2,
            seed: i64::MAX as u64,
            ..preset.settings()
        };
        let text = config_toml(&settings).unwrap();
        assert!(text.starts_with("# Settings of a run of records "));
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings, "{}", preset.name);
        fs::write(&path, &text).unwrap();
        assert_eq!(Settings::from_file(&path).unwrap(), settings, "{}", preset.name);
    }
    assert!(toml::from_str::<Settings>("surprise = 1").is_err());
}

/// The commands that `records table` prints.
#[test]
fn flags_give_the_same_settings_back() {
    let mut all: Vec<Settings> = PRESETS.iter().map(|preset| preset.settings()).collect();
    all.push(Settings::default());
    for method in ["proden", "lw", "cavl", "cc"].map(method) {
        // Other values than these methods bring.
        all.push(Settings { method, upd_start: 1, ..Settings::default() });
        all.push(Settings {
            method,
            upd_start: 0,
            lr_decay_epochs: vec![3],
            lr: 1e-20,
            ..Settings::default()
        });
    }
    all.push(Settings {
        method: method("solar"),
        name: Some("with 'quotes'".into()),
        data_dir: Some("a b/c".into()),
        own: Values::default().with("gamma", [0.1 + 0.2, 1.0]).with("prior-from", PriorFrom::Steps),
        reverse: true,
        seed: i64::MAX as u64,
        ..Settings::default()
    });
    // A data set that brings an image size.
    for image_size in [32, 128] {
        all.push(Settings { dataset: "voc".into(), image_size, ..Settings::default() });
    }
    for settings in all {
        assert_eq!(settings_of(&flags(&settings).unwrap()).unwrap(), settings);
    }
    assert!(flags(&Settings::default()).unwrap().is_empty());
}

/// Each run of a grid without flags is a published run, and flags reach the runs that read them.
#[test]
fn the_cells_of_a_table_are_the_presets() {
    let grid = |benchmark, q, given: &GivenSettings| {
        let columns = vec![Column { rho: 100.0, q }];
        Grid::new(benchmark, ROWS.to_vec(), columns, vec![123], given.clone()).unwrap()
    };
    let of = |grid: &Grid, word: &str| {
        let row = ROWS.iter().position(|row| row.word == word).unwrap();
        let settings = grid.runs().into_iter().find(|run| run.row == row).unwrap().settings;
        Settings { name: None, ..settings }
    };
    let plain = GivenSettings::default();
    let ten = grid(Benchmark::Cifar10, 0.3, &plain);
    let hundred = grid(Benchmark::Cifar100, 0.03, &plain);
    for (grid, word, preset) in [
        (&ten, "corr", "corr-cifar10"),
        (&ten, "records", "records-cifar10"),
        (&ten, "solar", "solar-cifar10"),
        (&ten, "records-mixup", "records-mixup-cifar10"),
        (&hundred, "records", "records-cifar100"),
        (&hundred, "solar", "solar-cifar100"),
    ] {
        assert_eq!(of(grid, word), presets::find(preset).unwrap().settings(), "{preset}");
    }
    let oracle = Settings { debias: Debias::Oracle, ..presets::find("corr-cifar10").unwrap().settings() };
    assert_eq!(of(&ten, "oracle"), oracle);

    let own = Values::default()
        .with("est-epochs", 4_usize)
        .with("rho-range", [0.1, 0.2])
        .with("gamma", [0.3, 0.4])
        .with("queue-length", 5_usize)
        .with("lamd", 6.0)
        .with("eta", 0.8)
        .with("tau", 0.7)
        .with("warmup-epoch", 9_usize)
        .with("prior-from", PriorFrom::Steps);
    let mut given =
        plain.with("epochs", 7_usize).with("upd-start", 3_usize).with("alpha", 2.0).with("m", 0.5);
    for (name, value) in own.iter() {
        given.values.set(name, Some(value.clone()));
    }
    let ten = grid(Benchmark::Cifar10, 0.3, &given);
    ten.validate().unwrap();
    let preset = |name: &str| Settings { epochs: 7, ..presets::find(name).unwrap().settings() };
    assert_eq!(of(&ten, "corr"), Settings { upd_start: 3, ..preset("corr-cifar10") });
    assert_eq!(of(&ten, "records"), Settings { upd_start: 3, m: 0.5, ..preset("records-cifar10") });
    assert_eq!(
        of(&ten, "records-mixup"),
        Settings { upd_start: 3, m: 0.5, alpha: 2.0, ..preset("records-mixup-cifar10") }
    );
    let solar = Settings { own, ..preset("solar-cifar10") };
    assert_eq!(of(&ten, "solar"), solar);
    // Five runs, five folders.
    let mut names: Vec<String> = ten.runs().iter().map(|run| run.name().to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5);
}

#[test]
fn validate_names_flag_value_and_what_is_allowed() {
    let error = Settings { partial_rate: 1.5, ..Settings::default() }.validate().unwrap_err();
    assert_eq!(error.to_string(), "--partial-rate 1.5: must be at least 0 and below 1");
    let settings = Settings { lr: f64::NAN, m: -1.0, epochs: 0, ..Settings::default() };
    let found: Vec<&str> = settings.problems().iter().map(|problem| problem.name).collect();
    assert_eq!(found, ["m", "epochs", "lr"]);
    for name in GivenSettings::names() {
        assert!(allowed(&name).is_some(), "--{name} does not say what is allowed");
    }
}

/// Names of settings are unique, also among the settings of different methods.
#[test]
fn names_are_unique() {
    let mut names = GivenSettings::names();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

/// Every declaration accepts its default, and no value of another type.
#[test]
fn defaults_are_allowed() {
    for method in Method::all() {
        let settings = Settings { method, ..Settings::default() }.computation();
        assert_eq!(settings.out_of_range(), [], "{method}");
        assert_eq!(settings.problems(), [], "{method}");
    }
}

/// A value of another type, or of an unknown setting, is reported when values override settings.
#[test]
fn what_a_setting_cannot_hold_is_told() {
    for (given, problem) in [
        (GivenSettings::default().with("width", 2.0), "--width 2: must be a whole number from 1 to 1024"),
        (
            GivenSettings::default().with("debias", "magic".to_string()),
            "--debias magic: must be one of none, oracle",
        ),
        (
            GivenSettings::default().with("prior-from", "guess".to_string()),
            "--prior-from guess: must be one of pass",
        ),
        (GivenSettings::default().with("widht", 2_usize), "--widht 2: there is no such setting"),
    ] {
        let error = given.apply(&mut Settings::default()).unwrap_err().to_string();
        assert!(error.starts_with(problem), "{error}");
    }
}

/// The documented tables are those of the declarations.
#[test]
fn documentation_is_of_the_declarations() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    if std::env::var_os("RECORDS_WRITE_DOCS").is_some() {
        fs::write(path, document()).unwrap();
    }
    let remedy = "write it anew: RECORDS_WRITE_DOCS=1 cargo test --test settings documentation";
    assert!(fs::read_to_string(path).unwrap_or_default() == document(), "{path} is not up to date; {remedy}");
}

const NUMBERS: [&str; 24] = [
    "imb-factor",
    "imb-ratio",
    "partial-rate",
    "m",
    "alpha",
    "lr",
    "momentum",
    "weight-decay",
    "lr-decay-rate",
    "lr-decay-epochs",
    "data-seed",
    "image-size",
    "synthetic-train-per-class",
    "synthetic-test-per-class",
    "width",
    "upd-start",
    "epochs",
    "batch-size",
    "seed",
    "threads",
    "checkpoint-every",
    "eval-every",
    "est-epochs",
    "num-class",
];

fn any_number() -> impl Strategy<Value = f64> {
    let chosen = vec![0.0, -0.0, 1.0, 2.0, 10.0, 1e-320, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    prop_oneof![any::<f64>(), 0.0..1.0, (0u32..400).prop_map(f64::from), prop::sample::select(chosen)]
}

proptest! {
    // A failing case is printed whole, so no file of old failures is kept.
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any number for any numeric flag gives checked, finite settings, or a usage error of one line that
    /// names the flag.
    #[test]
    fn any_number_is_accepted_or_reported(flag in prop::sample::select(NUMBERS.to_vec()), value in any_number(), joined in any::<bool>()) {
        let flag = format!("--{flag}");
        let arguments = if joined { vec![format!("{flag}={value}")] } else { vec![flag.clone(), value.to_string()] };
        match settings_of(&arguments) {
            Ok(settings) => {
                prop_assert!(value.is_finite());
                prop_assert!(settings.problems().is_empty());
                // The accepted value is written back unchanged.
                let written = config_toml(&settings).unwrap();
                prop_assert_eq!(toml::from_str::<Settings>(&written).unwrap(), settings);
                let table: toml::Table = written.parse().unwrap();
                match table.get(&flag[2..]) {
                    Some(toml::Value::Float(found)) => prop_assert_eq!(*found, value),
                    Some(toml::Value::Integer(found)) => prop_assert_eq!(*found as f64, value),
                    _ => {}
                }
            }
            Err(error) => {
                let line = error.to_string();
                prop_assert!(error.is::<UsageError>(), "{}", line);
                prop_assert!(line.starts_with(&format!("{flag} ")), "{} does not begin with {}", line, flag);
                prop_assert!(!line.contains('\n'), "{}", line);
            }
        }
    }

    /// Any text in a settings file is accepted, or reported with the place of the error.
    #[test]
    fn any_file_is_accepted_or_reported(key in "[a-z-]{1,12}|lr|m|epochs|lr-decay-epochs|name|reverse", value in "\\PC{0,20}|[0-9.e-]{1,8}|\"[a-z]*\"|true|\\[[0-9, ]*\\]") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.toml");
        fs::write(&path, format!("{key} = {value}\n")).unwrap();
        match settings_of(&["--config", path.to_str().unwrap()]) {
            Ok(settings) => prop_assert!(settings.problems().is_empty()),
            Err(error) => {
                let line = error.to_string();
                prop_assert!(error.is::<UsageError>() && !line.contains('\n'), "{}", line);
                prop_assert!(line.contains("any.toml"), "{}", line);
            }
        }
    }
}
