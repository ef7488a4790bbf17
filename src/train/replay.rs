//! Given steps on given tensors, for checking against other engines. The format is documented in docs/replay.md.

use std::path::Path;

use anyhow::Result;

use super::model::Model;
use super::step::{self, EpochControl, Method, StepInputs, StepSettings, StepState, Views};
use super::tensor_file::{TensorFile, Values};
use super::{checkpoint, method_choice};
use crate::autograd::Tape;
use crate::declaration::Group;
use crate::device::primitive::counter;
use crate::device::{Device, Element, Primitive};
use crate::nn::Architecture;
use crate::pll::debias::Oracle;
use crate::pll::method::Start;
use crate::pll::mixup::Mixup;
use crate::pll::{ConfidenceStore, Debias, Solar};
use crate::settings::given::nearest;
use crate::settings::{self, BadSetting, GivenSettings, Settings};
use crate::text::excerpt;
use crate::usage;

/// The metadata strings of a case.
struct Case<'a> {
    file: &'a TensorFile,
}

impl Case<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.file.metadata.get(key).map(String::as_str)
    }

    /// A number; `default` where the key is absent.
    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    /// A number; `None` where the key is absent.
    fn optional_number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            let shown = excerpt(text);
            text.trim().parse().map_err(|_| usage!("metadata '{key}': '{shown}' is not a number of its kind"))
        };
        self.text(key).map(parse).transpose()
    }

    /// A value a step, comma-separated; `default` for all where the key is absent; one value stands for all.
    fn each_step<T: Clone>(
        &self,
        key: &str,
        steps: usize,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Vec<T>> {
        let Some(text) = self.text(key) else { return Ok(vec![default; steps]) };
        let value = |word: &str| {
            let word = word.trim();
            parse(word).ok_or_else(|| {
                let shown = excerpt(word);
                usage!("metadata '{key}': '{shown}'; must be {wanted} for each step, comma-separated")
            })
        };
        let list: Vec<T> = text.split(',').map(value).collect::<Result<_>>()?;
        match list.len() {
            1 => Ok(vec![list[0].clone(); steps]),
            n if n == steps => Ok(list),
            n => Err(usage!("metadata '{key}': {n} values for {steps} steps")),
        }
    }

    fn flags(&self, key: &str, steps: usize) -> Result<Vec<bool>> {
        self.each_step(key, steps, false, |word| word.parse().ok(), "true or false")
    }

    fn shares(&self, key: &str, steps: usize, default: f64) -> Result<Vec<f64>> {
        let share = |word: &str| word.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        self.each_step(key, steps, default, share, "a number from 0 to 1")
    }

    /// The settings of the method and the optimiser, each checked as those of a run are, also those that the method does not read.
    fn settings(&self, batch: usize) -> Result<Settings> {
        let word = |key: &str, default: &str| self.text(key).unwrap_or(default).to_owned();
        let solar = self.text("method") == Some("solar");
        let given = GivenSettings::default()
            .with("method", word("method", "corr"))
            .with("debias", word("debias", "none"))
            .with("mixup", self.number("mixup", solar)?)
            .with("arch", word("arch", "resnet18"))
            .with("lw-loss", self.text("lw_loss").map(str::to_owned))
            .with("lw-beta", self.optional_number::<f64>("lw_beta")?)
            .with("queue-length", self.optional_number::<usize>("queue_length")?)
            .with("lamd", self.optional_number::<f64>("lamd")?)
            .with("tau", self.optional_number::<f64>("tau")?)
            .with("alpha", self.number("alpha", 1.0)?)
            .with("m", self.number("m", 0.9)?)
            .with("width", self.number("width", 64_usize)?)
            // A step without a step of the weights has a meaning here.
            .with("lr", Some(self.number("lr", 0.01)?).filter(|&lr: &f64| lr != 0.0))
            .with("momentum", self.number("momentum", 0.9)?)
            .with("weight-decay", self.number("weight_decay", 0.0)?)
            // A batch may have any number of samples.
            .with("batch-size", 2_usize);
        let in_file = |problem: BadSetting| {
            let BadSetting { name, value, reason } = problem;
            usage!("metadata '{}': '{}': {reason}", name.replace('-', "_"), excerpt(&value))
        };
        let mut settings = Settings::default();
        given.apply(&mut settings).map_err(in_file)?;
        let problems = settings.out_of_range().into_iter().chain(settings.senseless_combinations());
        match problems.into_iter().next() {
            None => Ok(Settings { batch_size: batch, ..settings }),
            Some(problem) => Err(in_file(problem)),
        }
    }

    /// The keys that mean nothing to a replay.
    ///
    /// # Errors
    /// A usage error for one that is nearly the name of a key: what it says would go unheard.
    fn unread_keys(&self) -> Result<Vec<String>> {
        let known: Vec<String> = KEYS.iter().map(ToString::to_string).collect();
        let unknown = self.file.metadata.keys().filter(|key| !KEYS.contains(&key.as_str()));
        // What an output of a replay says, and what libraries write by themselves.
        let unknown = unknown.filter(|key| !["device", "format"].contains(&key.as_str()));
        let near = |key: &str| nearest(&key.replace('-', "_").to_lowercase(), &known);
        let checked = |key: &String| match near(key) {
            // Anything of one or two letters is near to `m` and `lr`.
            Some(near) if key.len() > 2 => {
                Err(usage!("metadata '{}': unknown; did you mean '{near}'?", excerpt(key)))
            }
            _ => Ok(excerpt(key)),
        };
        unknown.map(checked).collect()
    }
}

