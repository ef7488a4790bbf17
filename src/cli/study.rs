//! `records study`: ladders of kernels to learn from, rung by rung.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output;
use crate::device::gpu::DriverKind;
use crate::settings::quoted_where_odd;
use crate::study::{LADDERS, Ladder, Meter, RungResult};
use crate::usage;

/// Arguments of `records study`.
#[derive(Args, Clone, Debug)]
pub struct StudyArguments {
    /// The ladder: convolution or loss-row [default: both]
    #[arg(value_name = "LADDER")]
    ladder: Option<String>,
    /// Where to run the kernels: sim (on the CPU, checked and counted) or cuda (timed)
    #[arg(long, value_name = "WORD", default_value = "sim")]
    device: String,
    /// Print one line of JSON for each ladder instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs `records study`.
///
/// # Errors
/// A usage error for unknown words or a device that cannot be used; an error if a rung does not agree with
/// the CPU.
pub fn run(arguments: &StudyArguments) -> Result<()> {
    let names = match &arguments.ladder {
        Some(name) => vec![name.as_str()],
        None => LADDERS.to_vec(),
    };
    // Unknown words are refused before a device is opened.
    for name in &names {
        if !LADDERS.contains(name) {
            return Err(usage!("study {}: must be {}", quoted_where_odd(name), LADDERS.join(" or ")));
        }
    }
    let kind: DriverKind = arguments.device.parse().map_err(|_| {
        usage!("--device {}: these kernels run on sim or cuda", quoted_where_odd(&arguments.device))
    })?;
    let mut meter = Meter::open(kind)?;
    for name in names {
        let ladder = Ladder::named(name, meter.times)?;
        let steps = ladder.climb(&mut meter)?;
        output::print(&match arguments.json {
            true => json_line(name, &ladder, &steps, &meter),
            false => report(&ladder, &steps, &meter),
        })?;
    }
    Ok(())
}

/// How many times faster each step is than the one before; none for the first.
fn speed_ups(steps: &[RungResult]) -> impl Iterator<Item = Option<f64>> {
    let gains = steps.windows(2).map(|pair| Some(pair[0].cost.seconds / pair[1].cost.seconds));
    std::iter::once(None).chain(gains)
}

fn report(ladder: &Ladder, steps: &[RungResult], meter: &Meter) -> String {
    let mut rows = vec![
        [
            "rung",
            "instr",
            "MFLOP",
            "mma",
            "KB asked",
            "KB DRAM",
            "passes",
            "conflicts",
            "us",
            "times",
            "bound by",
        ]
        .map(String::from),
    ];
    for (step, gain) in steps.iter().zip(speed_ups(steps)) {
        let counted = |text: &dyn Fn(&crate::study::Counted) -> String| {
            step.cost.counted.as_ref().map_or_else(|| "-".to_string(), text)
        };
        rows.push([
            step.rung.to_string(),
            counted(&|c| c.instructions.to_string()),
            counted(&|c| format!("{:.1}", c.flops as f64 / 1e6)),
            counted(&|c| c.mma.to_string()),
            counted(&|c| (c.requested_bytes / 1024).to_string()),
            counted(&|c| (c.dram_bytes / 1024).to_string()),
            counted(&|c| c.shared_wavefronts.to_string()),
            counted(&|c| c.bank_conflicts.to_string()),
            format!("{:.1}", 1e6 * step.cost.seconds),
            gain.map_or_else(String::new, |gain| format!("{gain:.1}")),
            counted(&|c| c.limit.clone()),
        ]);
    }
    let worst = steps.iter().map(|step| step.difference).fold(0.0, f64::max);
    format!(
        "{}\n{}\n\n{}\n\
         Every rung agrees with the CPU: the largest difference is {worst:.2} of what is allowed,\n{}.\n\n",
        ladder.problem,
        meter.about,
        output::table(&rows),
        ladder.tolerance
    )
}

fn json_line(name: &str, ladder: &Ladder, steps: &[RungResult], meter: &Meter) -> String {
    let rungs = steps.iter().zip(speed_ups(steps)).map(|(step, gain)| {
        json!({
            "rung": step.rung, "difference_in_tolerances": step.difference, "cost": step.cost,
            "times_faster_than_the_one_before": gain,
        })
    });
    let line = json!({
        "ladder": name, "problem": ladder.problem, "times": meter.about, "tolerance": ladder.tolerance,
        "rungs": rungs.collect::<Vec<_>>(),
    });
    format!("{line}\n")
}
