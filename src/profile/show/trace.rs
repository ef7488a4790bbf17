//! The expected step, its launches one after the other, as trace events (the format that Chrome and ui.perfetto.dev open): a track of kernels
//! and one of parts.

use serde_json::{Value, json};

use super::named;
use crate::profile::{Profile, Timed};

/// The track of kernels.
const KERNELS: u32 = 1;
/// The track of the parts that they belong to.
const PARTS: u32 = 2;

/// The trace.
pub fn show(profile: &Profile) -> String {
    let mut events = vec![
        name("process_name", 0, &format!("{} (predicted)", profile.gpu.name)),
        name("thread_name", KERNELS, "kernels"),
        name("thread_name", PARTS, "parts"),
    ];
    let mut at = 0.0;
    let mut part: Option<(&str, f64, f64)> = None;
    for timed in &profile.step.launches {
        let duration = 1e6 * timed.predicted.time.expected;
        events.push(kernel(timed, at, duration));
        part = match part {
            Some((of, start, _)) if of == timed.part => Some((of, start, at + duration)),
            before => {
                events.extend(before.map(whole));
                Some((timed.part, at, at + duration))
            }
        };
        at += duration + 1e6 * profile.gpu.gap;
    }
    events.extend(part.map(whole));
    format!("{}\n", json!({ "traceEvents": events, "displayTimeUnit": "ms" }))
}

fn name(kind: &str, track: u32, name: &str) -> Value {
    json!({ "name": kind, "ph": "M", "pid": 1, "tid": track, "args": { "name": name } })
}

fn whole((part, start, end): (&str, f64, f64)) -> Value {
    json!({ "name": part, "cat": "part", "ph": "X", "pid": 1, "tid": PARTS, "ts": start, "dur": end - start })
}

fn kernel(timed: &Timed, at: f64, duration: f64) -> Value {
    let (launch, work) = (&timed.planned.launch, timed.planned.work());
    json!({
        "name": launch.kernel.name, "cat": timed.part, "ph": "X", "pid": 1, "tid": KERNELS, "ts": at, "dur": duration,
        "args": {
            "what": named(timed),
            "branch": if timed.planned.place.aside { "aside" } else { "main" },
            "limit": timed.predicted.limit.word(),
            "grid": launch.grid,
            "block": launch.block,
            "GFLOP": 1e-9 * work.flops,
            "read MB": 1e-6 * work.read_bytes(),
            "written MB": 1e-6 * work.written_bytes(),
            "best us": 1e6 * timed.predicted.time.best,
            "pessimistic us": 1e6 * timed.predicted.time.pessimistic,
        },
    })
}
