//! The ladder of the loss of a row: cross-entropy against a confidence row with its gradient, and the
//! disambiguation of that row.

use std::sync::Arc;

use anyhow::Result;

use super::{Compared, F32, InitialValues, Ladder, OperandSpec, sources, stream};
use crate::device::cpu::Call;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};
use crate::ops::confidence::Disambiguate;
use crate::ops::control;
use crate::ops::loss::{Loss, Term};
use crate::pll::proden;

/// A rung: its kernels, and how many rows a block of 128 threads handles.
#[derive(Clone, Copy, Debug)]
struct LossRowRung {
    name: &'static str,
    loss: Kernel,
    /// The disambiguation, unless the loss kernel includes it.
    disambiguation: Option<Kernel>,
    rows: usize,
}

/// Slowest first.
const RUNGS: [LossRowRung; 3] = [
    LossRowRung {
        name: "loss_row_1_thread",
        loss: Kernel { source: &sources::LOSS_ROW_1, name: "loss_1_thread" },
        disambiguation: Some(Kernel { source: &sources::LOSS_ROW_1, name: "disambiguate_1_thread" }),
        rows: 128,
    },
    LossRowRung {
        name: "loss_row_2_warp",
        loss: Kernel { source: &sources::LOSS_ROW_2, name: "loss_2_warp" },
        disambiguation: Some(Kernel { source: &sources::LOSS_ROW_2, name: "disambiguate_2_warp" }),
        rows: 4,
    },
    LossRowRung {
        name: "loss_row_3_fused",
        loss: Kernel { source: &sources::LOSS_ROW_3, name: "loss_3_fused" },
        disambiguation: None,
        rows: 4,
    },
];

/// PRODEN's loss and disambiguation of the same rows, computed by the kernels of a rung.
#[derive(Clone, Debug)]
struct LossRowByRung {
    rung: LossRowRung,
    loss: Loss,
    disambiguation: Disambiguate,
}

impl Operation for LossRowByRung {
    fn name(&self) -> &'static str {
        self.rung.name
    }

    fn operands(&self) -> Vec<Operand> {
        let Loss { logits, target, d_logits, loss_rows, .. } = self.loss;
        vec![
            Operand::read(logits),
            Operand::update(target),
            Operand::write(d_logits),
            Operand::write(loss_rows),
        ]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        self.loss.run(cpu)?;
        self.disambiguation.run(cpu)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Loss { batch, classes, logits, target, d_logits, loss_rows, .. } = self.loss;
        let mut launch = |kernel: Kernel, tensors: &[Tensor]| {
            let arguments = tensors.iter().fold(Arguments::new(), |a, &t| a.pointer(gpu.address(t)));
            let blocks = batch.div_ceil(self.rung.rows);
            gpu.launch(Launch::linear(kernel, blocks, 128, arguments.count(batch).count(classes)));
        };
        launch(self.rung.loss, &[logits, target, d_logits, loss_rows]);
        if let Some(kernel) = self.rung.disambiguation {
            launch(kernel, &[logits, target]);
        }
        Ok(())
    }
}

/// The operation of every rung, over the tensors of [`operands`].
fn rungs(batch: usize, classes: usize) -> Vec<Arc<dyn Operation>> {
    let method = proden::method();
    let [logits, confidence, d_logits, loss_rows, candidates, index, control] = std::array::from_fn(Tensor);
    let loss = Loss {
        row_loss: method.row_loss,
        term: Term::Plain,
        joint: None,
        batch,
        classes,
        views: 1,
        first: 0,
        logits,
        target: confidence,
        candidates,
        index: None,
        d_logits,
        loss_rows,
    };
    let disambiguation = Disambiguate {
        disambiguation: method.disambiguation,
        joint: None,
        batch,
        classes,
        logits,
        log_prior: None,
        candidates,
        index,
        control,
        confidence,
    };
    let by = |&rung: &LossRowRung| LossRowByRung {
        rung,
        loss: loss.clone(),
        disambiguation: disambiguation.clone(),
    };
    RUNGS.iter().map(|rung| Arc::new(by(rung)) as _).collect()
}

/// Logits within -3..3 and confidence rows that are positive in some classes and sum to 1. Only the CPU's
/// operations read the last three tensors, as they choose rows of a store.
fn operands(batch: usize, classes: usize) -> Vec<OperandSpec> {
    let mut stream = stream(&[batch, classes]);
    let logits = (0..batch * classes).map(|_| stream.uniform(-3.0, 3.0) as f32).collect();
    let mut confidence = Vec::with_capacity(batch * classes);
    for row in 0..batch {
        let believed = |k: usize, u: f64| if k == row % classes || u < 0.4 { 0.1 + u } else { 0.0 };
        let weights: Vec<f64> = (0..classes).map(|k| believed(k, stream.unit())).collect();
        let total: f64 = weights.iter().sum();
        confidence.extend(weights.iter().map(|weight| (weight / total) as f32));
    }
    let mut control = vec![0.0; control::LEN];
    control[control::UPDATE] = 1.0;
    let bytes = InitialValues::Bytes(vec![1; batch * classes]);
    let index = InitialValues::Integers((0..batch as i32).collect());
    vec![
        OperandSpec::floats(Element::F32, logits),
        OperandSpec::floats(Element::F32, confidence),
        OperandSpec::output(Element::F32, batch * classes),
        OperandSpec::output(Element::F32, batch),
        OperandSpec { element: Element::U8, len: batch * classes, given: Some(bytes) },
        OperandSpec { element: Element::I32, len: batch, given: Some(index) },
        OperandSpec::floats(Element::F32, control),
    ]
}

/// The ladder for the given numbers of rows and classes.
pub(super) fn ladder([batch, classes]: [usize; 2]) -> Ladder {
    // Sums of K exponentials, each accurate to a few units in the last place; rounding an argument of size 6
    // is magnified by its size. In a gradient, p and c cancel.
    let relative = F32 * (classes + 32) as f64;
    let compared = |name, tensor, absolute| Compared { name, tensor: Tensor(tensor), relative, absolute };
    Ladder {
        problem: format!(
            "cross-entropy of {batch} rows of {classes} classes against confidence rows, its gradient, and \
             the disambiguation of the rows, f32"
        ),
        tolerance: "2^-24 of a value (of a gradient, of its size) for each class, as sums in f32 depend on \
                    their order, and 32 times more for the exponentials",
        rungs: rungs(batch, classes),
        operands: operands(batch, classes),
        results: vec![
            compared("confidence", 1, 0.0),
            compared("d_logits", 2, relative),
            compared("loss_rows", 3, 0.0),
        ],
    }
}
