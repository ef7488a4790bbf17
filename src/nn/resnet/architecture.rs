//! ResNet as a list of layers (docs/spec.md, section 1): the names, shapes and strides from which parameters
//! and tape are built.

/// A convolution without bias and the batchnorm after it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionLayer {
    /// state_dict name of the convolution, without `.weight`.
    pub convolution: String,
    /// state_dict name of the batchnorm, without `.weight` and the like.
    pub batchnorm: String,
    /// Channels of the input, Cin.
    pub in_channels: usize,
    /// Channels of the output, Cout.
    pub out_channels: usize,
    /// 1 or 3; the padding is kernel / 2.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
}

/// A residual block: consecutive convolutions, each with its batchnorm and a ReLU. The shortcut of the
/// block's input is added before the last ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct ResidualBlock {
    /// Two in a basic block, three in a bottleneck.
    pub convolutions: Vec<ConvolutionLayer>,
    /// The 1x1 projection of the shortcut where the block changes the shape, otherwise `None`.
    pub shortcut: Option<ConvolutionLayer>,
}

/// The kind of a network's residual blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// 3x3 with the stride, 3x3.
    Basic,
    /// 1x1, 3x3 with the stride, 1x1 to four times the width.
    Bottleneck,
}

impl BlockKind {
    /// Output channels of a block divided by its width.
    fn expansion(self) -> usize {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }

    /// Kernel and stride of each convolution of a block of a given stride.
    fn convolutions(self, stride: usize) -> Vec<(usize, usize)> {
        match self {
            BlockKind::Basic => vec![(3, stride), (3, 1)],
            BlockKind::Bottleneck => vec![(1, 1), (3, stride), (1, 1)],
        }
    }
}

/// The whole network.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNet {
    /// The word it is registered under: `resnet18` and so on.
    pub name: String,
    /// Channels of the first stage, 64 in the reference.
    pub width: usize,
    /// Classes K, outputs of the classifier.
    pub classes: usize,
    /// The first layer: 3x3 on the image, stride 1.
    pub stem: ConvolutionLayer,
    /// The residual blocks of all four stages, in order.
    pub blocks: Vec<ResidualBlock>,
    /// Length of the feature vector.
    pub features: usize,
}

impl ResNet {
    /// A network of four stages with `depths` blocks each. The stages have widths w, 2w, 4w, 8w, and their
    /// first blocks have strides 1, 2, 2, 2.
    pub fn new(name: &str, kind: BlockKind, depths: [usize; 4], width: usize, classes: usize) -> Self {
        let stem = ConvolutionLayer {
            convolution: "encoder.conv1".into(),
            batchnorm: "encoder.bn1".into(),
            in_channels: 3,
            out_channels: width,
            kernel: 3,
            stride: 1,
        };
        let mut blocks = Vec::new();
        let mut channels = width;
        for (stage, (depth, stride)) in depths.into_iter().zip([1, 2, 2, 2]).enumerate() {
            for number in 0..depth {
                let name = format!("encoder.layer{}.{number}.", stage + 1);
                let stride = if number == 0 { stride } else { 1 };
                blocks.push(block(kind, &name, channels, width << stage, stride));
                channels = (width << stage) * kind.expansion();
            }
        }
        Self { name: name.into(), width, classes, stem, blocks, features: channels }
    }

    /// ResNet-18 of the given width.
    pub fn resnet18(width: usize, classes: usize) -> Self {
        Self::new("resnet18", BlockKind::Basic, [2, 2, 2, 2], width, classes)
    }

    /// ResNet-34 of the given width.
    pub fn resnet34(width: usize, classes: usize) -> Self {
        Self::new("resnet34", BlockKind::Basic, [3, 4, 6, 3], width, classes)
    }

    /// ResNet-50 of the given width.
    pub fn resnet50(width: usize, classes: usize) -> Self {
        Self::new("resnet50", BlockKind::Bottleneck, [3, 4, 6, 3], width, classes)
    }

    /// ResNet-101 of the given width.
    pub fn resnet101(width: usize, classes: usize) -> Self {
        Self::new("resnet101", BlockKind::Bottleneck, [3, 4, 23, 3], width, classes)
    }

