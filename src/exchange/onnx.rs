//! A network as an ONNX model, from its recorded forward pass in evaluation mode.
//!
//! The operations of the tape become nodes, so whatever network is built from the layers can be exported.
//! Activations are NHWC on our tape and NCHW in ONNX; weights have PyTorch's layout in both files. The batch
//! dimension is free. Format: onnx.proto3 of the ONNX project, opset 13.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::cpu::CpuDevice;
use crate::device::{Access, Buffer, Device, Element, Operation, Plan, Tensor};
use crate::nn::{Mode, Parameters, StateDict};
use crate::ops::batchnorm::BatchNormInference;
use crate::ops::convolution::Convolution;
use crate::ops::elementwise::{Relu, Sum};
use crate::ops::linear::Linear;
use crate::ops::pooling::AveragePool;
use crate::protobuf::Message;
use crate::settings::Settings;
use crate::train::checkpoint::Checkpoint;
use crate::train::model::Model;
use crate::train::predict::ImageForm;
use crate::usage;

/// The version of ONNX's operators, read by every runtime since 2020.
const OPSET: u64 = 13;
/// The version of the file format that came with it.
const IR_VERSION: u64 = 7;

/// What an exported model does besides the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnnxOptions {
    /// Whether the model normalises its images itself: its input is then RGB in 0..1, else normalised RGB.
    pub normalises: bool,
    /// Whether the log of the class prior is subtracted from the logits, where the run has a debias.
    pub debiases: bool,
}

/// The bytes of an ONNX model of the network in `checkpoint`, which lies at `path`: input `images` f32
/// `[batch,3,S,S]`, output `logits` f32 `[batch,K]`.
///
/// # Errors
/// A usage error where the checkpoint does not fit its own settings, or the network has an operation that has
/// no form in ONNX.
pub fn model(checkpoint: &Checkpoint, path: &Path, options: OnnxOptions) -> Result<Vec<u8>> {
    let settings = checkpoint.settings(path)?;
    let mut device = CpuDevice::new(1)?;
    let model = checkpoint.model(&settings, path, &mut device)?;
    let form = ImageForm::of(&settings, &checkpoint.progress.classes)?;
    let pass = Pass::record(&model, form.size, &mut device)?;
    let weights = Weights::of(&model.parameters, &mut device)?;
    let mut graph = Graph { weights, ..Graph::default() };
    let images = match options.normalises {
        false => "images".to_string(),
        true => graph.normalise(&form),
    };
    graph.names.insert(pass.images, images);
    for operation in pass.operations() {
        graph.add(&**operation, &pass.plan)?;
    }
    let logits = graph.name(pass.logits)?;
    match pass.log_prior.filter(|_| options.debiases) {
        None => graph.node("Identity", &[&logits], "logits", &[]),
        Some(log_prior) => {
            device.replay(&pass.plan)?;
            let log_prior = device.read_f32(log_prior)?;
            graph.constant("log_prior", &[log_prior.len()], &log_prior);
            graph.node("Sub", &[&logits, "log_prior"], "logits", &[]);
        }
    }
    let classes = checkpoint.progress.classes.len();
    let mut about = about(checkpoint, &settings)?;
    let debiased = options.debiases && pass.log_prior.is_some();
    about.insert("normalises".into(), options.normalises.to_string());
    about.insert("debiased".into(), debiased.to_string());
    Ok(graph.into_model(form.size, classes, &about))
}

/// What a user of exported weights must know, by key.
///
/// # Errors
/// A usage error for settings that name no data set.
pub fn about(checkpoint: &Checkpoint, settings: &Settings) -> Result<BTreeMap<String, String>> {
    let classes = &checkpoint.progress.classes;
    let form = ImageForm::of(settings, classes)?;
    let entries = [
        ("made_by", format!("records {}", env!("CARGO_PKG_VERSION"))),
        ("method", settings.method_title()),
        ("arch", settings.arch.clone()),
        ("width", settings.width.to_string()),
        ("epochs_done", checkpoint.progress.epochs_done.to_string()),
        ("classes", serde_json::to_string(classes)?),
        ("image_size", form.size.to_string()),
        ("mean", serde_json::to_string(&form.normalisation.mean)?),
        ("std", serde_json::to_string(&form.normalisation.std)?),
    ];
    Ok(entries.map(|(key, value)| (key.to_string(), value)).into())
}

/// A recorded pass of one image.
struct Pass {
    plan: Plan,
    images: Tensor,
    logits: Tensor,
    log_prior: Option<Buffer>,
}

impl Pass {
    fn record(model: &Model, size: usize, device: &mut dyn Device) -> Result<Self> {
        let mut tape = Tape::new(device.activations());
        let buffer = device.allocate(Element::F32, size * size * 3, "an image")?;
        let images = tape.persistent(buffer);
        let outputs = model.network.record(&mut tape, &model.parameters, Mode::Evaluation, [1, size], images);
        let log_prior = model.debias.record_test(&mut tape, outputs.classifier);
        tape.keep(outputs.logits);
        let plan = tape.finish(device)?;
        Ok(Self { plan, images, logits: outputs.logits, log_prior })
    }

