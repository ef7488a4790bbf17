//! A run that is described and not begun: what `records profile` and `records tune` take.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::train::{self, TrainArguments};
use crate::profile::data::Given;
use crate::settings::{GivenSettings, Settings};
use crate::usage;

/// Samples at most: positions are counted in 32 bits.
const MOST_SAMPLES: usize = 100_000_000;

// A comment for the documentation here would become that of the commands.
#[derive(Args, Clone, Debug)]
pub struct DescribedRun {
    /// Training samples, instead of the data set's subset; needed where a data set's size is not known
    /// without reading it
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Classes, for the same
    #[arg(long, value_name = "K")]
    classes: Option<usize>,
    /// Test images, for the same
    #[arg(long, value_name = "N")]
    test_samples: Option<usize>,
    /// Start from the named settings; `records train --list-presets` shows them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Read settings from a TOML file, such as the config.toml of a run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The settings among the flags.
    #[command(flatten)]
    given: GivenSettings,
}

impl DescribedRun {
    /// The settings, and what is given of the data.
    ///
    /// # Errors
    /// A usage error for numbers of samples out of range and bad settings.
    pub fn resolve(&self) -> Result<(Settings, Given)> {
        let Self { samples, classes, test_samples, .. } = *self;
        for (flag, value, least) in [("samples", samples, 2), ("test-samples", test_samples, 0)] {
            if let Some(value) = value.filter(|value| !(least..=MOST_SAMPLES).contains(value)) {
                return Err(usage!("--{flag} {value}: must be {least} to {MOST_SAMPLES}"));
            }
        }
        let settings = train::resolve(&TrainArguments {
            preset: self.preset.clone(),
            config: self.config.clone(),
            given: self.given.clone(),
            ..TrainArguments::default()
        })?;
        Ok((settings, Given { samples, classes, test_samples }))
    }
}
