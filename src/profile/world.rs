//! What a step takes when several GPUs share it: the local step, what they exchange, and how much of that the
//! backward pass hides.
//!
//! With P parameters and N GPUs, each sends 2 (N-1)/N 4P bytes of gradients a step, in buckets that begin
//! when the backward pass has written them: the last one is always waited for, the others only as far as
//! they take longer than the backward pass. Joint batchnorm waits for two small sums a layer. The link's
//! figures are assumptions, not measurements.

use std::fmt::Write as _;

use anyhow::Result;

use super::Profile;
use super::data::Given;
use super::gpus::Gpu;
use crate::ops::division::bucket_len;
use crate::settings::Settings;
use crate::usage;

/// What connects the GPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Its word.
    pub word: &'static str,
    /// What it stands for, and where its figures are from.
    pub about: &'static str,
    /// Bytes a second that each GPU sends while it receives as many.
    pub bandwidth: f64,
    /// Seconds of the least exchange between two.
    pub latency: f64,
}

/// The links that are known. Bandwidths are three quarters of the data sheets' for one direction.
pub const LINKS: [Link; 3] = [
    Link {
        word: "nvlink",
        about: "NVLink 3 (A100): 300 GB/s one way by the data sheet",
        bandwidth: 225e9,
        latency: 5e-6,
    },
    Link {
        word: "pcie",
        about: "PCIe 4.0 x16: 32 GB/s one way by the standard",
        bandwidth: 24e9,
        latency: 10e-6,
    },
    Link {
        word: "ib",
        about: "InfiniBand HDR, one port of 200 Gb/s for each GPU",
        bandwidth: 18.75e9,
        latency: 10e-6,
    },
];

impl Link {
    /// The link called `word`.
    ///
    /// # Errors
    /// A usage error for another word.
    pub fn find(word: &str) -> Result<Self> {
        LINKS
            .into_iter()
            .find(|link| link.word == word)
            .ok_or_else(|| usage!("--link {word}: must be one of {}", LINKS.map(|link| link.word).join(", ")))
    }
}

/// A step that GPUs share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedStep {
    /// Seconds of the local step alone.
    pub local: f64,
    /// Bytes that a GPU sends for the gradients.
    pub sent: f64,
    /// Seconds that these take, hidden or not.
    pub exchange: f64,
    /// Seconds of them that the backward pass does not hide.
    pub exposed: f64,
    /// Seconds of the sums of joint batchnorm, none of them hidden.
    pub batchnorm: f64,
}

impl SharedStep {
    /// The step of `profile` as the local step of one of `processes` GPUs.
    pub fn of(profile: &Profile, processes: usize, link: Link) -> Self {
        let step = &profile.step;
        let seconds = |from: usize| -> f64 {
            step.launches[from..].iter().map(|timed| timed.predicted.time.expected + profile.gpu.gap).sum()
        };
        let backward = step.launches.iter().position(|timed| timed.part == "loss").map_or(0.0, seconds);
        let parameters = profile.plan.parameters;
        let sent = |values: usize| 2.0 * 4.0 * values as f64 * (processes - 1) as f64 / processes as f64;
        // Each of both exchanges takes as many rounds as there are doublings.
        let rounds = (processes as f64).log2().ceil();
        let takes = |values| sent(values) / link.bandwidth + 2.0 * rounds * link.latency;
        let bucket = bucket_len(parameters).min(parameters);
        let buckets = parameters.div_ceil(bucket) as f64;
        let exchange = buckets * takes(bucket);
        let hidden = (backward * (1.0 - 1.0 / buckets)).min(exchange - takes(bucket));
        let is_batchnorm = |kernel: &str| kernel.starts_with("batchnorm") && kernel.contains("finish");
        let sums =
            step.launches.iter().filter(|timed| is_batchnorm(timed.planned.launch.kernel.name)).count();
        Self {
            local: step.time.expected,
            sent: sent(parameters),
            exchange,
            exposed: exchange - hidden,
            batchnorm: sums as f64 * rounds * link.latency,
        }
    }

    /// Seconds of the step, with joint batchnorm or without.
    pub fn seconds(&self, joint: bool) -> f64 {
        self.local + self.exposed + if joint { self.batchnorm } else { 0.0 }
    }
}

/// The table for 2, 4, ... up to `most` GPUs: one batch shared, and as large a batch for each GPU.
///
/// # Errors
/// As [`Profile::new`].
pub fn table(one: &Profile, given: Given, gpu: &Gpu, most: usize, link: Link) -> Result<String> {
    let mut text = format!(
        "\nshared by several GPUs over {} ({:.0} GB/s, {:.0} us assumed); {:.1} MB of gradients\n{:>5}{:>8}{:>8}\
         {:>10}{:>9}{:>9}{:>10}{:>9}{:>12}{:>12}\n",
        link.about,
        1e-9 * link.bandwidth,
        1e6 * link.latency,
        4e-6 * one.plan.parameters as f64,
        "GPUs",
        "batch",
        "each",
        "local ms",
        "sent MB",
        "exch. ms",
        "exposed",
        "bn ms",
        "eff. joint",
        "eff. local",
    );
    let whole = one.settings.batch_size;
    let mut processes = 2;
    while processes <= most {
        for (batch, each) in [(whole, whole.div_ceil(processes)), (whole * processes, whole)] {
            let local = Profile::new(&Settings { batch_size: each, ..one.settings.clone() }, given, gpu)?;
            let step = SharedStep::of(&local, processes, link);
            let ideal = one.step.time.expected * batch as f64 / (whole * processes) as f64;
            let efficiency = |joint| format!("{:.0} %", 100.0 * ideal / step.seconds(joint));
            let _ = writeln!(
                text,
                "{processes:>5}{batch:>8}{each:>8}{:>10.2}{:>9.1}{:>9.2}{:>10.2}{:>9.2}{:>12}{:>12}",
                1e3 * step.local,
                1e-6 * step.sent,
                1e3 * step.exchange,
                1e3 * step.exposed,
                1e3 * step.batchnorm,
                efficiency(true),
                efficiency(false),
            );
        }
        processes *= 2;
    }
    Ok(text)
}
