//! The report of a run as one page for a browser: no script, nothing from elsewhere, light and dark, readable
//! on a phone. Pictures are SVG.
//!
//! | file | what |
//! |---|---|
//! | `chart` | line charts over epochs |
//! | `curves` | the charts of a run's results, and the class prior |
//! | `classes` | accuracies and confusions of classes |
//! | `samples` | samples with their candidates, and how their confidence moved |
//! | `time` | where the time went |

pub(super) mod chart;
mod classes;
mod curves;
mod samples;
mod time;

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;

pub use self::time::duration;

use super::run_view::{Condition, RunView};
use crate::settings::config_toml;
use crate::svg::escaped;
use crate::train::observed::files::ReportMaker;

const STYLE: &str = include_str!("style.css");

/// A whole page with a title and what is in its body.
pub(super) fn document(title: &str, body: &str, refresh: bool) -> String {
    let again = if refresh { "<meta http-equiv=\"refresh\" content=\"20\">\n" } else { "" };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{again}\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escaped(title)
    )
}

/// The report of a run. A run that goes on is loaded again by the browser every 20 seconds.
pub fn page(view: &RunView) -> String {
    let condition = view.condition();
    let mut body = head(view, &condition);
    body.push_str(&tiles(view));
    for (title, about, part) in [
        ("Training", "", curves::training(view)),
        (
            "Class prior",
            "How frequent the run believes the classes to be, against their shares of the training set.",
            curves::class_prior(view),
        ),
        ("Classes", "", classes::section(view)),
        (
            "Samples",
            "The same few training samples throughout: their candidates, and how the confidence in each moved. The true \
             class is bold.",
            samples::section(view),
        ),
        ("Where time went", "", time::section(view)),
    ] {
        if !part.is_empty() {
            let about =
                if about.is_empty() { String::new() } else { format!("<p class=\"soft\">{about}</p>\n") };
            let _ = write!(body, "<section>\n<h2>{title}</h2>\n{about}{part}</section>\n");
        }
    }
    body.push_str(&numbers(view));
    body.push_str(&left_out(view));
    body.push_str(&settings(view));
    let title = format!("{}: {}", view.name(), view.settings.method_title());
    document(&title, &body, condition == Condition::Running)
}

/// Makes the reports of a run under way.
pub fn maker() -> Box<dyn ReportMaker> {
    struct Maker(Option<RunView>);
    impl ReportMaker for Maker {
        fn page(&mut self, folder: &Path) -> Result<String> {
            let view = match &mut self.0 {
                Some(view) => {
                    view.refresh();
                    view
                }
                none => {
                    let view = none.insert(RunView::open(folder)?);
                    view.is_own = true;
                    view
                }
            };
            Ok(page(view))
        }
    }
    Box::new(Maker(None))
}

fn head(view: &RunView, condition: &Condition) -> String {
    let settings = &view.settings;
    let done = view.metrics.last().map_or(0, |metrics| metrics.epoch + 1);
    let as_of = match condition {
        Condition::Running => format!(" after {done} epochs"),
        _ => String::new(),
    };
    let class = match condition {
        Condition::Running => "running",
        Condition::Finished => "finished",
        Condition::Failed(_) => "failed",
        Condition::Stopped => "stopped",
    };
    let left = match (condition, view.seconds_left()) {
        (Condition::Running, Some(seconds)) => format!(", about {} left", time::duration(seconds)),
        _ => String::new(),
    };
    let reason = match (condition, &view.stop) {
        (Condition::Failed(reason), _) => format!("<p class=\"failed\">{}</p>\n", escaped(reason)),
        (Condition::Stopped, Some(said)) => format!("<p class=\"soft\">{}</p>\n", escaped(said)),
        // A kill leaves the page as it is.
        (Condition::Running, _) => format!(
            "<p class=\"soft\">Written {}, as the run went on. If it is later than an epoch takes, and this page has not \
             changed, the run has ended since: records report writes the page again.</p>\n",
            time::utc(SystemTime::now())
        ),
        _ => String::new(),
    };
    format!(
        "<header>\n<h1>{} <span class=\"state {class}\">{class}{as_of}</span></h1>\n<p class=\"soft\">{} on {}, {} of width {}, seed {}: \
         {done} of {} epochs{left}</p>\n{reason}</header>\n",
        escaped(&view.name()),
        escaped(&settings.method_title()),
        escaped(&settings.dataset),
        escaped(&settings.arch),
        settings.width,
        settings.seed,
        view.epochs(),
    )
}