    /// The operations that lead to the logits, in order: not those of a method's own layers beside the
    /// classifier, nor of the class prior.
    fn operations(&self) -> Vec<&Arc<dyn Operation>> {
        let mut needed = BTreeSet::from([self.logits]);
        let mut kept = Vec::new();
        for operation in self.plan.operations().iter().rev() {
            let operands = operation.operands();
            let writes = |tensor: Tensor| {
                operands.iter().any(|operand| operand.access != Access::Read && operand.tensor == tensor)
            };
            if needed.iter().any(|&tensor| writes(tensor)) {
                needed.extend(operands.iter().map(|operand| operand.tensor));
                kept.push(operation);
            }
        }
        kept.reverse();
        kept
    }
}

/// The network's tensors, and which of them lies where.
#[derive(Default)]
struct Weights {
    dict: StateDict,
    values: Vec<(usize, String)>,
    running: Vec<(usize, String)>,
    arenas: Option<[Buffer; 2]>,
}

impl Weights {
    fn of(parameters: &Parameters, device: &mut dyn Device) -> Result<Self> {
        let mut dict = parameters.export(parameters.values, device)?;
        dict.extend(parameters.export_running(device)?);
        let [values, running] = parameters
            .ranges()
            .map(|ranges| ranges.into_iter().map(|(name, range)| (range.start, name.to_string())).collect());
        let arenas = Some([parameters.values, parameters.running]);
        Ok(Self { dict, values, running, arenas })
    }

    /// The names of the two tensors that begin where `buffer` does and right behind: weight and bias, or mean
    /// and variance.
    fn names(&self, buffer: Buffer) -> Result<[String; 2]> {
        let [values, running] = self.arenas.ok_or_else(|| usage!("there are no weights"))?;
        let entries = match buffer.allocation {
            of if of == values.allocation => &self.values,
            of if of == running.allocation => &self.running,
            _ => return Err(usage!("the network reads a tensor that is none of its own")),
        };
        let at = entries.iter().position(|(start, _)| *start == buffer.offset);
        let at = at.ok_or_else(|| usage!("the network reads a part of a parameter"))?;
        let name = |at: usize| entries.get(at).map(|(_, name)| name.clone()).unwrap_or_default();
        Ok([name(at), name(at + 1)])
    }
}

/// A graph being built.
#[derive(Default)]
struct Graph {
    nodes: Vec<Message>,
    constants: Vec<Message>,
    weights: Weights,
    /// The name in the graph of each tensor of the tape.
    names: BTreeMap<Tensor, String>,
}

