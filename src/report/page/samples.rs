//! Samples with their candidates, and how the confidence in each moved.

use std::fmt::Write as _;

use super::chart::{LineChart, Series};
use crate::report::run_view::RunView;
use crate::svg::escaped;
use crate::train::observed::samples::TrackedSample;

/// Candidates of a sample that have a line.
const MOST_LINES: usize = 6;

/// A card for each sample.
pub fn section(view: &RunView) -> String {
    let Some(tracked) = &view.tracked else { return String::new() };
    if view.rows.is_empty() || tracked.samples.is_empty() {
        return String::new();
    }
    let cards = tracked.samples.iter().enumerate().map(|(number, sample)| card(view, number, sample));
    format!("<div class=\"samples\">\n{}</div>\n", cards.collect::<String>())
}

/// The candidates whose confidence was ever largest, and the true class among them; by their last confidence.
fn shown(view: &RunView, number: usize, sample: &TrackedSample) -> Vec<usize> {
    let confidence = |row: &[Vec<f32>], at: usize| row.get(number).and_then(|row| row.get(at)).copied();
    let ever =
        |at: usize| view.rows.iter().filter_map(|row| confidence(&row.confidence, at)).fold(0.0f32, f32::max);
    let last = |at: usize| view.rows.last().and_then(|row| confidence(&row.confidence, at)).unwrap_or(0.0);
    let mut order: Vec<usize> = (0..sample.candidates.len()).collect();
    let is_true = |at: usize| sample.truth == Some(sample.candidates[at]);
    order.sort_by(|&a, &b| is_true(b).cmp(&is_true(a)).then(ever(b).total_cmp(&ever(a))));
    order.truncate(MOST_LINES);
    order.sort_by(|&a, &b| last(b).total_cmp(&last(a)));
    order
}

fn card(view: &RunView, number: usize, sample: &TrackedSample) -> String {
    let name =
        |class: u8| view.classes().get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string());
    let order = shown(view, number, sample);
    let mut series = Vec::new();
    let mut list = String::new();
    for (place, &at) in order.iter().enumerate() {
        let class = sample.candidates[at];
        let points = view.rows.iter().map(|row| {
            let value = row.confidence.get(number).and_then(|row| row.get(at));
            (row.epoch, value.map(|&value| f64::from(value)))
        });
        let line = Series::new(&name(class), &format!("c{place}"), points);
        let last = line.points.last().map_or(String::new(), |(_, value)| format!("{value:.2}"));
        let truth = if sample.truth == Some(class) { " class=\"truth\"" } else { "" };
        let _ = write!(
            list,
            "<li{truth}><span><i class=\"c{place}\"></i>{}</span><b>{last}</b></li>",
            escaped(&name(class))
        );
        series.push(line);
    }
    let more = sample.candidates.len() - order.len();
    if more > 0 {
        let _ = write!(list, "<li class=\"soft\"><span>and {more} more candidates</span></li>");
    }
    let title = format!("Sample {}", sample.sample);
    let chart = LineChart { title: &title, unit: "", range: Some([0.0, 1.0]), series }.figure();
    let alt = escaped(&format!("training sample {}", sample.sample));
    let picture = format!("<img alt=\"{alt}\" src=\"data:image/png;base64,{}\">", escaped(&sample.png));
    let head = format!("<div class=\"sample\">{picture}<ul>{list}</ul></div>\n");
    // The list above is the legend.
    match (chart.find("<svg"), chart.find("<div class=\"legend\">")) {
        (Some(svg), Some(legend)) => format!("{}{head}{}</figure>\n", &chart[..svg], &chart[svg..legend]),
        _ => chart,
    }
}
