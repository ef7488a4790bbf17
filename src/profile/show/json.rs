//! The profile as one JSON object.

use serde_json::{Value, json};

use crate::profile::measured::Measured;
use crate::profile::model::Time;
use crate::profile::{Part, Profile, Run, Sequence, Timed, parts};

/// The object, with a line's end.
pub fn show(profile: &Profile) -> String {
    format!("{}\n", object(profile))
}

fn object(profile: &Profile) -> Value {
    let Profile { settings, gpu, plan, step, begin_epoch, end_epoch, evaluation, host, measured } = profile;
    let mut of_step = times(step.time, 1e3, "ms");
    of_step["side_by_side"] = times(step.gained(gpu), 1e3, "ms");
    of_step["launches"] = json!(step.launches.len());
    of_step["images"] = json!(plan.images);
    of_step["images_per_second"] = json!(plan.images as f64 / step.time.expected);
    let measured_parts = measured.as_ref().map(Measured::parts);
    let part = |part: &Part| {
        let mut value = self::part(part);
        if let Some(parts) = &measured_parts
            && part.launches > 0
        {
            value["measured_ms"] = json!(1e3 * parts.get(part.name).copied().unwrap_or(0.0));
        }
        value
    };
    let mut launches: Vec<Value> = step.launches.iter().map(launch).collect();
    for (value, seconds) in launches.iter_mut().zip(profile.measured_launches().into_iter().flatten()) {
        value["measured_us"] = json!(1e6 * seconds);
    }
    let mut object = json!({
        "predicted": true,
        "gpu": gpu.name,
        "method": settings.method_title(),
        "arch": settings.arch,
        "width": settings.width,
        "batch_size": settings.batch_size,
        "precision": settings.precision.to_string(),
        "samples": plan.samples,
        "classes": plan.classes,
        "parameters": plan.parameters,
        "gap_us": 1e6 * gpu.gap,
        "step": of_step,
        "evaluation": sequence(evaluation),
        "epoch_begin": sequence(begin_epoch),
        "epoch_end": sequence(end_epoch),
        "run": run(profile),
        "host_sources": host.sources,
        "share": {
            "records": profile.share("RECORDS"),
            "augmentation": profile.share("augmentation"),
        },
        "parts": step.parts(gpu).iter().map(part).collect::<Vec<_>>(),
        "launches": launches,
    });
    if let Some(measured) = measured {
        object["measured"] = json!({
            "gpu": measured.gpu,
            "step_ms": 1e3 * measured.step,
            "in_turn_ms": 1e3 * measured.in_turn(),
            "launches": measured.launches.len(),
            "launched_alike": profile.measured_launches().is_some(),
        });
    }
    object
}

fn times(Time { best, expected, pessimistic }: Time, factor: f64, unit: &str) -> Value {
    json!({
        format!("best_{unit}"): factor * best,
        format!("expected_{unit}"): factor * expected,
        format!("pessimistic_{unit}"): factor * pessimistic,
    })
}

fn sequence(sequence: &Sequence) -> Value {
    let mut value = times(sequence.time, 1e3, "ms");
    value["launches"] = json!(sequence.launches.len());
    let kernels = sequence.alike().into_iter().map(|(timed, launches, time)| {
        let mut value = times(time, 1e3, "ms");
        value["kernel"] = json!(timed.planned.launch.kernel.name);
        value["layer"] = json!(timed.planned.layer);
        value["operation"] = json!(timed.planned.launch.operation);
        value["launches"] = json!(launches);
        value["limit"] = json!(timed.predicted.limit.word());
        value
    });
    value["kernels"] = kernels.collect();
    value
}

fn run(profile: &Profile) -> Value {
    let run = profile.run();
    let Run { steps, evaluation, between, host, checkpoints } = run;
    let minutes = 1.0 / 60.0;
    let mut value = times(run.total(), minutes, "minutes");
    value["epochs"] = json!(profile.plan.epochs);
    value["steps_an_epoch"] = json!(profile.plan.steps);
    value["parts"] = json!({
        "steps": minutes * steps.expected,
        (parts::EVALUATION): minutes * evaluation.expected,
        "gpu_between_epochs": minutes * between.expected,
        "host": minutes * host,
        "checkpoints": minutes * checkpoints,
    });
    value
}

fn part(part: &Part) -> Value {
    let mut value = times(part.time, 1e3, "ms");
    value["part"] = json!(part.name);
    value["launches"] = json!(part.launches);
    value["flops"] = json!(part.flops);
    value["bytes"] = json!(part.bytes);
    value
}

fn launch(Timed { planned, predicted, part }: &Timed) -> Value {
    let (launch, work) = (&planned.launch, planned.work());
    let mut value = times(predicted.time, 1e6, "us");
    let [multiprocessors, l2, dram] = predicted.alone.map(|seconds| 1e6 * seconds);
    for (key, entry) in [
        ("kernel", json!(launch.kernel.name)),
        ("layer", json!(planned.layer)),
        ("operation", json!(launch.operation)),
        ("part", json!(part)),
        ("branch", json!(if planned.place.aside { "aside" } else { "main" })),
        ("grid", json!(launch.grid)),
        ("block", json!(launch.block)),
        ("shared_bytes", json!(launch.shared_bytes)),
        ("registers", json!(predicted.registers)),
        ("blocks_a_multiprocessor", json!(predicted.residents)),
        ("flops", json!(work.flops)),
        ("read_bytes", json!(work.read_bytes())),
        ("written_bytes", json!(work.written_bytes())),
        ("dram_read_bytes", json!(predicted.dram.read)),
        ("dram_written_bytes", json!(predicted.dram.written)),
        ("l2_bytes", json!(predicted.l2_bytes)),
        ("l1_hits", json!(predicted.l1_hits)),
        ("limit", json!(predicted.limit.word())),
        ("alone_us", json!({ "multiprocessors": multiprocessors, "l2": l2, "dram": dram })),
    ] {
        value[key] = entry;
    }
    value
}