/// An attribute of a node.
enum Attribute {
    Integer(&'static str, u64),
    Integers(&'static str, Vec<u64>),
    Float(&'static str, f32),
}

impl Attribute {
    /// AttributeProto: name 1, f 2, i 3, ints 8, type 20 (1 float, 2 integer, 7 integers).
    fn message(&self) -> Message {
        let named = |name: &str| Message::default().text(1, name);
        match self {
            Self::Float(name, value) => named(name).float(2, *value).integer(20, 1),
            Self::Integer(name, value) => named(name).integer(3, *value).integer(20, 2),
            Self::Integers(name, values) => {
                values.iter().fold(named(name), |message, &value| message.integer(8, value)).integer(20, 7)
            }
        }
    }
}

impl Graph {
    fn name(&self, tensor: Tensor) -> Result<String> {
        self.names
            .get(&tensor)
            .cloned()
            .ok_or_else(|| usage!("the network reads a tensor that nothing wrote"))
    }

    /// NodeProto: input 1, output 2, name 3, operator 4, attribute 5.
    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[Attribute]) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input));
        let node = node.text(2, output).text(3, &format!("{operator}_{output}")).text(4, operator);
        self.nodes.push(node.messages(5, &attributes.iter().map(Attribute::message).collect::<Vec<_>>()));
    }

    /// A node whose output has a name of its own, which is returned.
    fn step(&mut self, operator: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let output = format!("t{}", self.nodes.len());
        self.node(operator, inputs, &output, attributes);
        output
    }

    /// TensorProto: dimensions 1, type 2 (1 is f32), name 8, raw little-endian values 9.
    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Message::default().packed(1, &shape).integer(2, 1).text(8, name).bytes(9, &bytes);
        self.constants.push(tensor);
    }

    /// Adds the network's tensor `name` as a constant, once; returns the name.
    fn weight(&mut self, name: String) -> Result<String> {
        if let Some((shape, values)) = self.weights.dict.remove(&name) {
            self.constant(&name, &shape, &values);
        }
        Ok(name)
    }

    /// (images - mean) / std; returns the name of the result.
    fn normalise(&mut self, form: &ImageForm) -> String {
        self.constant("mean", &[1, 3, 1, 1], &form.normalisation.mean);
        self.constant("std", &[1, 3, 1, 1], &form.normalisation.std);
        let centred = self.step("Sub", &["images", "mean"], &[]);
        self.step("Div", &[&centred, "std"], &[])
    }

    /// Appends an operation of the tape.
    fn add(&mut self, operation: &dyn Operation, plan: &Plan) -> Result<()> {
        let weights = |graph: &Self, tensor: Tensor| graph.weights.names(plan.buffer(tensor));
        if let Some(Convolution { shape, x, w, y }) = operation.downcast() {
            let (x, [name, _]) = (self.name(*x)?, weights(self, *w)?);
            let w = self.weight(name)?;
            let both = |size: usize, times: usize| vec![size as u64; times];
            let attributes = [
                Attribute::Integers("kernel_shape", both(shape.kernel, 2)),
                Attribute::Integers("strides", both(shape.stride, 2)),
                Attribute::Integers("pads", both(shape.padding(), 4)),
            ];
            let out = self.step("Conv", &[&x, &w], &attributes);
            self.names.insert(*y, out);
        } else if let Some(BatchNormInference { x, affine, running, residual, relu, y, .. }) =
            operation.downcast()
        {
            let mut inputs = vec![self.name(*x)?];
            for name in weights(self, *affine)?.into_iter().chain(weights(self, *running)?) {
                inputs.push(self.weight(name)?);
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let mut out = self.step("BatchNormalization", &inputs, &[Attribute::Float("epsilon", 1e-5)]);
            if let Some(residual) = residual {
                let residual = self.name(*residual)?;
                out = self.step("Add", &[&out, &residual], &[]);
            }
            if *relu {
                out = self.step("Relu", &[&out], &[]);
            }
            self.names.insert(*y, out);
        } else if let Some(AveragePool { x, y, .. }) = operation.downcast() {
            let x = self.name(*x)?;
            let pooled = self.step("GlobalAveragePool", &[&x], &[]);
            let out = self.step("Flatten", &[&pooled], &[Attribute::Integer("axis", 1)]);
            self.names.insert(*y, out);
        } else if let Some(Linear { x, parameters, y, .. }) = operation.downcast() {
            let (x, [w, b]) = (self.name(*x)?, weights(self, *parameters)?);
            let (w, b) = (self.weight(w)?, self.weight(b)?);
            let out = self.step("Gemm", &[&x, &w, &b], &[Attribute::Integer("transB", 1)]);
            self.names.insert(*y, out);
        } else if let Some(Sum { terms: [a, b], out, .. }) = operation.downcast() {
            let (a, b) = (self.name(*a)?, self.name(*b)?);
            let sum = self.step("Add", &[&a, &b], &[]);
            self.names.insert(*out, sum);
        } else if let Some(Relu { x, y, .. }) = operation.downcast() {
            let x = self.name(*x)?;
            let out = self.step("Relu", &[&x], &[]);
            self.names.insert(*y, out);
        } else {
            return Err(usage!(
                "the network's operation '{}' has no form in ONNX here; export safetensors instead",
                operation.name()
            ));
        }
        Ok(())
    }

    /// ModelProto: format version 1, producer 2 and 3, graph 7, operator sets 8, metadata 14. GraphProto:
    /// nodes 1, name 2, constants 5, inputs 11, outputs 12.
    fn into_model(self, size: usize, classes: usize, about: &BTreeMap<String, String>) -> Vec<u8> {
        let images = value("images", &[None, Some(3), Some(size), Some(size)]);
        let graph = Message::default()
            .messages(1, &self.nodes)
            .text(2, "records")
            .messages(5, &self.constants)
            .message(11, &images)
            .message(12, &value("logits", &[None, Some(classes)]));
        let entries: Vec<Message> =
            about.iter().map(|(key, value)| Message::default().text(1, key).text(2, value)).collect();
        Message::default()
            .integer(1, IR_VERSION)
            .text(2, "records")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(7, &graph)
            .message(8, &Message::default().text(1, "").integer(2, OPSET))
            .messages(14, &entries)
            .into_bytes()
    }
}

/// ValueInfoProto: name 1, type 2; the type is a tensor (1) of f32 (1) with a shape (2) of dimensions (1),
/// each a number (1) or a name (2).
fn value(name: &str, shape: &[Option<usize>]) -> Message {
    let dimension = |size: &Option<usize>| match size {
        Some(size) => Message::default().integer(1, *size as u64),
        None => Message::default().text(2, "batch"),
    };
    let shape: Vec<Message> = shape.iter().map(dimension).collect();
    let shape = Message::default().messages(1, &shape);
    let tensor = Message::default().integer(1, 1).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}
