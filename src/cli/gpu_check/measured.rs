//! Timings on the GPU: steps, launch by launch beside the prediction, with tiles that are timed, and PyTorch's.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Check;
use super::programs::{End, Outcome, TilesBy, object, records};

/// Seconds that one of these may take.
const MOST: u64 = 120;

/// (batch size, width) of the timed steps: the published one (256 samples, 512 views, width 64), and smaller ones.
pub fn step_sizes(smallest: bool) -> &'static [(usize, usize)] {
    if smallest { &[(4, 8)] } else { &[(256, 64), (64, 64), (256, 16)] }
}

/// The published run, or the smallest.
fn preset(smallest: bool) -> &'static str {
    if smallest { "tiny" } else { "records-cifar10" }
}

impl Check<'_> {
    /// What `records` prints as one object; a failure named `what` otherwise.
    fn object(&mut self, what: &str, tiles: TilesBy, words: &[&str], branches: bool) -> Value {
        let printed = || -> Result<Value> {
            let mut command = records(tiles, words)?;
            if !branches {
                command.env("RECORDS_BRANCHES", "0");
            }
            object(command, &self.output(), Duration::from_secs(MOST))
        };
        printed().unwrap_or_else(|error| self.failure(what, &error))
    }

    /// A step with tiles by the model, or with those that were timed.
    fn step(
        &mut self,
        (batch_size, width): (usize, usize),
        precision: &str,
        tiles: TilesBy,
        branches: bool,
    ) -> Value {
        let what = format!("a step of {batch_size} samples at width {width} in {precision}");
        let numbers = [batch_size, width].map(|number| number.to_string());
        let steps = if self.smallest { "2" } else { "240" };
        let words =
            ["bench", "step", "--device", "cuda", "--steps", steps, "--json", "--precision", precision];
        let size = ["--batch-size", &*numbers[0], "--width", &*numbers[1]];
        self.object(&what, tiles, &[&words[..], &size].concat(), branches)
    }

    /// Steps of several sizes, then the first in f16.
    pub fn steps(&mut self) -> Vec<Value> {
        let sizes = step_sizes(self.smallest);
        let mut steps: Vec<Value> =
            sizes.iter().map(|&size| self.step(size, "bf16", TilesBy::Model, true)).collect();
        steps.push(self.step(sizes[0], "f16", TilesBy::Model, true));
        steps
    }

    /// The first step with everything in one order: what the branches of its graph gain.
    pub fn step_without_branches(&mut self) -> Value {
        self.step(step_sizes(self.smallest)[0], "bf16", TilesBy::Model, false)
    }

    /// Every launch of the published step: predicted for this GPU, and measured.
    pub fn profile(&mut self, precision: &str) -> Value {
        let words = ["profile", "--preset", preset(self.smallest), "--precision", precision];
        let words = [&words[..], &["--measured", "--format", "json"]].concat();
        self.object(&format!("the profile in {precision}"), TilesBy::Model, &words, true)
    }

    /// Times the tiles of a step, and the step again with the fastest. The kernel tests have run all of them.
    pub fn tuned(&mut self, size @ (batch_size, width): (usize, usize)) -> Value {
        let numbers = [batch_size, width].map(|number| number.to_string());
        let words = ["tune", "--preset", preset(self.smallest), "--format", "json"];
        let of_size = ["--batch-size", &*numbers[0], "--width", &*numbers[1]];
        let what = format!("tuning for {batch_size} samples at width {width}");
        let tuning = self.object(&what, TilesBy::Tuning, &[&words[..], &of_size].concat(), true);
        let step = self.step(size, "bf16", TilesBy::Tuning, true);
        json!({ "tuning": tuning, "step": step })
    }

    /// PyTorch's timings on the same GPU; null if PyTorch is missing or sees no GPU, for which its script has exit
    /// status 2.
    pub fn pytorch(&mut self, script: &Path) -> Value {
        let mut command = Command::new("python3");
        command.arg(script).args(["--batch-size", "256", "--epoch", "--json"]).stdin(Stdio::null());
        let outcome = match Outcome::of(command, &self.output(), Duration::from_secs(2 * MOST)) {
            Ok(outcome) => outcome,
            Err(error) => return self.failure("timing PyTorch", &error),
        };
        let last = outcome.log.lines().last().unwrap_or_default();
        // 2 by its script, none where there is no python3.
        if outcome.status == Some(2) || (outcome.end == End::Failed && outcome.status.is_none()) {
            super::note(&format!("no timings of PyTorch: {last}"));
            return Value::Null;
        }
        let parsed = outcome.out.lines().last().and_then(|line| serde_json::from_str(line).ok());
        match parsed.filter(|_| outcome.passed()) {
            Some(timings) => timings,
            None => self.failure("timing PyTorch", &anyhow::anyhow!("{}", outcome.why())),
        }
    }
}