/// The metadata strings that a case may have (docs/replay.md).
pub const KEYS: &[&str] = &[
    "arch",
    "width",
    "seed",
    "method",
    "debias",
    "mixup",
    "alpha",
    "update",
    "lr",
    "momentum",
    "weight_decay",
    "m",
    "lw_loss",
    "lw_beta",
    "queue_length",
    "lamd",
    "tau",
    "eta",
    "rho",
];

/// Checks a tensor's shape; `None` takes any length.
fn expect_shape(name: &str, shape: &[usize], wanted: &[Option<usize>]) -> Result<()> {
    let fits = shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(have, want)| want.is_none_or(|w| w == *have));
    let describe =
        || wanted.iter().map(|w| w.map_or("any".into(), |w| w.to_string())).collect::<Vec<_>>().join(", ");
    if fits { Ok(()) } else { Err(usage!("tensor '{name}': shape {shape:?}; must be [{}]", describe())) }
}

/// Checks that all of a tensor's values are 0 to 1, with room for sums in f32 that were rounded up.
fn expect_shares(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !(0.0..=1.001).contains(*value)) {
        None => Ok(()),
        Some(&bad) => Err(usage!("tensor '{name}': {}; must be 0 to 1", settings::number(f64::from(bad)))),
    }
}

/// `[B,3,H,W]` to `[B,H,W,3]`, appended to `out`.
fn append_channels_last(images: &[f32], pixels: usize, out: &mut Vec<f32>) {
    for image in images.chunks_exact(3 * pixels) {
        out.extend((0..pixels).flat_map(|p| [image[p], image[pixels + p], image[2 * pixels + p]]));
    }
}

