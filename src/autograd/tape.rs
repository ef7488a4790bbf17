//! Recording primitives and their gradients.

use std::collections::HashMap;

use anyhow::Result;

use super::memory;
use crate::device::primitive::Occupied;
use crate::device::{Buffer, ConvolutionShape, Device, Element, Plan, Primitive, Tensor};

/// Where a tensor's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Storage {
    /// Memory that outlives the plan: parameters, data, confidences, state.
    Persistent(Buffer),
    /// Planned by the tape; lives from its first write to its last use.
    Temporary { element: Element, len: usize },
}

/// A step being recorded.
///
/// Forward methods append a primitive and return its result; [`Tape::backward`] appends the gradients of everything
/// differentiable recorded before it; [`Tape::finish`] plans the memory. Shapes are the caller's promise: each primitive
/// carries its own, and the device checks lengths.
pub struct Tape {
    /// How activations and their gradients are stored.
    activations: Element,
    primitives: Vec<Primitive>,
    tensors: Vec<Storage>,
    /// The gradient buffer of each parameter.
    parameter_gradients: HashMap<Tensor, Tensor>,
    /// Tensors that a gradient must reach: results of parameters.
    differentiable: Vec<bool>,
    /// Temporaries whose values are read after the plan has run, so nothing may share their memory.
    kept: Vec<Tensor>,
}

