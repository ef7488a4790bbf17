//! Reads ONNX models back and evaluates them with plain loops in f64, without the code that wrote them but
//! its reader of fields.

use std::collections::BTreeMap;

use records::protobuf::{Field, fields, read_varint};

/// A tensor: shape and row-major values.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// A node with its attributes.
#[derive(Debug)]
pub struct Node {
    pub operator: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    integers: BTreeMap<String, Vec<usize>>,
    floats: BTreeMap<String, f32>,
}

/// A model.
#[derive(Debug)]
pub struct Model {
    pub nodes: Vec<Node>,
    pub constants: BTreeMap<String, Values>,
    /// Raw bytes of the constants.
    pub raw: BTreeMap<String, Vec<u8>>,
    pub metadata: BTreeMap<String, String>,
    /// Inputs and outputs with their shapes; a name is a free dimension.
    pub ends: Vec<(String, Vec<String>)>,
    pub opset: u64,
}

fn all<'a>(message: &'a [u8], number: u64) -> impl Iterator<Item = Field<'a>> {
    fields(message)
        .expect("a message")
        .into_iter()
        .filter(move |(found, _)| *found == number)
        .map(|(_, value)| value)
}

fn bytes(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    all(message, number).map(move |field| match field {
        Field::Bytes(bytes) => bytes,
        other => panic!("field {number} is {other:?}"),
    })
}

fn texts(message: &[u8], number: u64) -> Vec<String> {
    bytes(message, number).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}

fn text(message: &[u8], number: u64) -> String {
    texts(message, number).into_iter().next().unwrap_or_default()
}

fn integers(message: &[u8], number: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for field in all(message, number) {
        match field {
            Field::Integer(value) => found.push(value),
            Field::Bytes(mut packed) => {
                while !packed.is_empty() {
                    found.push(read_varint(&mut packed).unwrap());
                }
            }
            other => panic!("field {number} is {other:?}"),
        }
    }
    found
}

impl Model {
    /// Parses a model.
    pub fn read(file: &[u8]) -> Self {
        let graph = bytes(file, 7).next().expect("a graph");
        let (mut constants, mut raw) = (BTreeMap::new(), BTreeMap::new());
        for tensor in bytes(graph, 5) {
            assert_eq!(integers(tensor, 2), [1], "constants are f32");
            let values = bytes(tensor, 9).next().unwrap();
            let shape: Vec<usize> = integers(tensor, 1).iter().map(|&size| size as usize).collect();
            let floats = values.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
            raw.insert(text(tensor, 8), values.to_vec());
            constants.insert(text(tensor, 8), Values { shape, values: floats.collect() });
        }
        let ends = bytes(graph, 11).chain(bytes(graph, 12)).map(|end| {
            let tensor = bytes(bytes(end, 2).next().unwrap(), 1).next().unwrap();
            assert_eq!(integers(tensor, 1), [1], "inputs and outputs are f32");
            let shape = bytes(bytes(tensor, 2).next().unwrap(), 1).map(|dimension| {
                integers(dimension, 1).first().map_or_else(|| text(dimension, 2), |size| size.to_string())
            });
            (text(end, 1), shape.collect())
        });
        Self {
            nodes: bytes(graph, 1).map(node).collect(),
            constants,
            raw,
            metadata: bytes(file, 14).map(|entry| (text(entry, 1), text(entry, 2))).collect(),
            ends: ends.collect(),
            opset: integers(bytes(file, 8).next().unwrap(), 2)[0],
        }
    }

    /// The output `logits` for `images`.
    pub fn run(&self, images: Values) -> Values {
        let mut known = self.constants.clone();
        known.insert("images".into(), images);
        for node in &self.nodes {
            let inputs: Vec<&Values> =
                node.inputs.iter().map(|name| known.get(name).unwrap_or_else(|| panic!("{name}"))).collect();
            let result = node.run(&inputs);
            assert!(known.insert(node.outputs[0].clone(), result).is_none(), "every name is written once");
        }
        known.remove("logits").expect("the output")
    }
}

fn node(message: &[u8]) -> Node {
    let (mut whole, mut floats) = (BTreeMap::new(), BTreeMap::new());
    for attribute in bytes(message, 5) {
        let name = text(attribute, 1);
        match integers(attribute, 20)[0] {
            1 => {
                let Some(Field::Fixed32(value)) = all(attribute, 2).next() else { panic!("{name}") };
                floats.insert(name, f32::from_le_bytes(value));
            }
            2 | 7 => {
                let values = integers(attribute, 3).into_iter().chain(integers(attribute, 8));
                whole.insert(name, values.map(|value| value as usize).collect());
            }
            other => panic!("an attribute of type {other}"),
        }
    }
    let operator = text(message, 4);
    Node { operator, inputs: texts(message, 1), outputs: texts(message, 2), integers: whole, floats }
}