/// Runs the case in `input` on `device` and returns what docs/replay.md lists.
///
/// # Errors
/// A usage error naming the tensor or metadata string at fault.
pub fn replay(input: &TensorFile, device: &mut dyn Device) -> Result<TensorFile> {
    let case = Case { file: input };
    let (candidate_shape, candidates) = input.u8("candidates")?;
    expect_shape("candidates", candidate_shape, &[None, None])?;
    let [samples, classes] = [candidate_shape[0], candidate_shape[1]];
    if samples == 0 || classes == 0 || i32::try_from(samples).is_err() {
        return Err(usage!(
            "tensor 'candidates': shape {candidate_shape:?}; must have 1 to 2147483647 rows of classes"
        ));
    }
    if let Some(other) = candidates.iter().find(|&&value| value > 1) {
        return Err(usage!(
            "tensor 'candidates': {other}; must be 1 for a candidate and 0 for another class"
        ));
    }
    if let Some(row) = candidates.chunks_exact(classes).position(|row| row.iter().all(|&s| s == 0)) {
        return Err(usage!("tensor 'candidates': row {row} has no candidate; every sample needs one"));
    }
    let (weak_shape, weak) = input.f32("batch.weak")?;
    expect_shape("batch.weak", weak_shape, &[None, None, Some(3), None, None])?;
    let [steps, batch, _, height, width] = weak_shape[..] else {
        unreachable!("five dimensions were checked")
    };
    if height != width || steps == 0 || batch == 0 || height == 0 {
        return Err(usage!(
            "tensor 'batch.weak': shape {weak_shape:?}; must be [steps, batch, 3, size, size], none 0"
        ));
    }
    let index = batch_index(input, steps, batch, samples)?;
    let settings = case.settings(batch)?;
    let (momentum, weight_decay) = (settings.momentum as f32, settings.weight_decay as f32);
    let controls = controls(&case, &settings, steps)?;
    let seed = case.number("seed", 0)?;

    let arch = &settings.arch;
    let architecture = Architecture::by_name(arch, settings.width, classes).ok_or_else(|| {
        usage!("metadata 'arch': '{arch}'; must be one of {}", Architecture::names().join(", "))
    })?;
    let debias = debias(input, &settings, &architecture, device)?;
    let mut model = Model::new(architecture, seed, debias, device)?;
    model.import(&input.state_dict(), device)?;
    model.parameters.batches_tracked = input.batch_counter(&model.parameters)?.unwrap_or(0);

    let step_counter = device.allocate(Element::I32, 1, "the step counter")?;
    let method = method_choice::method(&settings, classes, steps, step_counter, device)?;
    let start = method_choice::label_method(&settings).map_or(Start::Uniform, |method| method.start);
    let store = ConfidenceStore::new(classes, candidates, &vec![0; samples], start, device)?;
    if input.tensors.contains_key("confidence") {
        let (shape, confidence) = input.f32("confidence")?;
        expect_shape("confidence", shape, &[Some(samples), Some(classes)])?;
        device.write_f32(store.confidence, confidence)?;
    }
    let mut queue_steps = 0;
    if let Some(solar) = method.solar() {
        model.parameters.allocate_passes(solar.passes(), device)?;
        queue_steps = import_solar(input, solar, batch, device)?;
    }
    if let Some(mixup) = method.mixup() {
        import_mixup(input, mixup, steps, settings.mixup, device)?;
    }
    let strong = if method.views() == 2 {
        let (strong_shape, strong) = input.f32("batch.strong")?;
        expect_shape("batch.strong", strong_shape, &weak_shape.iter().map(|&n| Some(n)).collect::<Vec<_>>())?;
        strong
    } else {
        &[]
    };
    let state = StepState::new(device)?;

    // Weak and strong views lie one behind the other; SoLar forwards them apart.
    let view_len = batch * 3 * height * height;
    let activations = device.activations();
    let index_buffer = device.allocate(Element::I32, batch, "the index")?;
    let mut tape = Tape::new(activations);
    let (views, rest) = match &method {
        Method::Joint(..) => {
            let views = device.allocate(activations, method.forwards() * view_len, "the views")?;
            ([views.part(0, method.views() * view_len)].to_vec(), Views::Together(tape.persistent(views)))
        }
        Method::Solar(..) => {
            let mut one = || device.allocate(activations, view_len, "the views");
            let (weak, strong) = (one()?, one()?);
            let tensors = Views::Apart { weak: tape.persistent(weak), strong: tape.persistent(strong) };
            ([weak, strong].to_vec(), tensors)
        }
    };
    let inputs = StepInputs { views: rest, index: tape.persistent(index_buffer) };
    let step_settings = StepSettings { batch, size: height, momentum, weight_decay };
    let recorded = step::record(&mut tape, &step_settings, &model, &method, &store, &state, inputs);
    recorded.logits.iter().chain(recorded.solar.iter().flatten()).for_each(|&tensor| tape.keep(tensor));
    let step = tape.persistent(step_counter);
    tape.push(Primitive::AdvanceStep { step, modulus: None });
    let plan = tape.finish(device)?;

    let mut losses = Vec::with_capacity(steps);
    for (number, &control) in controls.iter().enumerate() {
        let mut images = Vec::with_capacity(2 * view_len);
        append_channels_last(&weak[number * view_len..][..view_len], height * height, &mut images);
        if !strong.is_empty() {
            append_channels_last(&strong[number * view_len..][..view_len], height * height, &mut images);
        }
        let mut rest = &images[..];
        for &buffer in &views {
            let (part, behind) = rest.split_at(buffer.len);
            device.write_f32(buffer, part)?;
            rest = behind;
        }
        device.write_i32(index_buffer, &index[number * batch..][..batch])?;
        state.set(device, control)?;
        device.replay(&plan)?;
        model.parameters.batches_tracked += match method.solar() {
            None => 1,
            Some(solar) => solar.passes().min(if control.eta == 0.0 { 2 } else { 3 }) as i64,
        };
        losses.push(device.read_f32(state.counters)?[counter::LAST_LOSS]);
    }

    let mut output = TensorFile::default();
    let mut put = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
        output.tensors.insert(name.into(), (shape, Values::F32(values)));
    };
    put("loss", vec![steps], losses);
    let names = ["logits.weak", "logits.strong", "logits.weak_mixed", "logits.strong_mixed"];
    let order: Vec<&str> = match &method {
        Method::Joint(method, _) if method.views == 1 => vec![names[0], names[2]],
        Method::Joint(..) => names.to_vec(),
        Method::Solar(..) => names[..3].to_vec(),
    };
    let mut logits = Vec::new();
    for &tensor in &recorded.logits {
        logits.extend(device.read_f32(plan.buffer(tensor))?);
    }
    for (name, rows) in order.into_iter().zip(logits.chunks_exact(batch * classes)) {
        put(name, vec![batch, classes], rows.to_vec());
    }
    put("confidence", vec![samples, classes], device.read_f32(store.confidence)?);
    if let (Some(solar), Some([refined, chosen, outcome])) = (method.solar(), recorded.solar) {
        put("refined", vec![batch, classes], device.read_f32(plan.buffer(refined))?);
        put("sinkhorn", vec![2], device.read_f32(plan.buffer(outcome))?);
        let chosen = device.read_i32(plan.buffer(chosen))?;
        output.tensors.insert("chosen".into(), (vec![batch], Values::I32(chosen)));
        checkpoint::export_solar(&mut output, solar, queue_steps + steps, device)?;
    }
    output.extend(model.export(device)?);
    output.add_batch_counters(&model.parameters);
    let gradients = model.gradients(device)?;
    output.extend(gradients.into_iter().map(|(name, tensor)| (format!("grad.{name}"), tensor)).collect());
    output.metadata.insert("device".into(), device.name().into());
    Ok(output)
}

