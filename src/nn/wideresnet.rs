//! WideResNet (Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016) for CIFAR-sized images: a stem
//! of 16 channels and three groups of blocks of widths 16 k, 32 k and 64 k. Batchnorm and ReLU come *before*
//! each convolution, and once more at the end.
//!
//! A block computes o = ReLU(bn1(x)), y = conv2(ReLU(bn2(conv1(o)))) + x; where the widths differ, a 1x1
//! convolution of o replaces the summand x. Tensor names are those of the usual PyTorch port: `conv1`,
//! `block1.layer.0.bn1`, `convShortcut`, `fc`.

use super::layers::{Activation, Layers};
use super::{Mode, Network, NetworkLayout, Outputs, Parameters};
use crate::autograd::Tape;
use crate::device::Tensor;
use crate::ops::batchnorm::Epilogue;
use crate::ops::elementwise::sum;

/// Channels of the stem.
const STEM: usize = 16;

/// A WideResNet of depth 6 n + 4: n blocks per group.
#[derive(Clone, Debug, PartialEq)]
pub struct WideResNet {
    name: String,
    /// Blocks per group, n.
    blocks: usize,
    /// Channels of the first group, 16 k.
    width: usize,
    classes: usize,
}

/// A block's place in the network.
struct WideBlock {
    name: String,
    in_channels: usize,
    channels: usize,
    stride: usize,
}

impl WideResNet {
    /// A network with `blocks` blocks per group whose first group has `width` channels.
    pub fn new(name: &str, blocks: usize, width: usize, classes: usize) -> Self {
        Self { name: name.into(), blocks, width, classes }
    }

    /// WideResNet-28-k with `width` = 16 k channels in the first group.
    pub fn wideresnet28(width: usize, classes: usize) -> Self {
        Self::new("wideresnet28", 4, width, classes)
    }

    fn blocks(&self) -> impl Iterator<Item = WideBlock> {
        let (blocks, width) = (self.blocks, self.width);
        (0..3 * blocks).map(move |at| {
            let (group, number) = (at / blocks, at % blocks);
            let channels = width << group;
            let in_channels = match (group, number) {
                (0, 0) => STEM,
                (_, 0) => channels / 2,
                _ => channels,
            };
            let stride = if group > 0 && number == 0 { 2 } else { 1 };
            WideBlock { name: format!("block{}.layer.{number}", group + 1), in_channels, channels, stride }
        })
    }

    fn record_block(layers: &mut Layers<'_>, block: &WideBlock, x: Activation) -> Activation {
        let WideBlock { name, in_channels, channels, stride } = block;
        let relu = Epilogue { residual: None, relu: true };
        let o = layers.batchnorm(&format!("{name}.bn1"), x, relu);
        let shortcut = if in_channels == channels {
            x
        } else {
            layers.convolution(&format!("{name}.convShortcut"), o, [*channels, 1, *stride])
        };
        let y = layers.convolution(&format!("{name}.conv1"), o, [*channels, 3, *stride]);
        let y = layers.batchnorm(&format!("{name}.bn2"), y, relu);
        let y = layers.convolution(&format!("{name}.conv2"), y, [*channels, 3, 1]);
        Activation { tensor: sum(layers.tape, [y.tensor, shortcut.tensor]), ..y }
    }
}

impl Network for WideResNet {
    fn name(&self) -> &str {
        &self.name
    }

    fn layout(&self) -> NetworkLayout {
        let mut layout = NetworkLayout::default();
        layout.convolution("conv1", [STEM, 3, 3]);
        for WideBlock { name, in_channels, channels, .. } in self.blocks() {
            layout.batchnorm(&format!("{name}.bn1"), in_channels);
            layout.convolution(&format!("{name}.conv1"), [channels, in_channels, 3]);
            layout.batchnorm(&format!("{name}.bn2"), channels);
            layout.convolution(&format!("{name}.conv2"), [channels, channels, 3]);
            if in_channels != channels {
                layout.convolution(&format!("{name}.convShortcut"), [channels, in_channels, 1]);
            }
        }
        layout.batchnorm("bn1", self.features());
        layout.linear("fc", [self.classes, self.features()]);
        layout
    }

    fn features(&self) -> usize {
        4 * self.width
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
        let images = Activation { tensor: x, size, channels: 3 };
        let stem = layers.convolution("conv1", images, [STEM, 3, 1]);
        let x = self.blocks().fold(stem, |x, block| Self::record_block(&mut layers, &block, x));
        let x = layers.batchnorm("bn1", x, Epilogue { residual: None, relu: true });
        let features = layers.average_pool(x);
        let (logits, classifier) = layers.linear("fc", features, [self.classes, self.features()]);
        Outputs { features, logits, classifier, projection: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes given in the paper, 1.5 M for WRN-28-2 and 36.5 M for WRN-28-10, as exact counts for ten
    /// classes.
    #[test]
    fn sizes_are_those_of_the_paper() {
        for (k, expected) in [(2, 1_467_610), (10, 36_479_194)] {
            let layout = WideResNet::wideresnet28(16 * k, 10).layout();
            assert_eq!(layout.parameters.iter().map(|parameter| parameter.len()).sum::<usize>(), expected);
        }
    }
}
