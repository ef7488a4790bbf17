//! A network from outside the crate works with everything that trains the crate's own networks.

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::{Device, Element, Tensor};
use records::nn::layers::{Activation, Layers};
use records::nn::{Mode, Network, NetworkLayout, Outputs, Parameters, Pass};
use records::ops::batchnorm::Epilogue;
use records::ops::control;
use records::optim::{Hyperparameters, registry};
use records::pll::ClassPriorSource;
use records::random::philox::{Purpose, Stream};
use records::train::model::Model;

/// Two convolutions, the second with a residual.
#[derive(Debug)]
struct Small;

const FEATURES: usize = 8;
const CLASSES: usize = 4;

impl Network for Small {
    fn name(&self) -> &str {
        "small"
    }

    fn layout(&self) -> NetworkLayout {
        let mut layout = NetworkLayout::default();
        for (name, in_channels) in [("first", 3), ("second", FEATURES)] {
            layout.convolution(&format!("{name}.convolution"), [FEATURES, in_channels, 3]);
            layout.batchnorm(&format!("{name}.batchnorm"), FEATURES);
        }
        layout.linear("head", [CLASSES, FEATURES]);
        layout
    }

    fn features(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn channel_multiple(&self) -> usize {
        FEATURES
    }

    fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        mode: Mode,
        [batch, size]: [usize; 2],
        x: Tensor,
    ) -> Outputs {
        let mut layers = Layers { tape, parameters, mode, batch };
        let x = Activation { tensor: x, size, channels: 3 };
        let y = layers.convolution("first.convolution", x, [FEATURES, 3, 1]);
        let y = layers.batchnorm("first.batchnorm", y, Epilogue { residual: None, relu: true });
        let z = layers.convolution("second.convolution", y, [FEATURES, 3, 1]);
        let z = layers.batchnorm("second.batchnorm", z, Epilogue { residual: Some(y.tensor), relu: true });
        let features = layers.average_pool(z);
        let (logits, classifier) = layers.linear("head", features, [CLASSES, FEATURES]);
        Outputs { features, logits, classifier, projection: None }
    }
}

/// Steps of SGD along a fixed gradient of the logits: each lowers the sum whose gradient it is.
#[test]
fn a_network_of_one_s_own_is_trained() {
    let mut device = CpuDevice::new(1).unwrap();
    let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 0.0 };
    let sgd = registry::find("sgd").unwrap();
    let model =
        Model::new(Box::new(Small), (sgd, constants), 3, ClassPriorSource::None, &mut device).unwrap();
    let names: Vec<&str> = model.parameters.names().collect();
    assert_eq!(names[..3], ["first.convolution.weight", "first.batchnorm.weight", "first.batchnorm.bias"]);
    assert_eq!(names[6..], ["head.weight", "head.bias"]);

    let (batch, size) = (5, 6);
    let mut stream = Stream::new(5, Purpose::Initialisation, 0, 0, 0);
    let mut filled = |len: usize| {
        let values: Vec<f32> = (0..len).map(|_| stream.normal() as f32).collect();
        let buffer = device.allocate(Element::F32, len, "a test").unwrap();
        device.write_f32(buffer, &values).unwrap();
        (buffer, values)
    };
    let ((x, _), (seed, weights)) = (filled(batch * size * size * 3), filled(batch * CLASSES));
    let block = device.allocate(Element::F32, control::LEN, "a test").unwrap();
    let mut rates = [0.0; control::LEN];
    rates[control::LEARNING_RATE] = 1e-3;
    device.write_f32(block, &rates).unwrap();

    let mut tape = Tape::new(Element::F32);
    let [x, seed, block] = [x, seed, block].map(|buffer| tape.persistent(buffer));
    let mode = Mode::Training(Pass::default());
    let outputs = model.network.record(&mut tape, &model.parameters, mode, [batch, size], x);
    tape.keep(outputs.logits);
    tape.backward(&[(outputs.logits, seed)]);
    model.record_update(&mut tape, block);
    let plan = tape.finish(&mut device).unwrap();
    let mut step = || {
        device.replay(&plan).unwrap();
        let logits = device.read_f32(plan.buffer(outputs.logits)).unwrap();
        logits.iter().zip(&weights).map(|(z, w)| f64::from(z * w)).sum::<f64>()
    };
    let sums: Vec<f64> = (0..6).map(|_| step()).collect();
    assert!(sums.windows(2).all(|pair| pair[1] < pair[0]), "{sums:?}");

    let saved = model.export(&mut device).unwrap();
    assert!(saved.contains_key("momentum.head.bias") && saved.contains_key("second.batchnorm.running_var"));
    let other =
        Model::new(Box::new(Small), (sgd, constants), 4, ClassPriorSource::None, &mut device).unwrap();
    assert_ne!(other.export(&mut device).unwrap(), saved);
    assert_eq!(other.import(&saved, &mut device).unwrap(), 12);
    assert_eq!(other.export(&mut device).unwrap(), saved);
    other.initialise(3, 0, &mut device).unwrap();
    let fresh = other.export(&mut device).unwrap();
    assert!(fresh["momentum.head.bias"].1.iter().all(|&v| v == 0.0));
    assert_ne!(fresh, saved);
}
