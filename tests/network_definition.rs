//! The networks against their definition (docs/spec.md, section 1) in f64, written as plain loops: logits and
//! features in both modes, and gradients against central differences, for image sizes of all kinds.

mod support;

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::{Device, Element};
use records::nn::resnet::BlockKind;
use records::nn::{Mode, Network, Parameters, Pass, ResNet, StateDict, WideResNet, registry};
use records::random::philox::{Purpose, Stream};
use support::assert_close;

/// Values of a state_dict, and the input under `input`, in f64.
type Values = std::collections::BTreeMap<String, (Vec<usize>, Vec<f64>)>;

const INPUT: &str = "input";

/// A single forward pass of a whole batch.
const TRAINING: Mode = Mode::Training(Pass { number: 0, count: None });

/// A network written exactly as its definition.
struct Definition {
    kind: BlockKind,
    depths: [usize; 4],
    width: usize,
    mode: Mode,
}

/// An activation `[images, channels, size, size]`.
#[derive(Clone)]
struct Activation {
    channels: usize,
    size: usize,
    values: Vec<f64>,
}

impl Activation {
    fn relu(mut self) -> Self {
        self.values.iter_mut().for_each(|v| *v = v.max(0.0));
        self
    }
}

/// Convolution without bias, padding kernel / 2.
fn convolution(
    values: &Values,
    name: &str,
    [out_channels, kernel, stride]: [usize; 3],
    x: &Activation,
) -> Activation {
    let (shape, w) = &values[&format!("{name}.weight")];
    assert_eq!(shape[..], [out_channels, x.channels, kernel, kernel], "{name}");
    let (size, images) = (x.size, x.values.len() / (x.channels * x.size * x.size));
    let out_size = (size + 2 * (kernel / 2) - kernel) / stride + 1;
    let mut y = vec![0.0; images * out_channels * out_size * out_size];
    for image in 0..images {
        for out in 0..out_channels {
            let y = &mut y[(image * out_channels + out) * out_size * out_size..][..out_size * out_size];
            for channel in 0..x.channels {
                let x = &x.values[(image * x.channels + channel) * size * size..][..size * size];
                let w = &w[(out * shape[1] + channel) * kernel * kernel..][..kernel * kernel];
                for (at, y) in y.iter_mut().enumerate() {
                    for (tap, w) in w.iter().enumerate() {
                        let row = (at / out_size * stride + tap / kernel).wrapping_sub(kernel / 2);
                        let column = (at % out_size * stride + tap % kernel).wrapping_sub(kernel / 2);
                        if row < size && column < size {
                            *y += w * x[row * size + column];
                        }
                    }
                }
            }
        }
    }
    Activation { channels: out_channels, size: out_size, values: y }
}

