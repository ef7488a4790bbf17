//! Steps of SoLar on a linear network, recorded as one plan.

use std::ops::Range;

use anyhow::Result;
use records::autograd::Tape;
use records::device::{Buffer, Device, Element, Plan, Tensor};
use records::nn::{Outputs, Pass};
use records::pll::method::Room;
use records::pll::recorder::{Exposed, Forward, ViewSource};
use records::pll::solar::Solar;
use records::pll::solar::settings::SolarSettings;
use records::pll::{ClassPriorSource, ConfidenceStore, Learner, Start, StepRecorder};
use records::train::step::StepState;

/// W x + b, with gradients for each of the three forward passes.
struct Linear {
    classes: usize,
    len: usize,
    values: Buffer,
    gradients: [Buffer; 3],
}

impl Forward for Linear {
    fn record(
        &mut self,
        pass: Pass,
        images: usize,
        x: Tensor,
        tape: &mut Tape,
        _: &mut dyn Device,
    ) -> Result<Outputs> {
        let classifier = tape.parameter(self.values, self.gradients[pass.number]);
        let logits = records::ops::linear::linear(tape, [images, self.len, self.classes], x, classifier);
        Ok(Outputs { features: x, logits, classifier, projection: None })
    }
}

/// The weak and the strong view.
struct Given([Buffer; 2]);

impl ViewSource for Given {
    fn record(
        &mut self,
        views: Range<usize>,
        _: usize,
        tape: &mut Tape,
        _: &mut dyn Device,
    ) -> Result<Tensor> {
        assert_eq!(views.len(), 1, "SoLar has its views apart");
        Ok(tape.persistent(self.0[views.start]))
    }
}

/// The recorded step and its buffers.
pub struct SolarSteps {
    pub solar: Solar,
    pub store: ConfidenceStore,
    pub state: StepState,
    /// W, then b.
    pub values: Buffer,
    /// Of one view `[B, len]` each, weak first.
    pub views: [Buffer; 2],
    /// i32 `[B]`.
    pub index: Buffer,
    pub plan: Plan,
    exposed: Vec<Exposed>,
}

impl SolarSteps {
    /// Steps of `batch` of the samples with candidate sets `[N, classes]`, of `len` values each, mixup being
    /// given for `steps` steps, after which it starts again.
    pub fn new(
        settings: &SolarSettings,
        [batch, len, classes, steps]: [usize; 4],
        candidates: &[u8],
        [momentum, weight_decay]: [f32; 2],
        device: &mut dyn Device,
    ) -> Self {
        let samples = candidates.len() / classes;
        let store =
            ConfidenceStore::new(classes, candidates, &vec![0; samples], Start::Uniform, device).unwrap();
        let state = StepState::new(device).unwrap();
        let mut zeros = |element, len| device.allocate(element, len, "a test operand").unwrap();
        let parameters = classes * (len + 1);
        let values = zeros(Element::F32, parameters);
        let gradients = [(); 3].map(|()| zeros(Element::F32, parameters));
        let velocity = zeros(Element::F32, parameters);
        let views = [(); 2].map(|()| zeros(Element::F32, batch * len));
        let (index, step) = (zeros(Element::I32, batch), zeros(Element::I32, 1));
        let room = Room { batch, classes, steps, step, mixup: true, parameters: None };
        let solar = Solar::new(settings, &room, device).unwrap();

        let mut tape = Tape::new(Element::F32);
        let index_tensor = tape.persistent(index);
        let rows = store.rows(&mut tape, index_tensor, state.control);
        let mut network = Linear { classes, len, values, gradients };
        let mut given = Given(views);
        let mut recorder = StepRecorder::new(
            [batch, len],
            rows,
            &ClassPriorSource::None,
            &mut given,
            &mut network,
            &mut tape,
            device,
        );
        let recorded = solar.record(&mut recorder).unwrap();
        let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
        tape.push(records::ops::statistics::StepStatistics {
            batch,
            classes,
            logits: recorded.logits[0].0,
            labels,
            index: index_tensor,
            loss_rows: recorded.loss_rows,
            counters,
        });
        tape.backward(&recorded.logits);
        let [first, second, third] = gradients.map(|gradient| tape.persistent(gradient));
        for x in [second, third] {
            tape.push(records::autograd::Add { len: parameters, x, into: first });
        }
        let (velocity, values_tensor) = (tape.persistent(velocity), tape.persistent(values));
        tape.push(records::optim::sgd::Sgd {
            len: parameters,
            momentum,
            weight_decay,
            nesterov: false,
            control: rows.control,
            gradients: first,
            scaling: None,
            velocity,
            parameters: values_tensor,
            copy: None,
        });
        let step = tape.persistent(step);
        tape.push(records::ops::input::AdvanceStep { step, modulus: Some(steps) });
        recorded.exposed.iter().for_each(|exposed| tape.keep(exposed.tensor));
        let plan = tape.finish(device).unwrap();
        Self { solar, store, state, values, views, index, plan, exposed: recorded.exposed }
    }

    /// The buffer that a replay shows as `name`.
    pub fn exposed(&self, name: &str) -> Buffer {
        let exposed = self.exposed.iter().find(|exposed| exposed.name == name);
        self.plan.buffer(exposed.unwrap_or_else(|| panic!("no {name}")).tensor)
    }
}
