//! The profile as a picture of its own: where the time of a step goes, and a roofline of its kernels.
//! Readable on light and dark pages.

use std::fmt::Write as _;

use super::named;
use crate::profile::model::Time;
use crate::profile::{Part, Profile, Timed, parts};
use crate::svg::{escaped, mark, marks, short, text};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 860.0;
/// Where bars and the roofline's axes begin and end.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 400.0;
const BOTTOM: f64 = 800.0;
/// Parts that have a colour of their own; what is shorter is drawn as the last.
const COLOURS: [&str; 9] =
    ["#3b7dd8", "#e08a2e", "#2fa36b", "#c94f7c", "#8a63d2", "#c9a21f", "#3aa6b9", "#b5533c", "#8b8b8b"];

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#222}.s{font-size:11px}.t{font-size:17px;font-weight:600}\
.axis{stroke:#555;fill:none}.grid{stroke:#ddd}.roof{stroke:#222;stroke-width:2;fill:none}.back{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#aaa}.grid{stroke:#333}.roof{stroke:#ddd}.back{fill:#161616}}";

/// The picture.
pub fn show(profile: &Profile) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"predicted time of a training step\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    let title = format!("A training step on {}: predicted, not measured", profile.gpu.name);
    text(&mut svg, [20.0, 26.0], "t", "start", &title);
    let of = format!(
        "{}, {} of width {}, batches of {}, {}",
        profile.settings.method_title(),
        profile.settings.arch,
        profile.settings.width,
        profile.settings.batch_size,
        profile.precision()
    );
    text(&mut svg, [20.0, 46.0], "", "start", &of);
    let parts = profile.step.parts(&profile.gpu);
    let colours = Colours::new(&parts);
    bars(&parts, &colours, &mut svg);
    legend(profile, &parts, &colours, &mut svg);
    Roofline::new(profile).draw(profile, &colours, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

/// The colours of parts.
struct Colours(Vec<&'static str>);

impl Colours {
    fn new(parts: &[Part]) -> Self {
        let own = COLOURS.len() - 1;
        Self(parts.iter().filter(|part| part.launches > 0).take(own).map(|part| part.name).collect())
    }

    fn of(&self, part: &str) -> &'static str {
        COLOURS[self.0.iter().position(|name| *name == part).unwrap_or(COLOURS.len() - 1)]
    }
}

/// Takes one of the three times.
type OfTime = fn(&Time) -> f64;

/// A stacked bar for each of the three times.
fn bars(parts: &[Part], colours: &Colours, svg: &mut String) {
    // A bar is as long as its parts one after the other: what branches gain has no length.
    let parts: Vec<&Part> = parts.iter().filter(|part| part.name != parts::OVERLAP).collect();
    let most = parts.iter().map(|part| part.time.pessimistic).sum::<f64>();
    let scale = (RIGHT - LEFT) / most;
    for at in marks(1e3 * most) {
        let x = LEFT + at * 1e-3 * scale;
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"58\" y2=\"190\"/>");
        text(svg, [x, 204.0], "s", "middle", &mark(at));
    }
    text(
        svg,
        [(LEFT + RIGHT) / 2.0, 222.0],
        "s",
        "middle",
        "milliseconds of a step, its launches one after the other",
    );
    let kinds: [(&str, OfTime); 3] =
        [("best", |t| t.best), ("expected", |t| t.expected), ("at worst", |t| t.pessimistic)];
    for (row, (name, of)) in kinds.into_iter().enumerate() {
        let y = 64.0 + 42.0 * row as f64;
        text(svg, [LEFT - 10.0, y + 21.0], "", "end", name);
        let mut x = LEFT;
        for part in &parts {
            let width = of(&part.time) * scale;
            let milliseconds = short(1e3 * of(&part.time));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"32\" fill=\"{}\"><title>{}: {milliseconds} ms</title></rect>",
                colours.of(part.name),
                escaped(part.name)
            );
            x += width;
        }
    }
}

/// The parts with colour, time and share.
fn legend(profile: &Profile, parts: &[Part], colours: &Colours, svg: &mut String) {
    let (named, others): (Vec<&Part>, Vec<&Part>) =
        parts.iter().partition(|part| colours.0.contains(&part.name));
    let (gained, rest): (Vec<&Part>, Vec<&Part>) =
        others.into_iter().partition(|part| part.name == parts::OVERLAP);
    let rest = rest.iter().map(|part| part.time.expected).sum();
    let row = |part: &Part| (part.name, part.time.expected);
    let rows = named.into_iter().map(row).chain([("the rest, with launch gaps", rest)]);
    let rows = rows.chain(gained.into_iter().map(row));
    for (at, (name, seconds)) in rows.enumerate() {
        let (x, y) = (20.0 + 310.0 * (at % 3) as f64, 250.0 + 24.0 * (at / 3) as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            y - 10.0,
            colours.of(name)
        );
        let share = 100.0 * seconds / profile.step.time.expected;
        text(svg, [x + 18.0, y], "", "start", &format!("{name}: {} ms, {share:.1} %", short(1e3 * seconds)));
    }
    let time = profile.step.time;
    let line = format!(
        "expected: {} ms a step, {:.0} images/s; {} launches; the run {:.0} minutes",
        short(1e3 * time.expected),
        profile.plan.images as f64 / time.expected,
        profile.step.launches.len(),
        profile.run().total().expected / 60.0
    );
    text(svg, [20.0, 334.0], "", "start", &line);
}

