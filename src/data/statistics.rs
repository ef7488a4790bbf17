//! What a long-tailed ambiguous training set looks like, in numbers for people.

use std::fmt::Write as _;

use super::recipe::TrainingData;

/// Characters of the longest bar.
const BAR: usize = 40;

/// A table: sizes, ambiguity, and a bar a class.
pub fn table(data: &TrainingData) -> String {
    let counts = data.counts();
    let (samples, classes) = (data.train.len(), data.classes.len());
    let (largest, smallest) =
        (counts.iter().max().copied().unwrap_or(0), counts.iter().min().copied().unwrap_or(0));
    let sizes: Vec<usize> = data.candidates.sizes().collect();
    let mean = sizes.iter().sum::<usize>() as f64 / samples as f64;
    let single = sizes.iter().filter(|&&size| size == 1).count();
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<28} {value}");
    line("training samples N", samples.to_string());
    line("classes K", classes.to_string());
    line("test images", data.test.len().to_string());
    line("imbalance ratio rho", format!("{:.1} ({largest} to {smallest})", largest as f64 / smallest as f64));
    let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
    line("candidate set size", format!("mean {mean:.4}, {least} to {most}"));
    line("candidates in all", sizes.iter().sum::<usize>().to_string());
    let share = 100.0 * single as f64 / samples as f64;
    line("unambiguous samples", format!("{single} ({share:.1} %)"));
    text.push('\n');
    let widest = data.classes.iter().map(String::len).max().unwrap_or(0);
    for (class, (name, &count)) in data.classes.iter().zip(&counts).enumerate() {
        let bar = "#".repeat((BAR * count).div_ceil(largest.max(1)));
        let _ = writeln!(text, "{class:>4} {name:<widest$} {count:>6} {bar}");
    }
    text
}