fn batchnorm(mode: Mode, values: &Values, name: &str, mut x: Activation) -> Activation {
    let pixels = x.size * x.size;
    for channel in 0..x.channels {
        let of = |what: &str| values[&format!("{name}.{what}")].1[channel];
        let (mean, variance) = match mode {
            Mode::Evaluation => (of("running_mean"), of("running_var")),
            Mode::Training(_) => {
                let images = x.values.chunks_exact(pixels).skip(channel).step_by(x.channels);
                let n = (images.len() * pixels) as f64;
                let mean = images.clone().flatten().sum::<f64>() / n;
                (mean, images.flatten().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
            }
        };
        let (scale, offset) = (of("weight") / (variance + 1e-5).sqrt(), of("bias"));
        for image in x.values.chunks_exact_mut(pixels).skip(channel).step_by(x.channels) {
            image.iter_mut().for_each(|v| *v = scale * (*v - mean) + offset);
        }
    }
    x
}

impl Definition {
    fn batchnorm(&self, values: &Values, name: &str, x: Activation) -> Activation {
        batchnorm(self.mode, values, name, x)
    }

    fn block(&self, values: &Values, name: &str, width: usize, stride: usize, x: Activation) -> Activation {
        let layer = |number: usize, shape: [usize; 3], x: &Activation| {
            let y = convolution(values, &format!("{name}.conv{number}"), shape, x);
            self.batchnorm(values, &format!("{name}.bn{number}"), y)
        };
        let mut y = match self.kind {
            BlockKind::Basic => {
                let y = layer(1, [width, 3, stride], &x).relu();
                layer(2, [width, 3, 1], &y)
            }
            BlockKind::Bottleneck => {
                let y = layer(1, [width, 1, 1], &x).relu();
                let y = layer(2, [width, 3, stride], &y).relu();
                layer(3, [4 * width, 1, 1], &y)
            }
        };
        let projected = stride != 1 || x.channels != y.channels;
        assert_eq!(values.contains_key(&format!("{name}.shortcut.0.weight")), projected, "{name}");
        let shortcut = if projected {
            let y = convolution(values, &format!("{name}.shortcut.0"), [y.channels, 1, stride], &x);
            self.batchnorm(values, &format!("{name}.shortcut.1"), y)
        } else {
            x
        };
        y.values.iter_mut().zip(shortcut.values).for_each(|(y, shortcut)| *y += shortcut);
        y.relu()
    }

    /// Features and logits, `[images, features]` and `[images, classes]`.
    fn forward(&self, values: &Values) -> (Vec<f64>, Vec<f64>) {
        let (shape, input) = &values[INPUT];
        let x = Activation { channels: 3, size: shape[2], values: input.clone() };
        let y = convolution(values, "encoder.conv1", [self.width, 3, 1], &x);
        let mut x = self.batchnorm(values, "encoder.bn1", y).relu();
        for (stage, depth) in self.depths.into_iter().enumerate() {
            for number in 0..depth {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let name = format!("encoder.layer{}.{number}", stage + 1);
                x = self.block(values, &name, self.width << stage, stride, x);
            }
        }
        classify(values, &x)
    }
}

/// Features and logits of the last activation.
fn classify(values: &Values, x: &Activation) -> (Vec<f64>, Vec<f64>) {
    let pixels = x.size * x.size;
    let features: Vec<f64> =
        x.values.chunks_exact(pixels).map(|channel| channel.iter().sum::<f64>() / pixels as f64).collect();
    let (w, b) = (&values["fc.weight"].1, &values["fc.bias"].1);
    let logits = features
        .chunks_exact(x.channels)
        .flat_map(|f| {
            let product = |w: &[f64]| f.iter().zip(w).map(|(f, w)| f * w).sum::<f64>();
            w.chunks_exact(x.channels).zip(b).map(move |(w, b)| product(w) + b)
        })
        .collect();
    (features, logits)
}

/// A WideResNet written exactly as its definition: pre-activation blocks in three groups.
struct WideDefinition {
    blocks: usize,
    width: usize,
    mode: Mode,
}

impl WideDefinition {
    fn activated(&self, values: &Values, name: &str, x: Activation) -> Activation {
        batchnorm(self.mode, values, name, x).relu()
    }

    fn forward(&self, values: &Values) -> (Vec<f64>, Vec<f64>) {
        let (shape, input) = &values[INPUT];
        let images = Activation { channels: 3, size: shape[2], values: input.clone() };
        let mut x = convolution(values, "conv1", [16, 3, 1], &images);
        for group in 0..3 {
            for number in 0..self.blocks {
                let (name, width) = (format!("block{}.layer.{number}", group + 1), self.width << group);
                let stride = if group > 0 && number == 0 { 2 } else { 1 };
                let o = self.activated(values, &format!("{name}.bn1"), x.clone());
                let y = convolution(values, &format!("{name}.conv1"), [width, 3, stride], &o);
                let y = self.activated(values, &format!("{name}.bn2"), y);
                let mut y = convolution(values, &format!("{name}.conv2"), [width, 3, 1], &y);
                let shortcut = match values.contains_key(&format!("{name}.convShortcut.weight")) {
                    true => convolution(values, &format!("{name}.convShortcut"), [width, 1, stride], &o),
                    false => x,
                };
                y.values.iter_mut().zip(shortcut.values).for_each(|(y, shortcut)| *y += shortcut);
                x = y;
            }
        }
        classify(values, &self.activated(values, "bn1", x))
    }
}

/// A network on the CPU device, without any value at its initial 0 or 1, and an input.
struct Engine {
    device: CpuDevice,
    network: Box<dyn Network>,
    parameters: Parameters,
    /// Parameters, running statistics and the input `[images, 3, size, size]`.
    values: StateDict,
}

impl Engine {
    fn new(network: Box<dyn Network>, [images, size]: [usize; 2]) -> Self {
        let mut device = CpuDevice::new(0).unwrap();
        let parameters = Parameters::new(&*network, 3, &mut device).unwrap();
        let mut values = parameters.export(parameters.values, &mut device).unwrap();
        values.extend(parameters.export_running(&mut device).unwrap());
        let mut stream = Stream::new(23, Purpose::Initialisation, 0, 0, 0);
        for (name, (shape, values)) in &mut values {
            if shape.len() == 1 && name != "fc.bias" {
                let spread = if name.ends_with("running_var") { 0.1 } else { 0.2 };
                values.iter_mut().for_each(|v| *v += (spread * stream.normal()) as f32);
            }
        }
        parameters.import(parameters.values, "", &values, &mut device).unwrap();
        parameters.import_running(&values, &mut device).unwrap();
        let input = (0..images * 3 * size * size).map(|_| stream.normal() as f32).collect();
        values.insert(INPUT.into(), (vec![images, 3, size, size], input));
        Self { device, network, parameters, values }
    }

    fn exact(&self) -> Values {
        let exact = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        self.values.iter().map(|(name, (shape, v))| (name.clone(), (shape.clone(), exact(v)))).collect()
    }

    /// Features and logits; with `d_logits` also the gradients of sum(logits d_logits), including that of the
    /// input.
    fn run(&mut self, mode: Mode, d_logits: Option<&[f32]>) -> (Vec<f32>, Vec<f32>, StateDict) {
        let Self { device, network, parameters, values } = self;
        let (shape, input) = &values[INPUT];
        let [images, _, size, _] = shape[..] else { panic!("four dimensions") };
        let x = device.allocate(Element::F32, input.len(), "input").unwrap();
        device.write_f32(x, &transposed(input, 3, size * size)).unwrap();
        let mut tape = Tape::new(Element::F32);
        let x = tape.persistent(x);
        tape.differentiate(x);
        let outputs = network.record(&mut tape, parameters, mode, [images, size], x);
        tape.keep(outputs.logits);
        tape.keep(outputs.features);
        let d_input = d_logits.map(|d_logits| {
            let seed = device.allocate(Element::F32, d_logits.len(), "gradient").unwrap();
            device.write_f32(seed, d_logits).unwrap();
            let seed = tape.persistent(seed);
            let d_input = tape.backward(&[(outputs.logits, seed)])[&x];
            tape.keep(d_input);
            d_input
        });
        let plan = tape.finish(device).unwrap();
        device.replay(&plan).unwrap();
        let mut gradients = StateDict::new();
        if let Some(d_input) = d_input {
            gradients = parameters.export(parameters.gradients, device).unwrap();
            let d_input = transposed(&device.read_f32(plan.buffer(d_input)).unwrap(), size * size, 3);
            gradients.insert(INPUT.into(), (shape.clone(), d_input));
        }
        let mut read = |tensor| device.read_f32(plan.buffer(tensor)).unwrap();
        (read(outputs.features), read(outputs.logits), gradients)
    }
}

/// Each `[rows, columns]` of `values` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    values
        .chunks_exact(rows * columns)
        .flat_map(|m| (0..columns).flat_map(move |c| (0..rows).map(move |r| m[r * columns + c])))
        .collect()
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// The forward pass in both modes; a mistake in the network would show as a difference of about 1. Evaluation
/// rounds by 1e-7 per layer, in both directions. In training the batchnorms of deep layers have few values,
/// and each amplifies earlier rounding errors: `training`.
fn assert_forward(
    what: &str,
    engine: &mut Engine,
    forward: impl Fn(Mode, &Values) -> (Vec<f64>, Vec<f64>),
    training: f64,
) {
    // Evaluation comes first, because training moves the running statistics.
    for (mode, tolerance) in [(Mode::Evaluation, 5e-6), (TRAINING, training)] {
        let (features, logits) = forward(mode, &engine.exact());
        let (our_features, our_logits, _) = engine.run(mode, None);
        assert_close(&format!("{what}: features, {mode:?}"), &our_features, &rounded(&features), tolerance);
        assert_close(&format!("{what}: logits, {mode:?}"), &our_logits, &rounded(&logits), tolerance);
    }
}

/// Networks of width 4 and three classes.
const WIDTH: usize = 4;
const CLASSES: usize = 3;

fn engine(name: &str, shape: [usize; 2]) -> Engine {
    Engine::new(registry::find(name).unwrap()(WIDTH, CLASSES), shape)
}

#[test]
fn the_networks_are_the_definition_s() {
    for (name, kind, depths) in [
        ("resnet18", BlockKind::Basic, [2, 2, 2, 2]),
        ("resnet34", BlockKind::Basic, [3, 4, 6, 3]),
        ("resnet50", BlockKind::Bottleneck, [3, 4, 6, 3]),
        ("resnet101", BlockKind::Bottleneck, [3, 4, 23, 3]),
    ] {
        let forward = |mode, values: &Values| Definition { kind, depths, width: WIDTH, mode }.forward(values);
        // The error is 2e-6 for twenty layers and 6e-5 for a hundred.
        assert_forward(name, &mut engine(name, [4, 16]), forward, 3e-4);
    }
}

/// The gradient of every parameter and of the input, each along a random direction.
fn assert_gradients(what: &str, engine: &mut Engine, forward: impl Fn(&Values) -> (Vec<f64>, Vec<f64>)) {
    let mut stream = Stream::new(29, Purpose::Initialisation, 0, 0, 0);
    let d_logits: Vec<f32> =
        (0..engine.values[INPUT].0[0] * CLASSES).map(|_| stream.normal() as f32).collect();
    let (_, _, gradients) = engine.run(TRAINING, Some(&d_logits));
    let mut values = engine.exact();
    let mut worst = (0.0, String::new());
    for (tensor, (_, gradient)) in &gradients {
        let own = values[tensor].1.clone();
        let size = (own.iter().map(|v| v * v).sum::<f64>() / own.len() as f64).sqrt();
        let direction: Vec<f64> = own.iter().map(|_| stream.normal()).collect();
        let mut loss = |step: f64| {
            let moved = own.iter().zip(&direction).map(|(v, d)| v + step * d).collect();
            values.get_mut(tensor).unwrap().1 = moved;
            let (_, logits) = forward(&values);
            logits.iter().zip(&d_logits).map(|(z, &d)| z * f64::from(d)).sum::<f64>()
        };
        // So small that no ReLU changes sides, which would show as 1e-2. The rounding of the losses, 1e-14,
        // is 1e-5 of a derivative of 1, and most are larger.
        let step = 1e-9 * size;
        let difference = (loss(step) - loss(-step)) / (2.0 * step);
        values.get_mut(tensor).unwrap().1 = own;
        let ours: f64 = gradient.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
        // Along a direction of independent normal values the derivative is about as large as the gradient's
        // norm.
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let error = (ours - difference).abs() / norm;
        if error.is_nan() || error > worst.0 {
            worst = (error, tensor.clone());
        }
    }
    println!("{what}: {} tensors, worst {worst:?}", gradients.len());
    // The rounding of the differences, and f32 through batchnorms with as few as 12 values: 3e-5 at worst.
    assert!(worst.0 <= 3e-4, "{what}: the gradient of {} is off by {:.1e} of its norm", worst.1, worst.0);
}

/// Blocks with and without a projection, with and without a stride.
#[test]
fn gradients_are_differences_of_the_definition() {
    let depths = [2, 1, 1, 2];
    for (kind, shape) in
        [(BlockKind::Basic, [4, 8]), (BlockKind::Bottleneck, [4, 9]), (BlockKind::Bottleneck, [3, 20])]
    {
        let what = format!("{kind:?} at {}", shape[1]);
        let mut engine = Engine::new(Box::new(ResNet::new("small", kind, depths, WIDTH, CLASSES)), shape);
        let definition = Definition { kind, depths, width: WIDTH, mode: TRAINING };
        assert_gradients(&what, &mut engine, |values| definition.forward(values));
    }
}

#[test]
fn wide_networks_are_the_definition_s() {
    for (blocks, width, shape) in [(4, 8, [4, 16]), (1, 16, [3, 9]), (2, 4, [2, 20])] {
        let what = format!("{blocks} wide blocks of {width} at {}", shape[1]);
        let network = Box::new(WideResNet::new("small", blocks, width, CLASSES));
        let forward = |mode, values: &Values| WideDefinition { blocks, width, mode }.forward(values);
        assert_forward(&what, &mut Engine::new(network, shape), forward, 3e-4);
    }
    for (width, shape) in [(4, [4, 8]), (16, [3, 9])] {
        let network = Box::new(WideResNet::new("small", 2, width, CLASSES));
        let definition = WideDefinition { blocks: 2, width, mode: TRAINING };
        let what = format!("wide blocks of {width}");
        assert_gradients(&what, &mut Engine::new(network, shape), |values| definition.forward(values));
    }
}

/// Input sizes whose stages are odd or no power of two, and the largest of the data sets, with one block per
/// stage.
#[test]
fn every_image_size_is_the_definition_s() {
    let depths = [1, 1, 1, 1];
    for (kind, images, size) in [
        (BlockKind::Bottleneck, 3, 36),
        (BlockKind::Bottleneck, 2, 48),
        (BlockKind::Basic, 2, 75),
        (BlockKind::Bottleneck, 1, 96),
        (BlockKind::Basic, 1, 128),
        (BlockKind::Bottleneck, 1, 128),
    ] {
        let network = Box::new(ResNet::new("small", kind, depths, 4, 5));
        let mut engine = Engine::new(network, [images, size]);
        let forward = |mode, values: &Values| Definition { kind, depths, width: 4, mode }.forward(values);
        assert_forward(&format!("{kind:?} at {size}"), &mut engine, forward, 5e-6);
    }
}
