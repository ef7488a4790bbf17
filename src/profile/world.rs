//! What a step takes when several GPUs share it: the local step, what they exchange, and how much of that the
//! backward pass hides.
//!
//! With P parameters and N GPUs, each sends 2 (N-1)/N 4P bytes of gradients a step. A bucket of b bytes, begun
//! when the backward pass has written it, is what the program does:
//!
//! | | seconds |
//! |---|---|
//! | each part to the GPU that adds it up, all at once | (N-1)/N b / bandwidth + latency |
//! | its sum: a kernel that reads N parts and writes one | (N+1)/N b / rate of memory + gap |
//! | the sums to all, in a ring where N parts are equal, else all at once | (N-1)/N b / bandwidth + (N-1 or 1) latency |
//!
//! The last bucket is always waited for, the others only as far as they take longer than the backward pass.
//! Logits and features go round a ring and are waited for. Joint batchnorm goes round a ring twice a layer, is
//! waited for, and takes a kernel more each time; since exchanges have one order, it also waits for the bucket under
//! way, so that a bucket hides no longer than behind one layer's part of the backward pass. The link's figures
//! are assumptions, not measurements.

use std::fmt::Write as _;

use anyhow::Result;

use super::data::Given;
use super::gpus::Gpu;
use super::{Profile, Timed};
use crate::ops::division::bucket_len;
use crate::settings::{Debias, Settings};
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
    /// Seconds of the logits and features, none of them hidden.
    pub rows: f64,
    /// Seconds of joint batchnorm: its sums, none of them hidden, and what it leaves of the buckets to be waited for.
    pub batchnorm: f64,
}

impl SharedStep {
    /// The step of `profile` as the local step of one of `processes` GPUs.
    pub fn of(profile: &Profile, processes: usize, link: Link) -> Self {
        let Profile { step, plan, gpu, settings, .. } = profile;
        let count = processes as f64;
        let seconds = |timed: &Timed| timed.predicted.time.expected + gpu.gap;
        let loss = step.launches.iter().position(|timed| timed.part == "loss").unwrap_or(step.launches.len());
        let backward: f64 = step.launches[loss..].iter().map(seconds).sum();
        let others = (count - 1.0) / count;
        let around = |bytes: f64| bytes / link.bandwidth + (count - 1.0) * link.latency;

        let sent = |values: usize| 2.0 * 4.0 * values as f64 * others;
        let bucket = bucket_len(plan.parameters).min(plan.parameters);
        let buckets = plan.parameters.div_ceil(bucket) as f64;
        let in_turn = if bucket.is_multiple_of(processes) { count - 1.0 } else { 1.0 };
        let added = (count + 1.0) / count * 4.0 * bucket as f64 / gpu.dram + gpu.gap;
        let takes = sent(bucket) / link.bandwidth + (1.0 + in_turn) * link.latency + added;
        let exchange = buckets * takes;
        let hidden = (backward * (1.0 - 1.0 / buckets)).min(exchange - takes);

        let features = if settings.debias == Debias::Records { plan.features } else { 0 };
        let own = 4.0 * plan.images as f64;
        let widths = [plan.classes, features].into_iter().filter(|width| *width > 0);
        let rows = widths.map(|width| around((count - 1.0) * own * width as f64)).sum();

        // Joint, a finish of sums becomes two kernels with an exchange between them.
        let is_sum = |timed: &&Timed| {
            let name = timed.planned.launch.kernel.name;
            name.starts_with("batchnorm") && name.contains("finish")
        };
        let sums: f64 = step.launches.iter().filter(is_sum).map(|timed| seconds(timed) + around(0.0)).sum();
        let backward_sums = step.launches[loss..].iter().filter(is_sum).count().max(1) as f64;
        let hidden_joint = hidden.min((buckets - 1.0) * backward / backward_sums);
        Self {
            local: step.time.expected,
            sent: sent(plan.parameters),
            exchange,
            exposed: exchange - hidden,
            rows,
            batchnorm: sums + hidden - hidden_joint,
        }
    }

    /// Seconds of the step, with joint batchnorm or without.
    pub fn seconds(&self, joint: bool) -> f64 {
        self.local + self.exposed + self.rows + if joint { self.batchnorm } else { 0.0 }
    }
}

/// The table for 2, 4, ... up to `most` GPUs: one batch shared, and as large a batch for each GPU.
///
/// # Errors
/// As [`Profile::new`].
pub fn table(one: &Profile, given: Given, gpu: &Gpu, most: usize, link: Link) -> Result<String> {
    let mut text = format!(
        "\nshared by several GPUs over {} ({:.0} GB/s, {:.0} us assumed); {:.1} MB of gradients\n{:>5}{:>8}{:>8}\
         {:>10}{:>9}{:>9}{:>10}{:>9}{:>9}{:>12}{:>12}\n",
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
        "rows ms",
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
                "{processes:>5}{batch:>8}{each:>8}{:>10.2}{:>9.1}{:>9.2}{:>10.2}{:>9.2}{:>9.2}{:>12}{:>12}",
                1e3 * step.local,
                1e-6 * step.sent,
                1e3 * step.exchange,
                1e3 * step.exposed,
                1e3 * step.rows,
                1e3 * step.batchnorm,
                efficiency(true),
                efficiency(false),
            );
        }
        processes *= 2;
    }
    Ok(text)
}
