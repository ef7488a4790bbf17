//! Steps of SoLar against the reference: losses, weights, confidences, the queue and which samples are chosen, on a linear network.

mod support;

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::primitive::counter;
use records::device::{Buffer, Device, Element, Primitive};
use records::pll::mixup::Mixup;
use records::pll::{ConfidenceStore, Solar, method::Start, solar};
use records::settings::{Settings, SolarSettings};
use records::train::step::{EpochControl, StepState};
use records::train::tensor_file::TensorFile;
use support::{assert_close, golden};

/// f32 against PyTorch's f32, through up to twelve steps of SGD and fifty rounds of Sinkhorn in each.
const TOLERANCE: f64 = 1e-4;

fn number(file: &TensorFile, key: &str) -> f64 {
    file.metadata[key].parse().unwrap_or_else(|_| panic!("{key}: {}", file.metadata[key]))
}

fn zeros(device: &mut CpuDevice, element: Element, len: usize) -> Buffer {
    device.allocate(element, len, "case").unwrap()
}

#[test]
fn steps_match_the_reference() {
    for (path, file) in golden("solar_") {
        let mut device = CpuDevice::new(2).unwrap();
        let (shape, candidates) = file.u8("candidates").unwrap();
        let (samples, classes) = (shape[0], shape[1]);
        let (shape, _) = file.f32("step00.weak").unwrap();
        let (batch, len) = (shape[0], shape[1..].iter().product::<usize>());
        let rho: Vec<f64> = file.metadata["rho"].split(',').map(|word| word.parse().unwrap()).collect();
        let settings = SolarSettings {
            queue_length: number(&file, "queue_batches") as usize,
            lambda: number(&file, "lamd"),
            eta: number(&file, "eta"),
            tau: number(&file, "tau"),
            rho: [rho[0], rho[1]],
            warmup_epochs: number(&file, "warmup") as usize,
            ..Settings::default().solar()
        };
        let solar = Solar::new(&settings, batch, classes, true, false, &mut device).unwrap();
        device.write_f32(solar.class_prior, file.f32("class_prior").unwrap().1).unwrap();
        let store = ConfidenceStore::new(classes, candidates, &vec![0; samples], Start::Uniform, &mut device)
            .unwrap();
        device.write_f32(store.confidence, file.f32("confidence").unwrap().1).unwrap();

        // The network W x + b, with gradients for each of the three forwards.
        let initial = [file.f32("weight").unwrap().1, file.f32("bias").unwrap().1].concat();
        let parameters = initial.len();
        let values = zeros(&mut device, Element::F32, parameters);
        device.write_f32(values, &initial).unwrap();
        let gradients: Vec<Buffer> = (0..3).map(|_| zeros(&mut device, Element::F32, parameters)).collect();
        let velocity = zeros(&mut device, Element::F32, parameters);

        let state = StepState::new(&mut device).unwrap();
        let step = zeros(&mut device, Element::I32, 1);
        let mixup = Mixup::new(1, batch, step, &mut device).unwrap();
        let index = zeros(&mut device, Element::I32, batch);
        let [weak, strong] = [(); 2].map(|()| zeros(&mut device, Element::F32, batch * len));

        let mut tape = Tape::new(Element::F32);
        let index_tensor = tape.persistent(index);
        let inputs = solar::Inputs {
            weak: tape.persistent(weak),
            strong: tape.persistent(strong),
            len,
            rows: store.rows(&mut tape, index_tensor, state.control),
        };
        let recorded = solar.record(&mut tape, inputs, &mixup, &mut |tape, images, pass| {
            let gradient = match pass {
                solar::Pass::Weak => gradients[0],
                solar::Pass::Strong => gradients[1],
                solar::Pass::Mixed { .. } => gradients[2],
            };
            let parameters = tape.parameter(values, gradient);
            records::ops::linear::linear(tape, [batch, len, classes], images, parameters)
        });
        let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
        tape.push(Primitive::StepStatistics {
            batch,
            classes,
            logits: recorded.logits[0].0,
            labels,
            index: index_tensor,
            loss_rows: recorded.loss_rows,
            counters,
        });
        tape.backward(&recorded.logits);
        let [first, second, third, velocity, values_tensor] =
            [gradients[0], gradients[1], gradients[2], velocity, values].map(|b| tape.persistent(b));
        for further in [second, third] {
            tape.push(records::autograd::Add { len: parameters, x: further, into: first });
        }
        tape.push(records::optim::sgd::Sgd {
            len: parameters,
            momentum: number(&file, "momentum") as f32,
            weight_decay: number(&file, "weight_decay") as f32,
            control: inputs.rows.control,
            gradients: first,
            velocity,
            parameters: values_tensor,
            copy: None,
        });
        tape.keep(recorded.chosen);
        let plan = tape.finish(&mut device).unwrap();

        let steps = (0..).take_while(|n| file.tensors.contains_key(&format!("step{n:02}.weak"))).count();
        assert!(steps >= 12, "{path}: {steps} steps");
        for n in 0..steps {
            let tensor = |name: &str| file.f32(&format!("step{n:02}.{name}")).unwrap().1;
            let integers = |name: &str| -> Vec<i32> {
                let values = file.i64(&format!("step{n:02}.{name}")).unwrap().1;
                values.iter().map(|&i| i as i32).collect()
            };
            device.write_f32(weak, tensor("weak")).unwrap();
            device.write_f32(strong, tensor("strong")).unwrap();
            device.write_i32(index, &integers("index")).unwrap();
            let epoch = number(&file, &format!("step{n:02}.epoch")) as usize;
            let [eta, rho] = solar::ramps(&settings, epoch);
            let learning_rate = number(&file, "lr");
            let control = EpochControl { learning_rate, update: true, alpha: 0.0, eta, rho };
            state.set(&mut device, control).unwrap();
            // The file has l as drawn.
            let drawn = tensor("lambda")[0];
            device.write_f32(mixup.weights, &[drawn.max(1.0 - drawn)]).unwrap();
            let mut permutation = match epoch {
                0 => Vec::new(),
                _ => integers("perm_of_chosen"),
            };
            let wanted = permutation.len();
            permutation.extend(wanted as i32..batch as i32);
            device.write_i32(mixup.permutations, &permutation).unwrap();
            device.replay(&plan).unwrap();

            let what = |name: &str| format!("{path}: step {n}, {name}");
            let chosen = device.read_i32(plan.buffer(recorded.chosen)).unwrap();
            assert_eq!(chosen.iter().sum::<i32>() as usize, wanted, "{}", what("chosen samples"));
            let loss = device.read_f32(state.counters).unwrap()[counter::LAST_LOSS];
            assert_close(&what("loss"), &[loss], tensor("loss"), TOLERANCE);
            let weight = &device.read_f32(values).unwrap()[..classes * len];
            assert_close(&what("weight"), weight, tensor("out.weight"), TOLERANCE);
            let confidence = device.read_f32(store.confidence).unwrap();
            assert_close(&what("confidence"), &confidence, tensor("out.confidence"), TOLERANCE);
            let queue = solar.export_queue(n + 1, &mut device).unwrap();
            let head = &queue[..batch * classes];
            assert_close(&what("head of the queue"), head, tensor("out.queue_head"), TOLERANCE);
        }
    }
}
