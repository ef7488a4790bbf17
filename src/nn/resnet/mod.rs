//! ResNet for CIFAR-sized images: a stem without pooling, then four stages of residual blocks (docs/spec.md,
//! section 1).

mod architecture;

pub use architecture::{BlockKind, ConvolutionLayer, ResNet, ResidualBlock};

use super::layers::{Activation, Layers};
use super::{Mode, Network, NetworkLayout, Outputs, Parameters};
use crate::autograd::Tape;
use crate::device::Tensor;
use crate::ops::batchnorm::Epilogue;

impl Network for ResNet {
    fn name(&self) -> &str {
        &self.name
    }

    fn layout(&self) -> NetworkLayout {
        let mut layout = NetworkLayout::default();
        for layer in self.layers() {
            layout.convolution(&layer.convolution, [layer.out_channels, layer.in_channels, layer.kernel]);
            layout.batchnorm(&layer.batchnorm, layer.out_channels);
        }
        layout.linear("fc", [self.classes, self.features]);
        layout
    }

    fn features(&self) -> usize {
        self.features
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn channel_multiple(&self) -> usize {
        self.width
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
        let (none, relu) = (Epilogue::default(), Epilogue { residual: None, relu: true });
        let mut x = layer(&mut layers, &self.stem, Activation { tensor: x, size, channels: 3 }, relu);
        for block in &self.blocks {
            let (last, before) = block.convolutions.split_last().expect("a block has convolutions");
            let inner = before.iter().fold(x, |x, next| layer(&mut layers, next, x, relu));
            // Recorded just before it is added, so that it is kept no longer than needed. All other uses of x
            // are recorded before the last batchnorm: in the backward pass the gradient through an identity
            // shortcut then reaches x first, and the convolutions add to it.
            let shortcut = match &block.shortcut {
                None => x.tensor,
                Some(projection) => layer(&mut layers, projection, x, none).tensor,
            };
            x = layer(&mut layers, last, inner, Epilogue { residual: Some(shortcut), relu: true });
        }
        let features = layers.average_pool(x);
        let (logits, classifier) = layers.linear("fc", features, [self.classes, self.features]);
        Outputs { features, logits, classifier, projection: None }
    }
}

/// Convolution and batchnorm with its epilogue: an optional residual and ReLU.
fn layer(layers: &mut Layers<'_>, layer: &ConvolutionLayer, x: Activation, epilogue: Epilogue) -> Activation {
    let y = layers.convolution(&layer.convolution, x, [layer.out_channels, layer.kernel, layer.stride]);
    layers.batchnorm(&layer.batchnorm, y, epilogue)
}
