//! Line charts: series over epochs.

use std::fmt::Write as _;

use crate::svg::{escaped, mark, marks, text};

/// Points that a line is drawn with at most.
const MOST_POINTS: usize = 300;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 235.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 428.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 200.0;

/// A line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour: one of c0 to c7, or grey.
    pub colour: String,
    /// Epoch and value; none where a value is not known.
    pub points: Vec<(f64, f64)>,
    /// Least and largest value around each point, drawn as a band.
    pub band: Vec<(f64, f64, f64)>,
    /// Whether it is dashed: what the others are held against.
    pub dashed: bool,
}

impl Series {
    /// A plain line.
    pub fn new(name: &str, colour: &str, points: impl Iterator<Item = (usize, Option<f64>)>) -> Self {
        let known = points.filter_map(|(epoch, value)| Some((epoch as f64, value?)));
        Self {
            name: name.into(),
            colour: colour.into(),
            points: known.filter(|(_, value)| value.is_finite()).collect(),
            band: Vec::new(),
            dashed: false,
        }
    }

    /// The same, dashed.
    pub fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

/// A chart.
pub struct LineChart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What its numbers are, behind the title.
    pub unit: &'a str,
    /// Least and largest number of the axis; `None` takes what the series need.
    pub range: Option<[f64; 2]>,
    /// The lines.
    pub series: Vec<Series>,
}

/// The scales of a chart.
struct Scales {
    across: [f64; 2],
    up: [f64; 2],
}

impl Scales {
    fn x(&self, epoch: f64) -> f64 {
        let [first, last] = self.across;
        LEFT + (epoch - first) / (last - first).max(1.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let [least, most] = self.up;
        BOTTOM - (value - least) / (most - least) * (BOTTOM - TOP)
    }
}

impl LineChart<'_> {
    /// The chart as a figure; nothing where there is no point.
    pub fn figure(&self) -> String {
        let known: Vec<&Series> = self.series.iter().filter(|series| !series.points.is_empty()).collect();
        if known.is_empty() {
            return String::new();
        }
        let scales = self.scales(&known);
        let mut svg = format!(
            "<figure data-chart=\"{0}\"><figcaption>{0}{1}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{0} over epochs\">\n",
            escaped(self.title),
            if self.unit.is_empty() {
                String::new()
            } else {
                format!(" <small>{}</small>", escaped(self.unit))
            },
        );
        axes(&scales, &mut svg);
        for series in &known {
            draw(series, &scales, &mut svg);
        }
        svg.push_str("</svg>\n");
        legend(&known, &mut svg);
        svg.push_str("</figure>\n");
        svg
    }

    fn scales(&self, known: &[&Series]) -> Scales {
        let points = || known.iter().flat_map(|series| &series.points);
        let banded = known.iter().flat_map(|series| &series.band);
        let values = points().map(|(_, value)| *value).chain(banded.flat_map(|&(_, low, high)| [low, high]));
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), v| (l.min(v), m.max(v)));
        let across =
            points().fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], (x, _)| [a.min(*x), b.max(*x)]);
        let up = self.range.unwrap_or_else(|| {
            // From zero unless the values lie far from it.
            let low = if least >= 0.0 && least < 0.5 * most { 0.0 } else { least };
            let room = if most > low { 0.05 * (most - low) } else { most.abs().max(1.0) * 0.5 };
            let least = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
            [if low == 0.0 { 0.0 } else { least }, most + room]
        });
        Scales { across, up }
    }
}

/// Marks between `least` and `most`, at round numbers.
fn marks_between([least, most]: [f64; 2]) -> Vec<f64> {
    let steps = marks(most - least);
    let step = steps.get(1).copied().unwrap_or(1.0);
    let first = (least / step).ceil();
    (0..).map(|i| (first + f64::from(i)) * step).take_while(|&at| at <= most + 1e-9 * step).take(12).collect()
}

/// A number beside a mark, with the decimals that steps of this size need.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    if decimals > 5 { format!("{value:.1e}") } else { format!("{value:.decimals$}") }
}

