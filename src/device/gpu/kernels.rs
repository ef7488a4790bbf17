//! What host and kernels share, a module a file of `kernels/`: the parameters of every kernel as a struct,
//! every constant.
//!
//! Both are written once, in the kernels' files; build.rs reads them there (`build/kernels.rs`). A launch
//! names each parameter:
//!
//! ```
//! use records::device::gpu::kernels::pooling;
//! use records::device::gpu::launch::Address;
//!
//! let parameters = pooling::AveragePool {
//!     images: 2,
//!     positions: 16,
//!     channels: 64,
//!     x: Address::Device(256),
//!     y: Address::Workspace(0),
//! };
//! let launch = pooling::AVERAGE_POOL_BF16.linear(1, pooling::THREADS, parameters);
//! assert_eq!(launch.arguments.offsets(), [0, 4, 8, 16, 24]);
//! ```

use super::launch::{Address, Arguments, Kernel, KernelOf, Parameters, Structure};
use super::sources::Source;

/// Kinds of a kernel's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An `int`.
    Count,
    /// A `float`.
    Float,
    /// A pointer.
    Pointer,
    /// A structure of such members, by value.
    Structure(&'static [Kind]),
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
