//! The operations of SoLar: predictions masked by the candidates and counted by class, Sinkhorn's iteration,
//! the choice of reliable samples, and the loss over chosen and other samples (docs/spec.md, section 7).

mod choice;
mod loss;
mod predictions;
mod sinkhorn;

use anyhow::{Result, ensure};

pub use self::choice::ChooseSamples;
pub use self::loss::{MixedLoss, SolarLoss};
pub use self::predictions::{CountArgmax, MaskedSoftmax};
pub use self::sinkhorn::{Sinkhorn, SinkhornSettings, outcome};
use crate::device::gpu::kernels::solar::CHOICE_THREADS;
pub use crate::device::gpu::kernels::solar::{ETA, RHO};
use crate::device::gpu::launch::{KernelOf, Launch, Parameters};
use crate::device::gpu::lower::Lowering;

/// Shared memory that these kernels use in addition to the dynamic memory requested here.
const SHARED_RESERVED: usize = 512;

/// Launches one block with `bytes` of dynamic shared memory.
fn launch_one_block<P: Parameters>(
    gpu: &mut Lowering<'_>,
    kernel: KernelOf<P>,
    bytes: usize,
    parameters: P,
) -> Result<()> {
    let (name, limit) = (kernel.kernel.name, gpu.gpu().shared_bytes);
    ensure!(
        bytes + SHARED_RESERVED <= limit,
        "{name}: needs {bytes} bytes of shared memory, more than the {limit} of a block"
    );
    let launch = kernel.linear(1, CHOICE_THREADS, parameters);
    gpu.launch(Launch { shared_bytes: bytes as u32, ..launch });
    Ok(())
}