/// The samples of every step.
fn batch_index(input: &TensorFile, steps: usize, batch: usize, samples: usize) -> Result<Vec<i32>> {
    let (index_shape, index) = input.i64("batch.index")?;
    expect_shape("batch.index", index_shape, &[Some(steps), Some(batch)])?;
    if let Some(bad) = index.iter().find(|&&i| i < 0 || i as usize >= samples) {
        return Err(usage!("tensor 'batch.index': {bad} is no row of 'candidates' (0 to {})", samples - 1));
    }
    for row in index.chunks_exact(batch) {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
            return Err(usage!("tensor 'batch.index': {} occurs twice in one step", two[0]));
        }
    }
    Ok(index.iter().map(|&i| i as i32).collect())
}

/// The scalars of every step.
fn controls(case: &Case<'_>, settings: &Settings, steps: usize) -> Result<Vec<EpochControl>> {
    let updates = case.flags("update", steps)?;
    let (etas, rhos) = (case.shares("eta", steps, 0.0)?, case.shares("rho", steps, 0.2)?);
    // Checked with the settings, which have none of 0.
    let learning_rate = case.number("lr", 0.01)?;
    let solar = settings.method == settings::Method::Solar;
    let control = |((update, eta), rho)| EpochControl {
        learning_rate,
        // SoLar renews its rows in every step.
        update: update || solar,
        alpha: settings.alpha,
        eta,
        rho,
    };
    Ok(updates.into_iter().zip(etas).zip(rhos).map(control).collect())
}