fn axes(scales: &Scales, svg: &mut String) {
    let up = marks_between(scales.up);
    let step = if up.len() > 1 { up[1] - up[0] } else { 1.0 };
    for at in up {
        let y = scales.y(at);
        let _ =
            writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        text(svg, [LEFT - 6.0, y + 4.0], "", "end", &label(at, step));
    }
    let [first, last] = scales.across;
    let across = marks_between([first, last.max(first + 1.0)]);
    for at in across.into_iter().filter(|at| at.fract() == 0.0 && *at <= last) {
        text(svg, [scales.x(at), BOTTOM + 16.0], "", "middle", &mark(at));
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
    text(svg, [RIGHT, BOTTOM + 29.0], "", "end", "epoch");
}

/// At most [`MOST_POINTS`] of the points: of each stretch the least and the largest, so that no peak is lost;
/// and the last.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    let mut kept = Vec::with_capacity(MOST_POINTS + 2);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [part.iter().min_by(by_value), part.iter().max_by(by_value)];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    if kept.last() != points.last() {
        kept.extend(points.last());
    }
    kept
}

fn draw(series: &Series, scales: &Scales, svg: &mut String) {
    let Series { name, colour, points, band, dashed } = series;
    if band.len() > 1 {
        let upper = band.iter().map(|&(x, _, high)| (x, high));
        let lower = band.iter().rev().map(|&(x, low, _)| (x, low));
        let _ = writeln!(
            svg,
            "<polygon class=\"band {colour}\" points=\"{}\"/>",
            places(upper.chain(lower), scales)
        );
    }
    let dash = if *dashed { " dashed" } else { "" };
    let shown = thinned(points);
    let last = points[points.len() - 1].1;
    let _ = writeln!(
        svg,
        "<polyline class=\"line {colour}{dash}\" data-series=\"{}\" data-count=\"{}\" data-last=\"{last}\" points=\"{}\"/>",
        escaped(name),
        points.len(),
        places(shown.iter().copied(), scales)
    );
    // Few points are shown as such; the last one always, with its number.
    let dots = if points.len() <= 40 && !dashed { &points[..] } else { &points[points.len() - 1..] };
    for &(epoch, value) in dots {
        let _ = writeln!(
            svg,
            "<circle class=\"{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}, epoch {epoch}: {}</title></circle>",
            scales.x(epoch),
            scales.y(value),
            escaped(name),
            number(value)
        );
    }
}

fn places(points: impl Iterator<Item = (f64, f64)>, scales: &Scales) -> String {
    points.map(|(x, y)| format!("{:.1},{:.1}", scales.x(x), scales.y(y))).collect::<Vec<_>>().join(" ")
}

/// A number for a legend or a tip.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.2}"),
        0.0 => "0".into(),
        v if v >= 0.01 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// Each line's name with its last value.
fn legend(known: &[&Series], svg: &mut String) {
    svg.push_str("<div class=\"legend\">");
    for series in known {
        let last = series.points.last().map_or(String::new(), |(_, value)| number(*value));
        let dash = if series.dashed { " dashed" } else { "" };
        let _ = write!(
            svg,
            "<span><i class=\"{}{dash}\"></i>{} <b>{last}</b></span>",
            series.colour,
            escaped(&series.name)
        );
    }
    svg.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks_and_the_end() {
        let points: Vec<(f64, f64)> =
            (0..5000).map(|i| (f64::from(i), if i == 1234 { 9.0 } else { f64::from(i % 3) })).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= MOST_POINTS + 1, "{}", kept.len());
        assert!(kept.contains(&(1234.0, 9.0)) && kept.last() == points.last());
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(&points[..7]), points[..7]);
    }

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(marks_between([0.0, 100.0]), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(marks_between([3.1, 3.9]).first(), Some(&3.2));
        assert_eq!([label(20.0, 20.0), label(0.4, 0.2), label(0.006, 0.001)], ["20", "0.4", "0.006"]);
    }
}
