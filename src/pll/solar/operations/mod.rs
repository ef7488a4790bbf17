//! The operations of SoLar: predictions masked by the candidates and counted by class, Sinkhorn's iteration, the choice of reliable
//! samples, and the loss over chosen and other samples (SPEC 7).

mod choice;
mod loss;
mod predictions;
mod sinkhorn;

use anyhow::{Result, ensure};

pub use self::choice::ChooseSamples;
pub use self::loss::{MixedLoss, SolarLoss};
pub use self::predictions::{CountLargest, MaskedSoftmax};
pub use self::sinkhorn::{Sinkhorn, SinkhornSettings, outcome};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::ops::control;

/// Where eta lies in the step's control block: the weight of the losses of the chosen samples. 0: none are chosen.
pub const ETA: usize = control::OWN;
/// Where rho does: the share of a class's expected samples that is chosen.
pub const RHO: usize = control::OWN + 1;

/// Threads of the one block that chooses or counts.
const THREADS: usize = 1024;

/// Shared memory that such a kernel has beside what is asked for here.
const SHARED_RESERVED: usize = 512;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "solar.cu", name }
}

/// One block with `bytes` of shared memory.
fn launch_one_block(
    gpu: &mut Lowering<'_>,
    name: &'static str,
    bytes: usize,
    arguments: Arguments,
) -> Result<()> {
    let limit = gpu.gpu().shared_bytes;
    ensure!(
        bytes + SHARED_RESERVED <= limit,
        "{name}: its {bytes} bytes are more than the {limit} of a block"
    );
    let launch = Launch::linear(kernel(name), 1, THREADS, arguments);
    gpu.launch(Launch { shared_bytes: bytes as u32, ..launch });
    Ok(())
}
