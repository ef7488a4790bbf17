//! What a launch does, as its lowering knows it: the memory it touches, its arithmetic, the steps of its main
//! loop. Predictions of its time are made from this and from what the compiler made of its kernel, without
//! running anything.

use super::launch::Address;

/// A range of device memory that a launch reads or writes, each byte counted once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Where it begins.
    pub address: Address,
    /// Bytes touched from there on; where rows are chosen by index, as many as the rows have.
    pub bytes: usize,
}

/// What a launch does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Device memory that it reads.
    pub reads: Vec<Span>,
    /// Device memory that it writes.
    pub writes: Vec<Span>,
    /// Floating-point operations of the formula; a multiply-add counts two.
    pub flops: f64,
    /// The matrix product that it is on the tensor cores, if it is one.
    pub product: Option<Product>,
    /// Barriers over all blocks.
    pub grid_barriers: usize,
}

/// A matrix product in tiles, one a block, summed in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
    /// Values of the summed index in a step.
    pub slice: usize,
    /// Barriers of a block in a step: as often its warps wait for each other and for what was copied.
    pub barriers: usize,
    /// Whether what a step loads to registers is needed in a later step only.
    pub loads_ahead: bool,
    /// Blocks that do equally many steps, in the order in which they are launched.
    pub groups: Vec<Group>,
}

/// Blocks that do equally many steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How many blocks.
    pub blocks: usize,
    /// Steps of each.
    pub steps: usize,
    /// Which values of an image they copy, if it is not a tile of values side by side.
    pub gather: Option<Gather>,
}

/// Where the values stand that the blocks of a product gather from a batch of images, an NHWC tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Rows and columns of an image.
    pub image: [usize; 2],
    /// Bytes of a pixel.
    pub pixel_bytes: usize,
    /// Rows and columns of the points that pixels are gathered for, and pixels from one point to the next.
    pub points: [usize; 2],
    /// As said there.
    pub stride: usize,
    /// Rows and columns from a point to the pixels that it gathers.
    pub taps: Vec<[isize; 2]>,
    /// How the blocks go through them.
    pub order: GatherOrder,
}

/// How blocks go through what is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatherOrder {
    /// A block keeps its points; a step is a tap and some bytes of its pixels, taps first.
    Points {
        /// Points of a block.
        points: usize,
        /// Bytes of a pixel in a step.
        bytes: usize,
        /// Neighbouring blocks that have the same points.
        across: usize,
    },
    /// A block keeps its bytes of the taps' pixels laid side by side; a step is some points of its share of
    /// them.
    Columns {
        /// Bytes of a block.
        bytes: usize,
        /// Points of a step.
        points: usize,
        /// Blocks that cover the taps.
        across: usize,
        /// Rows of such blocks that have the same share.
        down: usize,
        /// Points of a share.
        share: usize,
    },
    /// Blocks copy pixels with those around them once for all taps, around the L1 cache.
    Halo {
        /// Pixels that the blocks copy in all, each time for a slice of channels.
        pixels: usize,
        /// Bytes of a pixel in a slice.
        bytes: usize,
        /// The side of a block's tile that is not gathered.
        around: usize,
    },
}

impl Work {
    /// Nothing but arithmetic so far.
    pub fn of(flops: f64) -> Self {
        Self { flops, ..Self::default() }
    }

    /// The same, reading these as well.
    #[must_use]
    pub fn reading(mut self, spans: impl IntoIterator<Item = Span>) -> Self {
        self.reads.extend(spans.into_iter().filter(Span::is_there));
        self
    }

    /// The same, writing these as well.
    #[must_use]
    pub fn writing(mut self, spans: impl IntoIterator<Item = Span>) -> Self {
        self.writes.extend(spans.into_iter().filter(Span::is_there));
        self
    }

    /// The same, as a product on the tensor cores.
    #[must_use]
    pub fn as_product(self, product: Product) -> Self {
        Self { product: Some(product), ..self }
    }

    /// Bytes that it reads, each once.
    pub fn read_bytes(&self) -> f64 {
        bytes(&self.reads)
    }

    /// Bytes that it writes, each once.
    pub fn written_bytes(&self) -> f64 {
        bytes(&self.writes)
    }

    /// Operations of the tensor cores: whole tiles, with what hangs over the edge of the result.
    pub fn tensor_flops(&self) -> f64 {
        let Some(Product { tile: [rows, columns], slice, groups, .. }) = &self.product else { return 0.0 };
        let steps: f64 = groups.iter().map(|group| group.blocks as f64 * group.steps as f64).sum();
        2.0 * steps * (rows * columns * slice) as f64
    }

    /// What a kernel's loops run over: the steps of a product in each of `warps` warps of a block, else
    /// floating-point operations, else bytes.
    pub fn items(&self, warps: usize) -> f64 {
        if let Some(product) = &self.product {
            product.groups.iter().map(|group| (group.blocks * group.steps * warps) as f64).sum()
        } else if self.flops > 0.0 {
            self.flops
        } else {
            self.read_bytes() + self.written_bytes()
        }
    }

    /// Moves what lies in the workspace `bytes` further on.
    pub(super) fn shift_workspace(&mut self, bytes: usize) {
        for Span { address, .. } in self.reads.iter_mut().chain(&mut self.writes) {
            if let Address::Workspace(offset) = address {
                *offset += bytes;
            }
        }
    }

    /// Puts the workspace at the address `start`.
    pub(super) fn place_workspace(&mut self, start: u64) {
        for Span { address, .. } in self.reads.iter_mut().chain(&mut self.writes) {
            if let Address::Workspace(offset) = *address {
                *address = Address::Device(start + offset as u64);
            }
        }
    }
}

impl Span {
    /// `bytes` from `address` on.
    pub fn new(address: Address, bytes: usize) -> Self {
        Self { address, bytes }
    }

    fn is_there(&self) -> bool {
        self.bytes > 0 && self.address != Address::NULL
    }
}

fn bytes(spans: &[Span]) -> f64 {
    spans.iter().map(|span| span.bytes as f64).sum()
}