/// The most important numbers.
fn tiles(view: &RunView) -> String {
    let percent = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} %"));
    let last = view.last_test().and_then(|metrics| metrics.test.as_ref());
    let metrics = view.metrics.last();
    let mut tiles: Vec<(String, &str, String)> = Vec::new();
    if let Some((top1, epoch)) = view.best() {
        tiles.push((format!("best top-1, epoch {epoch}"), "best", percent(Some(top1))));
    }
    if let Some(test) = last {
        tiles.push(("last top-1".into(), "top1", percent(Some(test.top1))));
        for (name, key, value) in
            [("many", "many", test.many), ("medium", "medium", test.medium), ("few", "few", test.few)]
        {
            tiles.push((format!("{name}-shot classes"), key, percent(value)));
        }
    }
    if let Some(metrics) = metrics {
        tiles.push(("labels that are true".into(), "labels", percent(metrics.label_accuracy)));
        tiles.push(("mean max confidence".into(), "mmc", format!("{:.4}", metrics.mean_max_confidence)));
        if let Some(distance) = metrics.prior_distance {
            tiles.push(("class prior, distance".into(), "prior", format!("{distance:.4}")));
        }
    }
    let tile = |(name, key, value): &(String, &str, String)| {
        format!(
            "<div class=\"tile\"><b data-tile=\"{key}\">{value}</b><span>{}</span></div>\n",
            escaped(name)
        )
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

/// Epochs in the table at most: the last ones, and others at even distances.
const MOST_ROWS: usize = 60;

/// The results of epochs as a table.
fn numbers(view: &RunView) -> String {
    if view.metrics.is_empty() {
        return String::new();
    }
    let stride = view.metrics.len().div_ceil(MOST_ROWS);
    let shown = view
        .metrics
        .iter()
        .enumerate()
        .filter(|(at, _)| (view.metrics.len() - 1 - at).is_multiple_of(stride));
    let cell = |value: Option<f64>, decimals: usize| {
        format!("<td>{}</td>", value.map_or("-".into(), |value| format!("{value:.decimals$}")))
    };
    let mut rows = String::new();
    for (_, metrics) in shown {
        let test = metrics.test.as_ref();
        let _ = write!(rows, "<tr><td>{}</td>", metrics.epoch);
        rows.push_str(&cell(Some(metrics.learning_rate), 5));
        rows.push_str(&cell(Some(metrics.loss), 4));
        let groups = [
            metrics.train_accuracy,
            test.map(|test| test.top1),
            test.and_then(|test| test.top5),
            test.and_then(|test| test.many),
            test.and_then(|test| test.medium),
            test.and_then(|test| test.few),
            metrics.label_accuracy,
        ];
        groups.into_iter().for_each(|value| rows.push_str(&cell(value, 2)));
        rows.push_str(&cell(Some(metrics.mean_max_confidence), 4));
        rows.push_str(&cell(metrics.prior_distance, 4));
        rows.push_str("</tr>\n");
    }
    format!(
        "<details><summary>Numbers</summary>\n<div class=\"scroll\"><table>\n<tr><th>epoch</th><th>learning rate</th><th>loss</th>\
         <th>train</th><th>top-1</th><th>top-5</th><th>many</th><th>medium</th><th>few</th><th>labels</th><th>MMC</th>\
         <th>prior TV</th></tr>\n{rows}</table></div>\n</details>\n"
    )
}

/// What the run leaves out of its data.
fn left_out(view: &RunView) -> String {
    if view.left_out.is_empty() {
        return String::new();
    }
    let items: String = view.left_out.iter().map(|line| format!("<li>{}</li>\n", escaped(line))).collect();
    format!(
        "<details open><summary>Left out of the data</summary>\n<ul class=\"notes\">\n{items}</ul>\n</details>\n"
    )
}

fn settings(view: &RunView) -> String {
    let text = config_toml(&view.settings).unwrap_or_default();
    format!(
        "<details><summary>Settings</summary>\n<pre class=\"scroll\">{}</pre>\n</details>\n",
        escaped(&text)
    )
}
