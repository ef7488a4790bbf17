//! A measured step as a table and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::{KernelCost, OperationCost, Timed, is_predicted};
use crate::device::{Device, Limits};

/// A measured step.
pub struct StepReport {
    pub title: String,
    pub batch_size: usize,
    pub width: usize,
    pub arch: String,
    pub timed: Timed,
    /// Images that go forward in a step.
    pub images: usize,
    pub flops: f64,
    pub operations: Vec<(&'static str, OperationCost)>,
    pub kernels: Vec<(&'static str, KernelCost)>,
    pub limits: Option<Limits>,
}

impl StepReport {
    pub fn json(&self, device: &dyn Device) -> String {
        let median = self.timed.median;
        let line = json!({
            "device": device.name(),
            "method": self.title,
            "batch_size": self.batch_size,
            "width": self.width,
            "arch": self.arch,
            "steps": self.timed.rounds * self.timed.in_a_row,
            "steps_in_a_row": self.timed.in_a_row,
            "seconds_per_step_median": median,
            "processor_seconds_per_step_median": self.timed.processor_median,
            "images_per_second": self.images as f64 / median,
            "gflop_per_second": self.flops / median / 1e9,
            "kernels": self.kernels.iter().map(|(name, kernel)| json!({
                "kernel": name, "launches": kernel.launches, "seconds": kernel.seconds,
                "blocks_per_multiprocessor": kernel.resident_blocks,
            })).collect::<Vec<_>>(),
            "kernels_include_event_overhead": !is_predicted(device),
            "operations": self.operations.iter().map(|(name, cost)| json!({
                "operation": name, "calls": cost.calls, "seconds": cost.seconds, "flops": cost.flops,
                "least_bytes": cost.bytes,
            })).collect::<Vec<_>>(),
            "possible": self.limits.as_ref().map(|limits| json!({
                "flops_per_second": limits.flops, "bytes_per_second": limits.bytes, "source": limits.source,
            })),
        });
        format!("{line}\n")
    }

    pub fn table(&self, device: &dyn Device) -> String {
        let median = self.timed.median;
        let mut text = format!(
            "{}\na step of {} of {} samples at width {}: {:.1} ms ({}), {:.1} images/s, {:.1} GFLOP/s\n",
            device.describe(),
            self.title,
            self.batch_size,
            self.width,
            1e3 * median,
            match self.timed {
                Timed { rounds, in_a_row: 1, .. } => format!("median of {rounds}"),
                Timed { rounds, in_a_row, .. } => format!("median of {rounds} rounds of {in_a_row}"),
            },
            self.images as f64 / median,
            self.flops / median / 1e9,
        );
        if let Some(Limits { flops, bytes, source }) = &self.limits {
            let _ =
                writeln!(text, "possible: {:.1} GFLOP/s, {:.1} GB/s ({source})", flops / 1e9, bytes / 1e9);
        }
        let how = if is_predicted(device) { ", predicted for an RTX 3090" } else { "" };
        self.add_operations(how, &mut text);
        if !self.kernels.is_empty() {
            let how = if is_predicted(device) { how } else { ", timed one by one with an event each" };
            self.add_kernels(how, &mut text);
        }
        text
    }

    /// A row per kind of operation: its rates in operations and in bytes of least traffic, and the share of
    /// its time that it would take at the limit.
    fn add_operations(&self, how: &str, text: &mut String) {
        let total: f64 = self.operations.iter().map(|(_, cost)| cost.seconds).sum();
        let _ = writeln!(
            text,
            "\n{:<50} {:>6} {:>10} {:>7} {:>9} {:>8} {:>12}",
            format!("operation, one step{how}"),
            "calls",
            "ms",
            "share",
            "GFLOP/s",
            "GB/s",
            "of possible"
        );
        for &(name, OperationCost { calls, seconds, flops, bytes }) in &self.operations {
            let possible = self.limits.as_ref().map_or_else(
                || "?".into(),
                |limits| format!("{:.1}%", 100.0 * limits.least_seconds(flops, bytes) / seconds),
            );
            let _ = writeln!(
                text,
                "{name:<50} {calls:>6} {:>10.3} {:>6.1}% {:>9.1} {:>8.1} {possible:>12}",
                1e3 * seconds,
                100.0 * seconds / total,
                flops / seconds / 1e9,
                bytes / seconds / 1e9,
            );
        }
    }

    fn add_kernels(&self, how: &str, text: &mut String) {
        let total: f64 = self.kernels.iter().map(|(_, cost)| cost.seconds).sum();
        let _ = writeln!(
            text,
            "\n{:<50} {:>6} {:>10} {:>7} {:>10}",
            format!("kernel{how}"),
            "calls",
            "us",
            "share",
            "blocks/SM"
        );
        for &(name, KernelCost { launches, seconds, resident_blocks }) in &self.kernels {
            let share = 100.0 * seconds / total;
            let resident = resident_blocks.map_or_else(|| "?".into(), |blocks| blocks.to_string());
            let _ = writeln!(
                text,
                "{name:<50} {launches:>6} {:>10.1} {share:>6.1}% {resident:>10}",
                1e6 * seconds
            );
        }
    }
}
