//! ResNet as a list of layers (SPEC 1): names, shapes and strides, from which parameters and tape are made.

/// A convolution without bias and the batchnorm after it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionLayer {
    /// state_dict name of the convolution, without `.weight`.
    pub convolution: String,
    /// state_dict name of the batchnorm, without `.weight` and the like.
    pub batchnorm: String,
    pub in_channels: usize,
    pub out_channels: usize,
    /// 1 or 3; the padding is kernel / 2.
    pub kernel: usize,
    pub stride: usize,
}

/// relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut(x)); the shortcut is the identity where it is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub convolutions: [ConvolutionLayer; 2],
    pub shortcut: Option<ConvolutionLayer>,
}

/// The whole network.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    pub name: String,
    /// Channels of the first stage, 64 in the reference.
    pub width: usize,
    pub classes: usize,
    pub stem: ConvolutionLayer,
    pub blocks: Vec<Block>,
    /// Length of the feature vector.
    pub features: usize,
}

impl Architecture {
    /// ResNet-18 of the given width: four stages of two basic blocks, widths w, 2w, 4w, 8w, first strides 1, 2, 2, 2.
    pub fn resnet18(width: usize, classes: usize) -> Self {
        let layer = |name: &str, number: usize, in_channels, out_channels, stride| ConvolutionLayer {
            convolution: format!("{name}conv{number}"),
            batchnorm: format!("{name}bn{number}"),
            in_channels,
            out_channels,
            kernel: 3,
            stride,
        };
        let mut blocks = Vec::new();
        let mut channels = width;
        for (stage, stride) in [1, 2, 2, 2].into_iter().enumerate() {
            let out = width << stage;
            for block in 0..2 {
                let name = format!("encoder.layer{}.{block}.", stage + 1);
                let stride = if block == 0 { stride } else { 1 };
                let shortcut = (stride != 1 || channels != out).then(|| ConvolutionLayer {
                    convolution: format!("{name}shortcut.0"),
                    batchnorm: format!("{name}shortcut.1"),
                    in_channels: channels,
                    out_channels: out,
                    kernel: 1,
                    stride,
                });
                blocks.push(Block {
                    convolutions: [layer(&name, 1, channels, out, stride), layer(&name, 2, out, out, 1)],
                    shortcut,
                });
                channels = out;
            }
        }
        let stem = layer("encoder.", 1, 3, width, 1);
        Self { name: "resnet18".into(), width, classes, stem, blocks, features: channels }
    }

    /// The architecture of a name; `None` if there is none of this name.
    pub fn by_name(name: &str, width: usize, classes: usize) -> Option<Self> {
        (name == "resnet18").then(|| Self::resnet18(width, classes))
    }

    /// All convolution layers in state_dict order.
    pub fn layers(&self) -> impl Iterator<Item = &ConvolutionLayer> {
        let blocks = self.blocks.iter().flat_map(|block| block.convolutions.iter().chain(&block.shortcut));
        std::iter::once(&self.stem).chain(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resnet18_has_the_reference_layers() {
        let net = Architecture::resnet18(64, 10);
        let layers: Vec<_> = net.layers().collect();
        assert_eq!(layers.len(), 20);
        assert_eq!(layers[0].convolution, "encoder.conv1");
        let first_of_stage_2 = &net.blocks[2];
        assert_eq!(first_of_stage_2.convolutions[0].stride, 2);
        assert_eq!(first_of_stage_2.shortcut.as_ref().unwrap().batchnorm, "encoder.layer2.0.shortcut.1");
        assert_eq!(net.features, 512);
        let weights: usize =
            layers.iter().map(|l| l.out_channels * (l.in_channels * l.kernel * l.kernel + 2)).sum();
        assert_eq!(weights + 513 * 10, 11_173_962);
    }
}