/// Arithmetic a second against arithmetic a byte of DRAM traffic, both logarithmic.
struct Roofline {
    /// Powers of ten of the axes: first and last.
    across: [f64; 2],
    up: [f64; 2],
    /// FLOP/s of the tensor cores.
    peak: f64,
}

impl Roofline {
    fn new(profile: &Profile) -> Self {
        let gpu = &profile.gpu;
        // A product of 16 x 8 x 16 is 4096 operations; a multiprocessor has four sub-cores.
        let peak = 4096.0 * 4.0 * gpu.multiprocessors as f64 * gpu.clock / gpu.hmma_cycles;
        Self { across: [-1.0, 4.0], up: [peak.log10().ceil() - 5.0, peak.log10().ceil()], peak }
    }

    fn x(&self, intensity: f64) -> f64 {
        let [first, last] = self.across;
        LEFT + (intensity.log10().clamp(first, last) - first) / (last - first) * (RIGHT - LEFT)
    }

    fn y(&self, rate: f64) -> f64 {
        let [first, last] = self.up;
        BOTTOM - (rate.log10().clamp(first, last) - first) / (last - first) * (BOTTOM - TOP)
    }

    fn draw(&self, profile: &Profile, colours: &Colours, svg: &mut String) {
        text(
            svg,
            [20.0, 372.0],
            "t",
            "start",
            "Roofline: a circle is a launch, its area the time that it takes",
        );
        self.axes(svg);
        let dram = profile.gpu.dram;
        let ridge = self.peak / dram;
        // The slope from the left edge, or from where it comes in from below.
        let start = 10f64.powf(self.across[0]).max(10f64.powf(self.up[0]) / dram);
        let _ = writeln!(
            svg,
            "<polyline class=\"roof\" points=\"{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\"/>",
            self.x(start),
            self.y(start * dram),
            self.x(ridge),
            self.y(self.peak),
            RIGHT,
            self.y(self.peak)
        );
        let peak = format!("tensor cores {:.0} TFLOP/s", 1e-12 * self.peak);
        text(svg, [LEFT + 10.0, self.y(self.peak) + 4.0], "s", "start", &peak);
        let memory = format!("DRAM {:.0} GB/s", 1e-9 * dram);
        text(svg, [self.x(ridge / 30.0) - 12.0, self.y(self.peak / 30.0)], "s", "end", &memory);
        for timed in &profile.step.launches {
            self.circle(timed, profile, colours, svg);
        }
    }

    fn axes(&self, svg: &mut String) {
        for power in self.across[0] as i32..=self.across[1] as i32 {
            let x = self.x(10f64.powi(power));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>"
            );
            text(svg, [x, BOTTOM + 17.0], "s", "middle", &mark(10f64.powi(power)));
        }
        for power in self.up[0] as i32..=self.up[1] as i32 {
            let y = self.y(10f64.powi(power));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            text(svg, [LEFT - 8.0, y + 4.0], "s", "end", &mark(10f64.powi(power - 12)));
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
        text(svg, [(LEFT + RIGHT) / 2.0, BOTTOM + 38.0], "s", "middle", "FLOP a byte between DRAM and L2");
        let middle = (TOP + BOTTOM) / 2.0;
        let _ = writeln!(
            svg,
            "<text class=\"s\" transform=\"translate(30 {middle}) rotate(-90)\" text-anchor=\"middle\">TFLOP/s, expected</text>"
        );
    }

    fn circle(&self, timed: &Timed, profile: &Profile, colours: &Colours, svg: &mut String) {
        let (flops, dram) = (timed.planned.work().flops, timed.predicted.dram);
        let (seconds, bytes) = (timed.predicted.time.expected, dram.read + dram.written);
        if flops <= 0.0 || bytes <= 0.0 {
            return;
        }
        let radius = (2500.0 * seconds / profile.step.time.expected).sqrt().clamp(1.5, 16.0);
        let tip = format!(
            "{}, {}: {} us, {} TFLOP/s, {}",
            timed.planned.launch.kernel.name,
            named(timed),
            short(1e6 * seconds),
            short(1e-12 * flops / seconds),
            timed.predicted.limit.word()
        );
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\" fill=\"{}\" fill-opacity=\"0.6\"><title>{}</title></circle>",
            self.x(flops / bytes),
            self.y(flops / seconds),
            colours.of(timed.part),
            escaped(&tip)
        );
    }
}