impl Tape {
    /// An empty tape whose activations are stored as `activations` ([`Device::activations`]).
    pub fn new(activations: Element) -> Self {
        Self {
            activations,
            primitives: Vec::new(),
            tensors: Vec::new(),
            parameter_gradients: HashMap::new(),
            differentiable: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// How this tape stores activations.
    pub fn activations(&self) -> Element {
        self.activations
    }

    /// A tensor in memory that outlives the plan.
    pub fn persistent(&mut self, buffer: Buffer) -> Tensor {
        self.tensors.push(Storage::Persistent(buffer));
        self.differentiable.push(false);
        Tensor(self.tensors.len() - 1)
    }

    /// A parameter and the memory of its gradient, which [`Tape::backward`] overwrites.
    pub fn parameter(&mut self, values: Buffer, gradient: Buffer) -> Tensor {
        let tensor = self.persistent(values);
        let gradient = self.persistent(gradient);
        self.parameter_gradients.insert(tensor, gradient);
        tensor
    }

    /// Asks for the gradient of an input that is not a parameter.
    pub fn differentiate(&mut self, input: Tensor) {
        self.differentiable[input.0] = true;
    }

    /// A new temporary of `len` elements.
    pub fn temporary(&mut self, element: Element, len: usize) -> Tensor {
        self.tensors.push(Storage::Temporary { element, len });
        self.differentiable.push(false);
        Tensor(self.tensors.len() - 1)
    }

    /// Elements of a tensor.
    pub fn len_of(&self, tensor: Tensor) -> usize {
        match self.tensors[tensor.0] {
            Storage::Persistent(buffer) => buffer.len,
            Storage::Temporary { len, .. } => len,
        }
    }

    /// Keeps a temporary readable after the plan has run.
    pub fn keep(&mut self, tensor: Tensor) {
        self.kept.push(tensor);
    }

    /// Appends a primitive that takes no part in differentiation.
    pub fn push(&mut self, primitive: Primitive) {
        self.primitives.push(primitive);
    }

    fn result(&mut self, element: Element, len: usize) -> Tensor {
        let tensor = self.temporary(element, len);
        self.differentiable[tensor.0] = true;
        tensor
    }

    /// Convolution of x `[N,H,W,Cin]` with a parameter `[Cout,kh,kw,Cin]`; returns y `[N,OH,OW,Cout]`.
    pub fn convolution(&mut self, shape: ConvolutionShape, x: Tensor, w: Tensor) -> Tensor {
        let y = self.result(self.activations, shape.output_len());
        self.push(Primitive::Convolution { shape, x, w, y });
        y
    }

    /// Training batchnorm over `rows` x `channels`, with an optional residual added before an optional ReLU; over the part
    /// of the rows that is `occupied` where the device decides it.
    pub fn batchnorm(
        &mut self,
        [rows, channels]: [usize; 2],
        x: Tensor,
        [affine, running]: [Tensor; 2],
        residual: Option<Tensor>,
        relu: bool,
        occupied: Option<Occupied>,
    ) -> Tensor {
        let batch = self.temporary(Element::F32, 2 * channels);
        let y = self.result(self.activations, rows * channels);
        self.push(Primitive::BatchNorm {
            rows,
            channels,
            x,
            affine,
            running,
            batch,
            residual,
            relu,
            occupied,
            y,
        });
        y
    }

    /// Batchnorm with running statistics; has no gradient.
    pub fn batchnorm_inference(
        &mut self,
        [rows, channels]: [usize; 2],
        x: Tensor,
        [affine, running]: [Tensor; 2],
        residual: Option<Tensor>,
        relu: bool,
    ) -> Tensor {
        let y = self.temporary(self.activations, rows * channels);
        self.push(Primitive::BatchNormInference { rows, channels, x, affine, running, residual, relu, y });
        y
    }

    /// Mean over the positions of x `[images, positions, channels]`.
    pub fn average_pool(&mut self, images: usize, positions: usize, channels: usize, x: Tensor) -> Tensor {
        let y = self.result(Element::F32, images * channels);
        self.push(Primitive::AveragePool { images, positions, channels, x, y });
        y
    }

    /// x `[rows, inputs]` W^T + b with a parameter `[W (outputs x inputs); b]`.
    pub fn linear(
        &mut self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: Tensor,
        parameters: Tensor,
    ) -> Tensor {
        let y = self.result(Element::F32, rows * outputs);
        self.push(Primitive::Linear { rows, inputs, outputs, x, parameters, y });
        y
    }

    /// Appends the gradient primitives of everything recorded so far, in reverse, starting from the gradients given as
    /// (tensor, its gradient). Gradients of parameters land in the memory given with them.
    ///
    /// A tensor used twice gets the sum of its gradients: the second use accumulates. Returns each tensor's gradient.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)]) -> HashMap<Tensor, Tensor> {
        let mut gradients: HashMap<Tensor, Tensor> = seeds.iter().copied().collect();
        for primitive in self.primitives.clone().into_iter().rev() {
            match primitive {
                Primitive::Convolution { shape, x, w, y } => {
                    let Some(&dy) = gradients.get(&y) else { continue };
                    let dw = self.parameter_gradients[&w];
                    self.push(Primitive::ConvolutionWeightGradient { shape, x, dy, dw });
                    if self.differentiable[x.0] {
                        let accumulate = gradients.contains_key(&x);
                        let dx = *gradients.entry(x).or_insert_with(|| {
                            temporary_like(&mut self.tensors, &mut self.differentiable, x)
                        });
                        self.push(Primitive::ConvolutionDataGradient { shape, dy, w, dx, accumulate });
                    }
                }
                Primitive::BatchNorm {
                    rows,
                    channels,
                    x,
                    affine,
                    batch,
                    residual,
                    relu,
                    occupied,
                    y,
                    ..
                } => {
                    let Some(&dy) = gradients.get(&y) else { continue };
                    let d_affine = self.parameter_gradients[&affine];
                    let dx = self.fresh_gradient(&mut gradients, x);
                    self.push(Primitive::BatchNormGradient {
                        rows,
                        channels,
                        x,
                        y,
                        relu,
                        residual: residual.is_some(),
                        occupied,
                        affine,
                        batch,
                        dy,
                        d_affine,
                        dx,
                    });
                    if let Some(residual) = residual {
                        // dy, masked in place by the primitive above, is the residual's gradient; later uses add to it.
                        let earlier = gradients.insert(residual, dy);
                        assert!(earlier.is_none(), "a residual's gradient starts at the sum it was added to");
                    }
                }
                Primitive::AveragePool { images, positions, channels, x, y } => {
                    let Some(&dy) = gradients.get(&y) else { continue };
                    let dx = self.fresh_gradient(&mut gradients, x);
                    self.push(Primitive::AveragePoolGradient { images, positions, channels, dy, dx });
                }
                Primitive::Linear { rows, inputs, outputs, x, parameters, y } => {
                    let Some(&dy) = gradients.get(&y) else { continue };
                    let d_parameters = self.parameter_gradients[&parameters];
                    let dx = self.fresh_gradient(&mut gradients, x);
                    self.push(Primitive::LinearGradient {
                        rows,
                        inputs,
                        outputs,
                        x,
                        parameters,
                        dy,
                        d_parameters,
                        dx,
                    });
                }
                _ => {}
            }
        }
        gradients
    }

    /// A new gradient for a tensor that is used once.
    fn fresh_gradient(&mut self, gradients: &mut HashMap<Tensor, Tensor>, of: Tensor) -> Tensor {
        let gradient = temporary_like(&mut self.tensors, &mut self.differentiable, of);
        let earlier = gradients.insert(of, gradient);
        assert!(earlier.is_none(), "only convolutions accumulate into a gradient");
        gradient
    }

    /// Plans the memory of the temporaries, allocates it on `device`, and returns the plan.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn finish(self, device: &mut dyn Device) -> Result<Plan> {
        memory::plan(self.primitives, &self.tensors, &self.kept, device)
    }
}

/// A new temporary of the length of `of`.
fn temporary_like(tensors: &mut Vec<Storage>, differentiable: &mut Vec<bool>, of: Tensor) -> Tensor {
    let (element, len) = match tensors[of.0] {
        Storage::Persistent(buffer) => (buffer.element, buffer.len),
        Storage::Temporary { element, len } => (element, len),
    };
    tensors.push(Storage::Temporary { element, len });
    differentiable.push(false);
    Tensor(tensors.len() - 1)
}
