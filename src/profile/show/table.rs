//! The profile as text.

use std::fmt::Write as _;

use super::{extent, named};
use crate::profile::measured::Measured;
use crate::profile::model::Time;
use crate::profile::{Profile, Run, Sequence, Timed, parts};

/// Launches that are shown where not all are.
const SLOWEST: usize = 12;

/// The profile as text.
pub fn show(profile: &Profile, all: bool) -> String {
    let mut text = head(profile);
    step(profile, &mut text);
    run(profile, &mut text);
    if all {
        let _ = write!(text, "\n{}", launches(profile));
        between(profile, &mut text);
    } else {
        slowest(profile, &mut text);
    }
    text
}

fn head(profile: &Profile) -> String {
    let Profile { settings, gpu, plan, .. } = profile;
    let measured = match &profile.measured {
        None => "nothing here was measured".into(),
        Some(measured) => format!("beside it, what was measured on {}", measured.gpu),
    };
    format!(
        "{} on {} samples of {} classes, {} of width {}, batch {} ({} images a step), {}\n\
         predicted for {} ({} multiprocessors, {:.2} GHz): {measured}\n",
        settings.method_title(),
        plan.samples,
        plan.classes,
        settings.arch,
        settings.width,
        settings.batch_size,
        plan.images,
        profile.precision(),
        gpu.name,
        gpu.multiprocessors,
        1e-9 * gpu.clock,
    )
}

/// The sums of a step's parts.
fn step(profile: &Profile, text: &mut String) {
    let Profile { step, gpu, plan, measured, .. } = profile;
    let measured_parts = measured.as_ref().map(Measured::parts);
    let _ = writeln!(
        text,
        "\n{:<22}{:>8}{:>10}{:>10}{:>10}{:>8}{:>10}{:>9}{}",
        "a step",
        "kernels",
        "best ms",
        "expected",
        "at worst",
        "share",
        "TFLOP/s",
        "GB/s",
        if measured.is_some() { "  measured" } else { "" }
    );
    for part in step.parts(gpu) {
        let Time { best, expected, pessimistic } = part.time;
        let rates = match part.launches {
            0 => String::new(),
            _ => format!("{:>10.1}{:>9.0}", 1e-12 * part.flops / expected, 1e-9 * part.bytes / expected),
        };
        let count = if part.launches > 0 { part.launches.to_string() } else { String::new() };
        let seconds = measured_parts.as_ref().and_then(|parts| parts.get(part.name));
        let found = seconds.map_or_else(String::new, |seconds| format!("{:>10.3}", 1e3 * seconds));
        let _ = writeln!(
            text,
            "{:<22}{count:>8}{:>10.3}{:>10.3}{:>10.3}{:>7.1}%{rates}{found}",
            part.name,
            1e3 * best,
            1e3 * expected,
            1e3 * pessimistic,
            100.0 * expected / step.time.expected
        );
    }
    let Time { best, expected, pessimistic } = step.time;
    let found =
        measured.as_ref().map_or_else(String::new, |measured| format!("{:>29.3}", 1e3 * measured.step));
    let _ = writeln!(
        text,
        "{:<22}{:>8}{:>10.3}{:>10.3}{:>10.3}{:>8}{found}",
        "together",
        step.launches.len(),
        1e3 * best,
        1e3 * expected,
        1e3 * pessimistic,
        "100.0%"
    );
    let rate = |seconds: f64| plan.images as f64 / seconds;
    let _ = writeln!(
        text,
        "{:<22}{:>8}{:>10.0}{:>10.0}{:>10.0}",
        "images/s",
        "",
        rate(best),
        rate(expected),
        rate(pessimistic)
    );
    if let Some(measured) = measured
        && profile.measured_launches().is_none()
    {
        let _ = writeln!(
            text,
            "{} launches where {} are predicted, or others: only parts can be compared; --gpu describes the GPU that is there",
            measured.launches.len(),
            step.launches.len()
        );
    }
}

