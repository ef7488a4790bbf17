//! Where the time went.

use std::fmt::Write as _;
use std::time::SystemTime;

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

/// A moment to the minute: "2026-03-01 09:05 UTC".
pub fn utc(moment: SystemTime) -> String {
    let since =
        |later: SystemTime, earlier| later.duration_since(earlier).ok().map(|span| span.as_secs() as i64);
    let seconds = since(moment, SystemTime::UNIX_EPOCH)
        .or_else(|| Some(-since(SystemTime::UNIX_EPOCH, moment)?))
        .unwrap_or_default();
    let (mut day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // After 400 years the calendar is the same again.
    let mut year = 1970 + 400 * day.div_euclid(146_097);
    day = day.rem_euclid(146_097);
    let mut length = 365 + i64::from(is_leap(year));
    while day >= length {
        (day, year) = (day - length, year + 1);
        length = 365 + i64::from(is_leap(year));
    }
    let mut month = 1;
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        (day, month) = (day - length, month + 1);
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", day + 1, second / 3600, second / 60 % 60)
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
    use std::time::{Duration, SystemTime};

    use super::{duration, utc};

    #[test]
    fn moments_in_words() {
        let after = |seconds: u64| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(after(0), "1970-01-01 00:00 UTC");
        assert_eq!(after(951_782_400 - 1), "2000-02-28 23:59 UTC");
        assert_eq!(after(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(after(1_772_355_900), "2026-03-01 09:05 UTC");
        assert_eq!(after(4_102_444_799), "2099-12-31 23:59 UTC");
        // A clock before 1970.
        assert_eq!(utc(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31 23:59 UTC");
    }

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