    /// All convolution layers in state_dict order.
    pub fn layers(&self) -> impl Iterator<Item = &ConvolutionLayer> {
        let blocks = self.blocks.iter().flat_map(|block| block.convolutions.iter().chain(&block.shortcut));
        std::iter::once(&self.stem).chain(blocks)
    }
}

/// A block of the given width on `in_channels` channels; `name` is the prefix of its layers' names.
fn block(kind: BlockKind, name: &str, in_channels: usize, width: usize, stride: usize) -> ResidualBlock {
    let out_channels = width * kind.expansion();
    let parts = kind.convolutions(stride);
    let last = parts.len() - 1;
    let layer = |(number, (kernel, stride)): (usize, (usize, usize))| ConvolutionLayer {
        convolution: format!("{name}conv{}", number + 1),
        batchnorm: format!("{name}bn{}", number + 1),
        in_channels: if number == 0 { in_channels } else { width },
        out_channels: if number == last { out_channels } else { width },
        kernel,
        stride,
    };
    let shortcut = (stride != 1 || in_channels != out_channels).then(|| ConvolutionLayer {
        convolution: format!("{name}shortcut.0"),
        batchnorm: format!("{name}shortcut.1"),
        in_channels,
        out_channels,
        kernel: 1,
        stride,
    });
    ResidualBlock { convolutions: parts.into_iter().enumerate().map(layer).collect(), shortcut }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of a network by the name of its convolution: output and input channels, kernel, stride.
    fn layer(net: &ResNet, name: &str) -> [usize; 4] {
        let layer = net.layers().find(|layer| layer.convolution == name).unwrap_or_else(|| panic!("{name}"));
        [layer.out_channels, layer.in_channels, layer.kernel, layer.stride]
    }

    /// Section 1 of docs/spec.md: where the strides and the projections are.
    #[test]
    fn basic_blocks() {
        for (net, layers, last) in [(ResNet::resnet18(64, 10), 20, 1), (ResNet::resnet34(64, 10), 36, 2)] {
            assert_eq!(net.layers().count(), layers);
            assert_eq!(net.features, 512);
            assert_eq!(layer(&net, "encoder.conv1"), [64, 3, 3, 1]);
            assert_eq!(layer(&net, "encoder.layer1.0.conv1"), [64, 64, 3, 1]);
            assert_eq!(layer(&net, "encoder.layer2.0.conv1"), [128, 64, 3, 2]);
            assert_eq!(layer(&net, "encoder.layer2.0.conv2"), [128, 128, 3, 1]);
            assert_eq!(layer(&net, "encoder.layer4.0.shortcut.0"), [512, 256, 1, 2]);
            assert_eq!(layer(&net, &format!("encoder.layer4.{last}.conv2")), [512, 512, 3, 1]);
            let projected: Vec<bool> = net.blocks.iter().map(|block| block.shortcut.is_some()).collect();
            assert_eq!(projected.iter().filter(|&&projected| projected).count(), 3, "{}", net.name);
            assert!(!projected[0], "the first stage keeps its shape");
        }
    }

    #[test]
    fn bottlenecks() {
        for (net, layers) in [(ResNet::resnet50(64, 10), 53), (ResNet::resnet101(64, 10), 104)] {
            assert_eq!(net.layers().count(), layers);
            assert_eq!(net.features, 2048);
            assert_eq!(layer(&net, "encoder.layer1.0.conv1"), [64, 64, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer1.0.conv2"), [64, 64, 3, 1]);
            assert_eq!(layer(&net, "encoder.layer1.0.conv3"), [256, 64, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer1.0.shortcut.0"), [256, 64, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer1.1.conv1"), [64, 256, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer2.0.conv1"), [128, 256, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer2.0.conv2"), [128, 128, 3, 2]);
            assert_eq!(layer(&net, "encoder.layer2.0.conv3"), [512, 128, 1, 1]);
            assert_eq!(layer(&net, "encoder.layer2.0.shortcut.0"), [512, 256, 1, 2]);
            assert_eq!(layer(&net, "encoder.layer4.2.conv3"), [2048, 512, 1, 1]);
            assert_eq!(net.blocks.iter().filter(|block| block.shortcut.is_some()).count(), 4);
        }
    }
}
