//! Where the time went.

use std::fmt::Write as _;

use super::chart::{LineChart, Series};
use crate::report::run_view::RunView;

/// A duration in words: "2 h 05 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) if seconds < 10.0 => format!("{seconds:.1} s"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s:02} s"),
        (0, h, m, _) => format!("{h} h {m:02} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

/// The parts of the time of all epochs, and the speed of each.
pub fn section(view: &RunView) -> String {
    let times = view.last_times();
    let total: f64 = times.iter().map(|times| times.seconds).sum();
    if total <= 0.0 {
        return String::new();
    }
    let sum = |of: fn(&crate::train::metrics::EpochTimes) -> Option<f64>| -> f64 {
        times.iter().filter_map(|times| of(times)).sum()
    };
    let (training, test) = (sum(|times| times.training_seconds), sum(|times| times.evaluation_seconds));
    let parts = [
        ("training steps", "c0", training),
        ("test", "c2", test),
        ("the rest", "grey", total - training - test),
    ];
    let mut svg = format!(
        "<figure data-chart=\"Time\"><figcaption>Time <small>{} for {} epochs</small></figcaption>\n<svg viewBox=\"0 0 440 40\" \
         role=\"img\" aria-label=\"parts of the time\">\n",
        duration(total),
        times.len()
    );
    let mut legend = String::new();
    let mut x = 4.0;
    for (name, colour, seconds) in parts {
        let width = (432.0 * seconds / total).max(0.0);
        let shown = format!("{} ({:.1} %)", duration(seconds), 100.0 * seconds / total);
        let _ = writeln!(
            svg,
            "<rect class=\"{colour}\" data-value=\"{seconds}\" x=\"{x:.2}\" y=\"6\" width=\"{width:.2}\" height=\"28\" \
             opacity=\".85\"><title>{name}: {shown}</title></rect>"
        );
        let _ = write!(legend, "<span><i class=\"{colour}\"></i>{name} <b>{shown}</b></span>");
        x += width;
    }
    let _ = write!(svg, "</svg>\n<div class=\"legend\">{legend}</div>\n</figure>\n");
    let points = times.iter().map(|times| (times.epoch, Some(times.images_per_second)));
    let speed = LineChart {
        title: "Speed",
        unit: "images a second in training, all views",
        range: None,
        series: vec![Series::new("images/s", "c6", points)],
    };
    let points = times.iter().map(|times| (times.epoch, Some(times.seconds)));
    let epochs = LineChart {
        title: "Seconds of an epoch",
        unit: "",
        range: None,
        series: vec![Series::new("seconds", "c0", points)],
    };
    format!("<div class=\"charts\">\n{svg}{}{}</div>\n", epochs.figure(), speed.figure())
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_in_words() {
        for (seconds, words) in [
            (1.25, "1.2 s"),
            (59.0, "59 s"),
            (61.0, "1 min 01 s"),
            (7500.0, "2 h 05 min"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}
