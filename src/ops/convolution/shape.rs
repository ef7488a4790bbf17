//! The shape of a convolution.

/// A square convolution without bias: kernel 1 or 3, padding kernel / 2, stride 1 or 2, NHWC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionShape {
    /// Images N.
    pub batch: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Channels of the input, Cin.
    pub in_channels: usize,
    /// Channels of the output, Cout.
    pub out_channels: usize,
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
}

impl ConvolutionShape {
    /// Zeros around the input on each side.
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Rows of the output.
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding() - self.kernel) / self.stride + 1
    }

    /// Columns of the output.
    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding() - self.kernel) / self.stride + 1
    }

    /// The same for the first `images` images.
    pub fn first(&self, images: usize) -> Self {
        Self { batch: images, ..*self }
    }

    /// Elements of x `[N,H,W,Cin]`.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Elements of y `[N,OH,OW,Cout]`.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Elements of w `[Cout,kh,kw,Cin]`.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.kernel * self.kernel * self.in_channels
    }

    /// Floating-point operations of the forward pass; each gradient takes as many. Taps in the padding count.
    pub fn flops(&self) -> f64 {
        2.0 * self.output_len() as f64 * (self.kernel * self.kernel * self.in_channels) as f64
    }
}