/// What the run takes.
fn run(profile: &Profile, text: &mut String) {
    let Profile { plan, evaluation, host, .. } = profile;
    let run = profile.run();
    let Run { steps, evaluation: tests, between, host: waits, checkpoints } = run;
    let _ = writeln!(
        text,
        "\n{:<34}{:>10}{:>10}{:>10}",
        format!("{} epochs of {} steps", plan.epochs, plan.steps),
        "best min",
        "expected",
        "at worst"
    );
    let alike = |seconds| Time { best: seconds, expected: seconds, pessimistic: seconds };
    for (name, time) in [
        ("steps", steps),
        (parts::EVALUATION, tests),
        ("GPU between epochs", between),
        ("host between epochs", alike(waits)),
        ("checkpoints", alike(checkpoints)),
        ("together", run.total()),
    ] {
        let Time { best, expected, pessimistic } = time * (1.0 / 60.0);
        let _ = writeln!(text, "{name:<34}{best:>10.2}{expected:>10.2}{pessimistic:>10.2}");
    }
    let _ = writeln!(
        text,
        "one evaluation: {} launches, {:.1} ms expected; host: {}; {}",
        evaluation.launches.len(),
        1e3 * evaluation.time.expected,
        host.sources[0],
        host.sources[1]
    );
}

/// The launches of a step that take longest.
fn slowest(profile: &Profile, text: &mut String) {
    let measured = profile.measured_launches();
    let mut order: Vec<(usize, &Timed)> = profile.step.launches.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| b.predicted.time.expected.total_cmp(&a.predicted.time.expected));
    let _ = writeln!(
        text,
        "\n{:>11}{}  {:<14}  {:<40}  slowest launches; --launches shows all",
        "expected us",
        if measured.is_some() { "   measured" } else { "" },
        "limit",
        "kernel"
    );
    for (number, timed) in order.into_iter().take(SLOWEST) {
        let _ = writeln!(
            text,
            "{:>11.1}{}  {:<14}  {:<40}  {}",
            1e6 * timed.predicted.time.expected,
            microseconds(measured.as_deref(), number),
            timed.predicted.limit.word(),
            timed.planned.launch.kernel.name,
            named(timed)
        );
    }
}

/// The measured time of a launch in microseconds, if there is one.
fn microseconds(measured: Option<&[f64]>, number: usize) -> String {
    measured.map_or_else(String::new, |seconds| format!("{:>11.1}", 1e6 * seconds[number]))
}

/// What is launched outside of steps, a line for launches that are alike.
fn between(profile: &Profile, text: &mut String) {
    for (name, sequence) in [
        ("before the steps of an epoch", &profile.begin_epoch),
        ("after the steps of an epoch", &profile.end_epoch),
        ("an evaluation", &profile.evaluation),
    ] {
        let count = sequence.launches.len();
        let _ = writeln!(text, "\n{name}: {count} launches, {:.3} ms expected", 1e3 * sequence.time.expected);
        for (timed, launches, time) in sequence.alike() {
            let _ = writeln!(
                text,
                "{launches:>6} x {:<40}{:>11}{:>11.1} us  {:<15} {}",
                timed.planned.launch.kernel.name,
                extent(timed.planned.launch.grid),
                1e6 * time.expected,
                timed.predicted.limit.word(),
                named(timed)
            );
        }
    }
}

/// Every launch of a step, one a line.
pub fn launches(profile: &Profile) -> String {
    let measured = profile.measured_launches();
    let mut text = format!(
        "{:>4} {:<31}{:<40}{:>11}{:>8}{:>7}{:>5}{:>6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{}  limit\n",
        "",
        "layer",
        "kernel",
        "grid",
        "block",
        "shared",
        "regs",
        "an SM",
        "GFLOP",
        "read MB",
        "write MB",
        "DRAM MB",
        "best us",
        "expected",
        "at worst",
        if measured.is_some() { "   measured" } else { "" }
    );
    let Sequence { launches, .. } = &profile.step;
    for (number, timed) in launches.iter().enumerate() {
        let Timed { planned, predicted, .. } = timed;
        let (launch, work) = (&planned.launch, planned.work());
        let Time { best, expected, pessimistic } = predicted.time;
        let name = if planned.layer.is_empty() { launch.operation } else { &planned.layer };
        let _ = writeln!(
            text,
            "{:>4} {name:<31}{:<40}{:>11}{:>8}{:>7}{:>5}{:>6}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>9.1}{:>9.1}{:>9.1}{}  {}",
            number + 1,
            launch.kernel.name,
            extent(launch.grid),
            extent(launch.block),
            launch.shared_bytes,
            predicted.registers,
            predicted.residents,
            1e-9 * work.flops,
            1e-6 * work.read_bytes(),
            1e-6 * work.written_bytes(),
            1e-6 * (predicted.dram.read + predicted.dram.written),
            1e6 * best,
            1e6 * expected,
            1e6 * pessimistic,
            microseconds(measured.as_deref(), number),
            predicted.limit.word(),
        );
    }
    text
}
