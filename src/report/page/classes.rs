//! Accuracies and confusions of classes, of the last test.

use std::fmt::Write as _;

use crate::report::run_view::RunView;
use crate::svg::{escaped, text};
use crate::train::evaluate::{Shot, shots};
use crate::train::observed::Confusion;

/// Classes up to which every one has its name beside its bar.
const MOST_NAMED: usize = 60;

/// Cells of a confusion matrix that are drawn at most: the fullest.
const MOST_CELLS: usize = 4000;

/// Both.
pub fn section(view: &RunView) -> String {
    let bars = bars(view).unwrap_or_default();
    let matrix = view.confusion.as_ref().map(|confusion| matrix(view, confusion)).unwrap_or_default();
    if bars.is_empty() && matrix.is_empty() {
        return String::new();
    }
    format!("<div class=\"charts\">\n{bars}{matrix}</div>\n")
}

/// The classes from the most frequent to the rarest in training, where that is known.
fn order(view: &RunView, classes: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..classes).collect();
    if let Some(counts) = view.counts().filter(|counts| counts.len() == classes) {
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    }
    order
}

fn name(view: &RunView, class: usize) -> String {
    view.classes().get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// The first `most` letters of a name.
fn cut(name: &str, most: usize) -> String {
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['\u{2026}']).collect(),
        false => name.to_string(),
    }
}

/// A bar for each class.
fn bars(view: &RunView) -> Option<String> {
    let last = view.last_test()?;
    let accuracies = &last.test.as_ref()?.per_class;
    let counts = view.counts().filter(|counts| counts.len() == accuracies.len());
    let groups = counts.map(shots);
    let named = accuracies.len() <= MOST_NAMED;
    let row = if named { 20.0 } else { (600.0 / accuracies.len() as f64).max(4.0) };
    let (left, right) = (if named { 120.0 } else { 8.0 }, 390.0);
    let height = row * accuracies.len() as f64 + 6.0;
    let mut svg = format!(
        "<figure data-chart=\"Accuracy by class\"><figcaption>Accuracy by class <small>epoch {}, from the most frequent class to the \
         rarest</small></figcaption>\n<svg viewBox=\"0 0 440 {height:.0}\" role=\"img\" aria-label=\"accuracy by class\">\n",
        last.epoch
    );
    for (place, class) in order(view, accuracies.len()).into_iter().enumerate() {
        let (y, name) = (row * place as f64 + 3.0, name(view, class));
        let colour = match groups.as_ref().map(|groups| groups[class]) {
            Some(Shot::Many) => "c0",
            Some(Shot::Medium) => "c2",
            Some(Shot::Few) => "c3",
            None => "grey",
        };
        let accuracy = accuracies[class];
        let trained = counts.map_or(String::new(), |counts| format!(", trained on {}", counts[class]));
        let shown = accuracy.map_or("no test image".into(), |accuracy| format!("{accuracy:.2} %"));
        let width = accuracy.unwrap_or(0.0) / 100.0 * (right - left);
        let _ = writeln!(
            svg,
            "<rect class=\"{colour}\" data-class=\"{class}\" data-value=\"{}\" x=\"{left}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{:.1}\" opacity=\".8\"><title>{}: {shown}{trained}</title></rect>",
            accuracy.map_or(String::new(), |accuracy| accuracy.to_string()),
            (row - 4.0).max(row * 0.8),
            escaped(&name)
        );
        if named {
            text(&mut svg, [left - 6.0, y + 12.0], "in", "end", &cut(&name, 18));
            let value = accuracy.map_or("-".into(), |accuracy| format!("{accuracy:.1}"));
            text(&mut svg, [left + width + 5.0, y + 12.0], "", "start", &value);
        }
    }
    svg.push_str("</svg>\n");
    if groups.is_some() {
        svg.push_str(
            "<div class=\"legend\"><span><i class=\"c0\"></i>many</span><span><i class=\"c2\"></i>medium</span><span><i \
             class=\"c3\"></i>few</span></div>\n",
        );
    }
    svg.push_str("</figure>\n");
    Some(svg)
}

/// A square for each pair of classes, the darker the larger its share of the true class.
fn matrix(view: &RunView, confusion: &Confusion) -> String {
    let Confusion { epoch, classes, counts } = confusion;
    let order = order(view, classes.len());
    let (left, top, side) = (if classes.len() <= 30 { 92.0 } else { 14.0 }, 18.0, 330.0);
    let cell = side / classes.len() as f64;
    let height = top + side + if classes.len() <= 30 { 78.0 } else { 14.0 };
    let mut svg = format!(
        "<figure data-chart=\"Confusion\"><figcaption>Confusion <small>epoch {epoch}; rows: true class, columns: \
         predicted</small></figcaption>\n<svg viewBox=\"0 0 440 {height:.0}\" role=\"img\" aria-label=\"confusion matrix\">\n"
    );
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{side}\" height=\"{side}\" fill=\"var(--grid)\" opacity=\".5\"/>"
    );
    for (row, column, count, share) in cells(counts, &order) {
        let (x, y) = (left + cell * column as f64, top + cell * row as f64);
        let (truth, predicted) = (order[row], order[column]);
        let colour = if row == column { "c2" } else { "c1" };
        let _ = writeln!(
            svg,
            "<rect class=\"{colour}\" data-true=\"{truth}\" data-predicted=\"{predicted}\" data-value=\"{count}\" x=\"{x:.1}\" \
             y=\"{y:.1}\" width=\"{:.2}\" height=\"{:.2}\" opacity=\"{:.3}\"><title>{} taken for {}: {count} ({:.1} %)</title></rect>",
            (cell - 0.6).max(0.6),
            (cell - 0.6).max(0.6),
            0.1 + 0.9 * share,
            escaped(&classes[truth]),
            escaped(&classes[predicted]),
            100.0 * share
        );
        if classes.len() <= 12 {
            // Dark on light or light on dark, whichever the page is.
            let class = if share > 0.5 { "on" } else { "in" };
            text(&mut svg, [x + cell / 2.0, y + cell / 2.0 + 4.0], class, "middle", &count.to_string());
        }
    }
    if classes.len() <= 30 {
        for (place, &class) in order.iter().enumerate() {
            let middle = cell * (place as f64 + 0.5);
            text(&mut svg, [left - 5.0, top + middle + 4.0], "", "end", &cut(&classes[class], 14));
            let (x, y) = (left + middle + 3.0, top + side + 8.0);
            let shown = escaped(&cut(&classes[class], 12));
            let _ = writeln!(
                svg,
                "<text transform=\"translate({x:.1} {y:.1}) rotate(-60)\" text-anchor=\"end\">{shown}</text>"
            );
        }
    }
    svg.push_str("</svg>\n</figure>\n");
    svg
}

/// The cells to draw: row and column in `order`, count, and share of its row.
fn cells(counts: &[Vec<u32>], order: &[usize]) -> Vec<(usize, usize, u32, f64)> {
    let mut cells = Vec::new();
    for (row, &truth) in order.iter().enumerate() {
        let of_class: u32 = counts[truth].iter().sum();
        for (column, &predicted) in order.iter().enumerate() {
            let count = counts[truth][predicted];
            if count > 0 {
                cells.push((row, column, count, f64::from(count) / f64::from(of_class)));
            }
        }
    }
    cells.sort_by(|a, b| b.3.total_cmp(&a.3));
    cells.truncate(MOST_CELLS);
    cells
}
