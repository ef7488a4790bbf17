//! The GPUs of several processes, in a build without NCCL: there are none.

use anyhow::{Result, bail};
use cudarc::driver::sys;

use super::CudaDriver;
use crate::collective::World;
use crate::device::gpu::exchange::Exchange;
use crate::usage;

/// The other GPUs; none.
pub(super) enum Together {}

impl CudaDriver {
    /// Refuses other processes.
    ///
    /// # Errors
    /// A usage error that says how to build for them.
    pub(super) fn join_others(&mut self, world: &World) -> Result<()> {
        Err(usage!(
            "--device cuda: {} processes share a step, but this program was built without NCCL; build it with cargo \
             build --release --features nccl (docs/several-processes.md), or take --device cpu",
            world.size()
        ))
    }

    pub(super) fn exchange(&mut self, _: &Exchange, _: sys::CUstream) -> Result<()> {
        bail!("an exchange without other GPUs")
    }

    pub(super) fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    pub(super) fn before_replay(&mut self) -> Result<()> {
        Ok(())
    }

    pub(super) fn after_replay(&mut self) -> Result<()> {
        Ok(())
    }

    pub(super) fn part(&mut self) {}
}