impl Node {
    fn run(&self, inputs: &[&Values]) -> Values {
        let x = inputs[0];
        match self.operator.as_str() {
            "Identity" => x.clone(),
            "Sub" => broadcast(x, inputs[1], |a, b| a - b),
            "Div" => broadcast(x, inputs[1], |a, b| a / b),
            "Add" => broadcast(x, inputs[1], |a, b| a + b),
            "Relu" => Values { values: x.values.iter().map(|value| value.max(0.0)).collect(), ..x.clone() },
            "Flatten" => Values { shape: vec![x.shape[0], x.shape[1]], values: x.values.clone() },
            "GlobalAveragePool" => pool(x),
            "Conv" => self.convolution(x, inputs[1]),
            "BatchNormalization" => self.batchnorm(x, &inputs[1..]),
            "Gemm" => gemm(x, inputs[1], inputs[2]),
            other => panic!("the operator {other}"),
        }
    }

    fn convolution(&self, x: &Values, w: &Values) -> Values {
        let [n, c, h, width] = x.shape[..] else { panic!() };
        let [out, inner, k, _] = w.shape[..] else { panic!() };
        assert_eq!((c, &self.integers["kernel_shape"]), (inner, &vec![k, k]));
        let (stride, pad) = (self.integers["strides"][0], self.integers["pads"][0]);
        let (oh, ow) = ((h + 2 * pad - k) / stride + 1, (width + 2 * pad - k) / stride + 1);
        let mut values = vec![0.0; n * out * oh * ow];
        for (at, value) in values.iter_mut().enumerate() {
            let (column, row) = (at % ow, at / ow % oh);
            let (channel, image) = (at / (ow * oh) % out, at / (ow * oh * out));
            for i in 0..c {
                for y in 0..k {
                    for z in 0..k {
                        let (r, q) = (row * stride + y, column * stride + z);
                        if r >= pad && q >= pad && r - pad < h && q - pad < width {
                            let pixel = x.values[((image * c + i) * h + r - pad) * width + q - pad];
                            *value += pixel * w.values[((channel * c + i) * k + y) * k + z];
                        }
                    }
                }
            }
        }
        Values { shape: vec![n, out, oh, ow], values }
    }

    fn batchnorm(&self, x: &Values, parameters: &[&Values]) -> Values {
        let [scale, bias, mean, variance] = parameters[..] else { panic!() };
        let plane = x.shape[2] * x.shape[3];
        let epsilon = f64::from(self.floats["epsilon"]);
        let normalised = x.values.iter().enumerate().map(|(at, value)| {
            let c = at / plane % x.shape[1];
            (value - mean.values[c]) / (variance.values[c] + epsilon).sqrt() * scale.values[c]
                + bias.values[c]
        });
        Values { shape: x.shape.clone(), values: normalised.collect() }
    }
}

/// `b` has the shape of `a`, or one value for each channel or column of it.
fn broadcast(a: &Values, b: &Values, with: impl Fn(f64, f64) -> f64) -> Values {
    let inner = if a.shape.len() == 4 { a.shape[2] * a.shape[3] } else { 1 };
    let other = |at: usize| if b.shape == a.shape { at } else { at / inner % b.values.len() };
    let values = a.values.iter().enumerate().map(|(at, &value)| with(value, b.values[other(at)]));
    Values { shape: a.shape.clone(), values: values.collect() }
}

fn pool(x: &Values) -> Values {
    let plane = x.shape[2] * x.shape[3];
    let means = x.values.chunks_exact(plane).map(|values| values.iter().sum::<f64>() / plane as f64);
    Values { shape: vec![x.shape[0], x.shape[1], 1, 1], values: means.collect() }
}

/// x W^T + b.
fn gemm(x: &Values, w: &Values, b: &Values) -> Values {
    let (inputs, outputs) = (w.shape[1], w.shape[0]);
    let mut values = Vec::new();
    for row in x.values.chunks_exact(inputs) {
        for (weights, bias) in w.values.chunks_exact(inputs).zip(&b.values) {
            values.push(row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() + bias);
        }
    }
    Values { shape: vec![x.shape[0], outputs], values }
}
