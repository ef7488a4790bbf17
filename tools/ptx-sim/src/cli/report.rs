//! What `ptx-sim run` prints.

use std::fmt::Write as _;

use ptx_sim::{Gpu, Prediction, Report};

/// A number with its thousands apart.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn time(seconds: f64) -> String {
    if seconds >= 1.0 {
        format!("{seconds:.3} s")
    } else if seconds >= 1e-3 {
        format!("{:.3} ms", seconds * 1e3)
    } else {
        format!("{:.3} us", seconds * 1e6)
    }
}

/// Findings, counters and the roofline as tables.
pub fn text(report: &Report, roofline: Option<&(Gpu, Prediction)>) -> String {
    let mut text = String::new();
    if report.findings_total == 0 {
        text.push_str("no findings\n");
    } else {
        let _ = writeln!(text, "{} findings at {} places", report.findings_total, report.findings.len());
        for finding in &report.findings {
            let _ = writeln!(text, "  {finding}");
        }
    }
    text.push_str("\ncounters\n");
    let _ = writeln!(text, "  {:<24} {:>20}", "instructions", grouped(report.counters.instructions()));
    for (name, value) in report.counters.entries() {
        if value != 0 {
            let _ = writeln!(text, "  {name:<24} {:>20}", grouped(value));
        }
    }
    if let Some((gpu, prediction)) = roofline {
        let _ = writeln!(
            text,
            "\nat least {} on {}, limited by {}",
            time(prediction.seconds),
            gpu.name,
            prediction.limit
        );
        for (name, seconds) in &prediction.parts {
            let _ = writeln!(text, "  {name:<24} {:>20}", time(*seconds));
        }
    }
    text
}

/// The same as JSON.
pub fn json(kernel: &str, report: &Report, roofline: Option<&(Gpu, Prediction)>) -> String {
    let value = serde_json::json!({
        "kernel": kernel,
        "findings_total": report.findings_total,
        "findings": report.findings,
        "printed": report.printed,
        "counters": report.counters,
        "gpu": roofline.map(|(gpu, _)| gpu),
        "prediction": roofline.map(|(_, prediction)| serde_json::json!({
            "seconds": prediction.seconds,
            "limit": prediction.limit,
            "parts": prediction.parts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        })),
    });
    format!("{value:#}\n")
}
