//! The charts of a run's results, and the class prior.

use std::fmt::Write as _;

use super::chart::{LineChart, Series};
use crate::report::run_view::RunView;
use crate::svg::escaped;
use crate::train::evaluate::{Shot, TestMetrics, shots};
use crate::train::metrics::EpochMetrics;

/// A line of what an epoch has.
fn of_epochs(
    view: &RunView,
    name: &str,
    colour: &str,
    value: impl Fn(&EpochMetrics) -> Option<f64>,
) -> Series {
    Series::new(name, colour, view.metrics.iter().map(|metrics| (metrics.epoch, value(metrics))))
}

/// A line of what a test has.
fn of_tests(view: &RunView, name: &str, colour: &str, value: impl Fn(&TestMetrics) -> Option<f64>) -> Series {
    of_epochs(view, name, colour, |metrics| metrics.test.as_ref().and_then(&value))
}

/// The range of percentages.
const PERCENT: Option<[f64; 2]> = Some([0.0, 100.0]);

/// The charts of the results.
pub fn training(view: &RunView) -> String {
    let chart = |title, unit, range, series| LineChart { title, unit, range, series }.figure();
    let figures = [
        chart("Loss", "", None, vec![of_epochs(view, "loss", "c0", |metrics| Some(metrics.loss))]),
        chart(
            "Accuracy",
            "%",
            PERCENT,
            vec![
                of_tests(view, "top-1", "c0", |test| Some(test.top1)),
                of_tests(view, "top-5", "c6", |test| test.top5),
                of_epochs(view, "training", "c1", |metrics| metrics.train_accuracy),
            ],
        ),
        chart(
            "Many, medium, few",
            "top-1, %",
            PERCENT,
            vec![
                of_tests(view, "many", "c0", |test| test.many),
                of_tests(view, "medium", "c2", |test| test.medium),
                of_tests(view, "few", "c3", |test| test.few),
            ],
        ),
        chart(
            "Label accuracy",
            "disambiguated labels that are true, %",
            PERCENT,
            vec![of_epochs(view, "labels", "c2", |metrics| metrics.label_accuracy)],
        ),
        chart(
            "Mean max confidence",
            "",
            Some([0.0, 1.0]),
            vec![of_epochs(view, "MMC", "c4", |metrics| Some(metrics.mean_max_confidence))],
        ),
        chart(
            "Learning rate",
            "",
            None,
            vec![of_epochs(view, "learning rate", "c5", |metrics| Some(metrics.learning_rate))],
        ),
    ];
    let figures = figures.concat();
    if figures.is_empty() { figures } else { format!("<div class=\"charts\">\n{figures}</div>\n") }
}

/// The estimated class prior against the true one: over time by groups of classes, and of the last epoch by
/// class.
pub fn class_prior(view: &RunView) -> String {
    let Some(last) = view.metrics.iter().rev().find(|metrics| metrics.class_prior.is_some()) else {
        return String::new();
    };
    let estimate = last.class_prior.as_deref().unwrap_or_default();
    let counts = view.counts().filter(|counts| counts.len() == estimate.len() && !counts.is_empty());
    let mut figures = String::new();
    if let Some(counts) = counts {
        figures.push_str(&over_time(view, counts));
    }
    let distance = of_epochs(view, "distance", "c4", |metrics| metrics.prior_distance);
    let chart = LineChart {
        title: "Distance of the class prior",
        unit: "total variation, estimated to true",
        range: None,
        series: vec![distance],
    };
    figures.push_str(&chart.figure());
    figures.push_str(&by_class(view, last.epoch, estimate, counts));
    format!("<div class=\"charts\">\n{figures}</div>\n")
}

/// What the classes of each group have together, and should have.
fn over_time(view: &RunView, counts: &[usize]) -> String {
    let (groups, total) = (shots(counts), counts.iter().sum::<usize>() as f64);
    let mut series = Vec::new();
    for (name, colour, group) in
        [("many", "c0", Shot::Many), ("medium", "c2", Shot::Medium), ("few", "c3", Shot::Few)]
    {
        if !groups.contains(&group) {
            continue;
        }
        let members = || groups.iter().enumerate().filter(|(_, of)| **of == group).map(|(class, _)| class);
        let sum = |metrics: &EpochMetrics| {
            let prior = metrics.class_prior.as_ref()?;
            members().map(|class| prior.get(class).copied()).sum::<Option<f64>>()
        };
        let truth = members().map(|class| counts[class] as f64).sum::<f64>() / total;
        series.push(of_epochs(view, name, colour, sum));
        let known = |metrics: &EpochMetrics| metrics.class_prior.as_ref().map(|_| truth);
        series.push(of_epochs(view, &format!("{name}, true"), colour, known).dashed());
    }
    let unit = "share of the classes of a group; dashed: true";
    LineChart { title: "Class prior", unit, range: Some([0.0, 1.0]), series }.figure()
}

/// A bar for each class, from the most frequent to the rarest, and a mark at its true share.
fn by_class(view: &RunView, epoch: usize, estimate: &[f64], counts: Option<&[usize]>) -> String {
    let total: usize = counts.unwrap_or_default().iter().sum();
    let truth = |class: usize| counts.map(|counts| counts[class] as f64 / total as f64);
    let mut order: Vec<usize> = (0..estimate.len()).collect();
    if let Some(counts) = counts {
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    }
    let shares = estimate.iter().copied().chain((0..estimate.len()).filter_map(truth));
    let most = shares.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (width, height, bottom) = (900.0, 210.0, 185.0);
    let step = width / estimate.len() as f64;
    let mut svg = format!(
        "<figure class=\"wide\" data-chart=\"Class prior by class\"><figcaption>Class prior by class <small>epoch {epoch}; bars: \
         estimated, lines: true</small></figcaption>\n<div class=\"scroll\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"class prior by class\" style=\"min-width:520px\">\n"
    );
    for (place, &class) in order.iter().enumerate() {
        let (x, share) = (step * place as f64, estimate[class]);
        let top = |share: f64| bottom - share / most * (bottom - 8.0);
        let name = view.classes().get(class).cloned().unwrap_or_else(|| class.to_string());
        let of_truth = truth(class).map_or(String::new(), |share| format!(", true {:.2} %", 100.0 * share));
        let _ = writeln!(
            svg,
            "<rect class=\"c0\" data-class=\"{class}\" data-value=\"{share}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             opacity=\".75\"><title>{}: estimated {:.2} %{of_truth}</title></rect>",
            x + 0.1 * step,
            top(share),
            0.8 * step,
            bottom - top(share),
            escaped(&name),
            100.0 * share
        );
        if let Some(share) = truth(class) {
            let y = top(share);
            let _ = writeln!(
                svg,
                "<line class=\"c1\" stroke-width=\"2\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                x + 0.02 * step,
                x + 0.98 * step
            );
        }
        if estimate.len() <= 20 {
            let room = (step / 6.0) as usize;
            let shown: String = name.chars().take(room.max(3)).collect();
            crate::svg::text(&mut svg, [x + step / 2.0, height - 8.0], "", "middle", &shown);
        }
    }
    svg.push_str("</svg></div>\n</figure>\n");
    svg
}
