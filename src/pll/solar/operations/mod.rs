//! The operations of SoLar: predictions masked by the candidates and counted by class, Sinkhorn's iteration,
//! the choice of reliable samples, and the loss over chosen and other samples (SPEC 7).

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

/// Shared memory that such a kernel has beside what is asked for here.
const SHARED_RESERVED: usize = 512;

/// One block with `bytes` of shared memory.
fn launch_one_block<P: Parameters>(
    gpu: &mut Lowering<'_>,
    kernel: KernelOf<P>,
    bytes: usize,
    parameters: P,
) -> Result<()> {
    let (name, limit) = (kernel.kernel.name, gpu.gpu().shared_bytes);
    ensure!(
        bytes + SHARED_RESERVED <= limit,
        "{name}: its {bytes} bytes are more than the {limit} of a block"
    );
    let launch = kernel.linear(1, CHOICE_THREADS, parameters);
    gpu.launch(Launch { shared_bytes: bytes as u32, ..launch });
    Ok(())
}
