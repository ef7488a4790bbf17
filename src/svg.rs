//! Parts of pictures in SVG, which the pictures of `profile` and the charts of `report` share.

use std::fmt::Write as _;

/// Text inside an element or an attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Appends text at a position; `anchor` is start, middle or end.
pub fn text(svg: &mut String, [x, y]: [f64; 2], class: &str, anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

/// A number with three digits that matter.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// A round number at a mark of an axis.
pub fn mark(value: f64) -> String {
    ((1e3 * value).round() / 1e3).to_string()
}

/// Marks of a linear axis up to `most`: about six, at round numbers.
pub fn marks(most: f64) -> Vec<f64> {
    let power = 10f64.powf((most / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| most / step <= 7.0);
    let step = step.unwrap_or(most.max(f64::MIN_POSITIVE));
    (0..=(most / step) as usize).map(|i| i as f64 * step).collect()
}