/// What the case subtracts from logits; the oracle's class prior is the tensor `prior`.
fn debias(
    input: &TensorFile,
    settings: &Settings,
    architecture: &Architecture,
    device: &mut dyn Device,
) -> Result<Debias> {
    let classes = architecture.classes;
    let dimensions = [architecture.features, classes];
    if settings.debias != settings::Debias::Oracle {
        return method_choice::debias(settings, Some(&vec![1; classes]), dimensions, device);
    }
    let (shape, prior) = input.f32("prior")?;
    expect_shape("prior", shape, &[Some(classes)])?;
    expect_shares("prior", prior)?;
    Ok(Debias::Oracle(Oracle::new(prior, true, device)?))
}

/// Weights and permutations of the steps; a method that mixes needs both.
fn import_mixup(
    input: &TensorFile,
    mixup: &Mixup,
    steps: usize,
    mixes: bool,
    device: &mut dyn Device,
) -> Result<()> {
    let batch = mixup.batch();
    if !mixes {
        let identity: Vec<i32> = (0..steps).flat_map(|_| 0..batch as i32).collect();
        return device.write_i32(mixup.permutations, &identity);
    }
    let (shape, weights) = input.f32("mixup.weight")?;
    expect_shape("mixup.weight", shape, &[Some(steps)])?;
    expect_shares("mixup.weight", weights)?;
    let (shape, permutations) = input.i64("mixup.permutation")?;
    expect_shape("mixup.permutation", shape, &[Some(steps), Some(batch)])?;
    for (step, row) in permutations.chunks_exact(batch).enumerate() {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if sorted.iter().enumerate().any(|(i, &number)| number != i as i64) {
            return Err(usage!(
                "tensor 'mixup.permutation': step {step} is no permutation of 0 to {}",
                batch - 1
            ));
        }
    }
    device.write_f32(mixup.weights, weights)?;
    device.write_i32(mixup.permutations, &permutations.iter().map(|&i| i as i32).collect::<Vec<_>>())
}

/// SoLar's class prior and queue where the case has them; returns the steps that filled the queue.
fn import_solar(input: &TensorFile, solar: &Solar, batch: usize, device: &mut dyn Device) -> Result<usize> {
    let classes = solar.class_prior.len;
    if input.tensors.contains_key(checkpoint::CLASS_PRIOR) {
        let (shape, prior) = input.f32(checkpoint::CLASS_PRIOR)?;
        expect_shape(checkpoint::CLASS_PRIOR, shape, &[Some(classes)])?;
        expect_shares(checkpoint::CLASS_PRIOR, prior)?;
        device.write_f32(solar.class_prior, prior)?;
    }
    if !input.tensors.contains_key(checkpoint::QUEUE) {
        return Ok(0);
    }
    let (shape, queue) = input.f32(checkpoint::QUEUE)?;
    let rows = solar.queue.map_or(0, |queue| queue.len / classes);
    expect_shape(checkpoint::QUEUE, shape, &[Some(rows), Some(classes)])?;
    // A queue that is not full yet ends in zeros.
    let filled = queue.chunks_exact(batch * classes).take_while(|block| block.iter().any(|&v| v != 0.0));
    let steps = filled.count();
    solar.import_queue(queue, steps, device)?;
    Ok(steps)
}

/// [`replay`] from file to file; the output is written whole or not at all. Returns the metadata keys that mean nothing.
///
/// # Errors
/// A usage error naming the file and the tensor or metadata string at fault.
pub fn replay_file(input: &Path, output: &Path, device: &mut dyn Device) -> Result<Vec<String>> {
    let case = TensorFile::read(input)?;
    let in_file = |error| usage!("{}: {error:#}", input.display());
    let unread = Case { file: &case }.unread_keys().map_err(in_file)?;
    let result = replay(&case, device).map_err(in_file)?;
    result.write(output)?;
    Ok(unread)
}
