//! What the GPU's own counters say of a step's kernels, by Nsight Compute (ncu) where it is installed, beside what
//! the model predicts of them.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Check;
use super::programs::{End, TilesBy, cuda_tool, records};

/// Seconds that it may take, and launches that are looked at: those of two steps and what comes before them.
const MOST: u64 = 150;
const LAUNCHES: &str = "400";

/// What is read of a launch: our key, the counter, and what its unit is divided by.
const COUNTERS: [(&str, &str, f64); 11] = [
    ("us", "gpu__time_duration.sum", 1e3),
    ("dram_read_bytes", "dram__bytes_read.sum", 1.0),
    ("dram_written_bytes", "dram__bytes_write.sum", 1.0),
    ("l1_hits", "l1tex__t_sector_hit_rate.pct", 100.0),
    ("l2_hits", "lts__t_sector_hit_rate.pct", 100.0),
    ("warp_instructions", "smsp__inst_executed.sum", 1.0),
    ("shared_passes", "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", 1.0),
    ("bank_conflicts", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", 1.0),
    ("issue_slots_busy", "smsp__issue_active.avg.pct_of_peak_sustained_active", 100.0),
    ("tensor_cores_busy", "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active", 100.0),
    ("multiprocessors_busy", "sm__throughput.avg.pct_of_peak_sustained_elapsed", 100.0),
];

/// A launch: its kernel and grid.
type Key = (String, String);
/// Counters by key.
type Counted = BTreeMap<&'static str, f64>;

/// Counts the launches of the published step, beside the launches of `profile`; null where there is no ncu.
pub fn count(check: &mut Check<'_>, profile: &Value) -> Value {
    let Some(ncu) = cuda_tool("ncu") else {
        super::note("no ncu, so the GPU's counters were not read");
        return Value::Null;
    };
    let counted = || -> Result<BTreeMap<Key, Counted>> {
        let size: &[&str] = match check.smallest {
            true => &["--batch-size", "4", "--width", "8"],
            false => &["--batch-size", "256", "--width", "64"],
        };
        let step = ["bench", "step", "--device", "cuda", "--steps", "1", "--precision", "bf16"];
        let step = records(TilesBy::Model, step.iter().chain(size))?;
        let names: Vec<&str> = COUNTERS.iter().map(|(_, name, _)| *name).collect();
        let mut command = Command::new(ncu);
        command.args(["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]);
        command.args(["--launch-count", LAUNCHES, "--metrics", &names.join(",")]);
        command.arg(step.get_program()).args(step.get_args()).env("RECORDS_TILES", "model");
        let outcome = check.run(command, MOST)?;
        if outcome.end == End::Failed {
            bail!("{}", outcome.why());
        }
        read(&outcome.out)
    };
    match counted() {
        Ok(counted) => beside(&counted, profile),
        // Many machines forbid it, so this is no failure of the kernels.
        Err(error) => {
            super::note(&format!("the GPU's counters could not be read: {error:#}"));
            json!({ "failed": format!("{error:#}") })
        }
    }
}

/// What ncu prints with `--csv --page raw`: what the program says, a line of names, one of units, and one a launch.
/// The median of each counter over the launches of a kernel with a grid.
fn read(text: &str) -> Result<BTreeMap<Key, Counted>> {
    let start = text.find("\"ID\",").context("it prints no table")?;
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(&text.as_bytes()[start..]);
    let names = table.headers().context("its table has no names")?.clone();
    let column = |name: &str| names.iter().position(|own| own == name);
    let (kernel, grid) =
        (column("Kernel Name").context("no names")?, column("Grid Size").context("no grids")?);
    let mut all: BTreeMap<Key, BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
    for row in table.records().skip(1) {
        let row = row.context("its table")?;
        let (Some(kernel), Some(grid)) = (row.get(kernel), row.get(grid)) else { continue };
        let of = all.entry((kernel.into(), grid.into())).or_default();
        for (key, name, unit) in COUNTERS {
            let value =
                column(name).and_then(|at| row.get(at)).and_then(|word| word.replace(',', "").parse().ok());
            of.entry(key).or_default().extend(value.map(|value: f64| value / unit));
        }
    }
    ensure!(!all.is_empty(), "its table has no launches");
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let medians = all.into_iter().map(|(launch, of)| {
        let of = of.into_iter().filter_map(|(key, values)| Some((key, median(values)?)));
        (launch, of.collect())
    });
    Ok(medians.collect())
}

/// Every kernel of the profile with its counters, and the kernels that it does not have.
fn beside(counted: &BTreeMap<Key, Counted>, profile: &Value) -> Value {
    let no_launches = Vec::new();
    let launches = profile["launches"].as_array().unwrap_or(&no_launches);
    let predicted: BTreeMap<Key, &Value> =
        launches.iter().filter_map(|launch| Some((key(launch)?, launch))).collect();
    let keys =
        ["layer", "best_us", "expected_us", "dram_read_bytes", "dram_written_bytes", "l1_hits", "limit"];
    counted
        .iter()
        .map(|((kernel, grid), counted)| {
            let launch = predicted.get(&(kernel.clone(), grid.clone()));
            let of = launch.map(|launch| keys.map(|key| (key.to_string(), launch[key].clone())));
            let predicted = of.map(|of| Value::Object(of.into_iter().collect()));
            json!({ "kernel": kernel, "grid": grid, "counted": counted, "predicted": predicted })
        })
        .collect()
}

/// A launch of a profile, as ncu writes it.
fn key(launch: &Value) -> Option<Key> {
    let grid: Vec<String> = launch["grid"].as_array()?.iter().map(Value::to_string).collect();
    Some((launch["kernel"].as_str()?.into(), format!("({})", grid.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_stands_beside_the_prediction() {
        let text = "a line of the program\n==PROF== Connected\n\
            \"ID\",\"Process ID\",\"Kernel Name\",\"Grid Size\",\"gpu__time_duration.sum\",\"l1tex__t_sector_hit_rate.pct\"\n\
            \"\",\"\",\"\",\"\",\"ns\",\"%\"\n\
            \"0\",\"7\",\"sgd\",\"(8, 1, 1)\",\"2,500\",\"50\"\n\
            \"1\",\"7\",\"sgd\",\"(8, 1, 1)\",\"3500\",\"60\"\n\
            \"2\",\"7\",\"sgd\",\"(8, 1, 1)\",\"1500\",\"70\"\n\
            \"3\",\"7\",\"augment\",\"(1, 2, 1)\",\"10\",\"n/a\"\n";
        let counted = read(text).unwrap();
        let profile =
            json!({ "launches": [{ "kernel": "sgd", "grid": [8, 1, 1], "best_us": 2.0, "layer": "sgd" }] });
        let shown = beside(&counted, &profile);
        assert_eq!(shown[1]["kernel"], "sgd");
        assert_eq!((&shown[1]["counted"]["us"], &shown[1]["counted"]["l1_hits"]), (&json!(2.5), &json!(0.6)));
        assert_eq!(shown[1]["predicted"]["best_us"], 2.0);
        assert_eq!((&shown[0]["kernel"], &shown[0]["predicted"]), (&json!("augment"), &Value::Null));
        assert_eq!(shown[0]["counted"], json!({ "us": 0.01 }));
        for (text, why) in [
            ("", "no table"),
            ("\"ID\",\"x\"\n", "no names"),
            ("\"ID\",\"Kernel Name\",\"Grid Size\"\n", "no launches"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
