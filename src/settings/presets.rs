//! Presets, named sets of settings: the published runs (SPEC 10) and two small runs that need no data.

use super::{Debias, Method, ScheduleChoice, Settings};
use crate::declaration::{Own, Values};
use crate::pll;
use crate::pll::solar::settings::SolarSettings;

/// A named set of settings.
pub struct Preset {
    /// Name, as `--preset` takes it.
    pub name: &'static str,
    /// Its purpose, in a few words.
    pub about: &'static str,
    settings: fn() -> Settings,
}

impl Preset {
    /// All settings of the preset.
    pub fn settings(&self) -> Settings {
        (self.settings)()
    }
}

/// All presets, the published runs first.
pub const PRESETS: &[Preset] = &[
    Preset { name: "corr-cifar10", about: "published run", settings: corr_cifar10 },
    Preset { name: "records-cifar10", about: "published run", settings: records_cifar10 },
    Preset { name: "records-cifar100-nu", about: "published run", settings: records_cifar100_nu },
    Preset { name: "solar-cifar10", about: "published run", settings: solar_cifar10 },
    Preset { name: "solar-cifar100", about: "published run", settings: solar_cifar100 },
    Preset { name: "records-mixup-cifar10", about: "published run", settings: records_mixup_cifar10 },
    Preset { name: "records-cifar100", about: "row of the published table", settings: records_cifar100 },
    Preset { name: "quick", about: "minutes on a CPU, built-in images", settings: quick },
    Preset { name: "tiny", about: "seconds, built-in images, learns nothing", settings: tiny },
];

/// The preset called `name`.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The settings that all published runs share.
fn published() -> Settings {
    Settings {
        lr: 0.01,
        weight_decay: 1e-3,
        schedule: ScheduleChoice::Cosine,
        seed: 123,
        ..Settings::default()
    }
}

fn corr_cifar10() -> Settings {
    Settings { dataset: "cifar10-lt".into(), partial_rate: 0.3, imb_factor: 0.01, ..published() }
}

fn records_cifar10() -> Settings {
    Settings { debias: Debias::Records, ..corr_cifar10() }
}

fn records_mixup_cifar10() -> Settings {
    Settings { mixup: true, alpha: 1.0, ..records_cifar10() }
}

fn records_cifar100() -> Settings {
    Settings { dataset: "cifar100-lt".into(), partial_rate: 0.03, ..records_cifar10() }
}

fn records_cifar100_nu() -> Settings {
    Settings { dataset: "cifar100-lt-nu".into(), ..records_cifar100() }
}

/// The own settings of SoLar's published runs.
fn solar(dataset: &str) -> Values {
    let SolarSettings { estimation_epochs, rho, gamma, .. } = SolarSettings::defaults(dataset);
    Values::default().with("est-epochs", estimation_epochs).with("rho-range", rho).with("gamma", gamma)
}

fn solar_cifar10() -> Settings {
    Settings {
        method: Method(&pll::solar::ENTRY),
        // The published runs mix the chosen samples (SPEC 7, step 6).
        mixup: true,
        own: solar("cifar10-lt"),
        ..corr_cifar10()
    }
}

fn solar_cifar100() -> Settings {
    Settings {
        dataset: "cifar100-lt".into(),
        partial_rate: 0.03,
        own: solar("cifar100-lt"),
        ..solar_cifar10()
    }
}

fn quick() -> Settings {
    Settings {
        dataset: "synthetic".into(),
        imb_factor: 0.02,
        partial_rate: 0.3,
        width: 8,
        debias: Debias::Records,
        epochs: 12,
        batch_size: 64,
        lr: 0.05,
        ..published()
    }
}

fn tiny() -> Settings {
    Settings {
        synthetic_train_per_class: 20,
        synthetic_test_per_class: 10,
        // The largest class has 20 images, the smallest 2.
        imb_factor: 0.1,
        epochs: 2,
        batch_size: 16,
        ..quick()
    }
}
