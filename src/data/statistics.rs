//! The statistics of a long-tailed training set and its candidate sets, for people to read.

use std::fmt::Write as _;

use super::recipe::TrainingData;
use crate::text::printable;

/// Characters of the longest bar.
const BAR: usize = 40;

/// A table: sizes, ambiguity, and a bar for each class: its samples or, if true classes are unknown, the
/// candidate sets that contain it.
pub fn table(data: &TrainingData) -> String {
    let counts = data.counts();
    let (samples, classes) = (data.train.len(), data.classes.len());
    let sizes: Vec<usize> = data.candidates.sizes().collect();
    let mean = sizes.iter().sum::<usize>() as f64 / samples as f64;
    let single = sizes.iter().filter(|&&size| size == 1).count();
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<28} {value}");
    line("training samples N", samples.to_string());
    line("classes K", classes.to_string());
    line("test images", data.test.as_ref().map_or("none".into(), |test| test.len().to_string()));
    match &counts {
        Some(counts) => {
            let (largest, smallest) =
                (*counts.iter().max().unwrap_or(&0), *counts.iter().min().unwrap_or(&0));
            let rho = match smallest {
                0 => "-".into(),
                _ => format!("{:.1}", largest as f64 / smallest as f64),
            };
            line("imbalance ratio rho", format!("{rho} ({largest} to {smallest})"));
        }
        None => {
            let known = data.train.labels.iter().flatten().count();
            line("true classes", format!("known for {known} of {samples} samples"));
        }
    }
    let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
    line("candidate set size", format!("mean {mean:.4}, {least} to {most}"));
    line("candidates in all", sizes.iter().sum::<usize>().to_string());
    let share = 100.0 * single as f64 / samples as f64;
    line("unambiguous samples", format!("{single} ({share:.1} %)"));
    let bars = counts.unwrap_or_else(|| {
        text.push_str("\nhow often each class is a candidate:");
        data.candidates.frequencies()
    });
    text.push('\n');
    let longest = bars.iter().max().copied().unwrap_or(0).max(1);
    let names: Vec<String> = data.classes.iter().map(|name| printable(name)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (class, (name, &count)) in names.iter().zip(&bars).enumerate() {
        let bar = "#".repeat((BAR * count).div_ceil(longest));
        let _ = writeln!(text, "{class:>4} {name:<widest$} {count:>6} {bar}");
    }
    let remarks = data.remarks(None);
    if !remarks.is_empty() {
        let _ = writeln!(text, "\n{}", remarks.join("\n"));
    }
    text
}
