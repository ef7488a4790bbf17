//! The GPUs of several processes: which they are, and waiting for work that others take part in.
//!
//! A GPU waits for ever for one that does not come. So the host never waits for it without looking whether
//! the others are there, and no more than two replays are put into the stream ahead, so that what it waits
//! for is a matter of steps, whatever the length of an epoch.

use std::ffi::c_void;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use cudarc::driver::{result, sys};
use serde::{Deserialize, Serialize};

use super::events::{Events, is_ready};
use super::{CudaDriver, explain};
use crate::collective::World;
use crate::collective::mpi::or_end;
use crate::device::gpu::exchange::Exchange;
use crate::device::gpu::nccl::{Communicator, INSTALL, Nccl, UniqueId};
use crate::usage;

/// Replays that are put into the stream ahead.
const AHEAD: usize = 2;
/// How long a wait only yields the processor before it sleeps between two looks.
const EAGER: Duration = Duration::from_millis(5);
const SLEEP: Duration = Duration::from_micros(50);
/// How long to ask, once the library has lost another process, which one that is; and how long the work of a
/// driver that ends may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The other GPUs.
pub(super) struct Together {
    communicator: Communicator,
    world: World,
    /// Behind the last replays.
    events: Events,
    replays: usize,
}

/// A GPU as its process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    name: String,
    uuid: String,
    nccl: String,
}

/// Checks that every process has a GPU of its own.
///
/// # Errors
/// A usage error that names two processes and the GPU that both have.
fn check_apart(gpus: &[Member], world: &World) -> Result<()> {
    for (second, gpu) in gpus.iter().enumerate() {
        if let Some(first) = gpus[..second].iter().position(|other| other.uuid == gpu.uuid) {
            return Err(usage!(
                "{} and {} have the same GPU, {} ({}); start as many processes as there are GPUs, and see what \
                 CUDA_VISIBLE_DEVICES leaves each of them",
                world.name_of(first),
                world.name_of(second),
                gpu.name,
                gpu.uuid
            ));
        }
    }
    Ok(())
}

/// As nvidia-smi writes it.
fn uuid(device: sys::CUdevice) -> Result<String> {
    let found = result::device::get_uuid(device).map_err(|error| explain("cuDeviceGetUuid", error))?;
    let mut text = String::from("GPU");
    for (at, byte) in found.bytes.iter().enumerate() {
        let dash = if [0, 4, 6, 8, 10].contains(&at) { "-" } else { "" };
        text += &format!("{dash}{:02x}", *byte as u8);
    }
    Ok(text)
}

impl Together {
    /// Joins the processes of `world` with the GPU `device`, called `name`, whose context is current.
    ///
    /// # Errors
    /// Usage errors: no NCCL, another version of it on another process, or two processes with one GPU.
    pub fn join(world: &World, device: sys::CUdevice, name: &str) -> Result<Self> {
        let nccl = Nccl::find().map_err(|reason| usage!("--device cuda: {reason}; {INSTALL}"))?;
        let own = Member { name: name.into(), uuid: uuid(device)?, nccl: nccl.version() };
        let all = world.collective().gather_any(&serde_json::to_vec(&own)?)?;
        let gpus: Vec<Member> =
            all.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?;
        check_apart(&gpus, world)?;
        world.agree(&[("the version of NCCL".into(), own.nccl)], "install the same one everywhere")?;
        let id = world.from_first(|| Ok(UniqueId::new(nccl)?.bytes().to_vec()))?;
        let (id, rank, size) = (UniqueId::from_bytes(&id)?, world.rank(), world.size());
        let line = format!(
            "rank {rank} of {size}: NCCL does not start within {} s (--world-timeout): a GPU cannot be reached; \
             NCCL_DEBUG=INFO says more",
            world.limit().as_secs_f64()
        );
        let communicator = or_end(world.limit(), line, || Communicator::join(nccl, id, rank, size))?;
        Ok(Self { communicator, world: world.clone(), events: Events::untimed(AHEAD)?, replays: 0 })
    }

    /// Waits until `done` says so, while the others are there.
    ///
    /// # Errors
    /// That of `done`; the reason for which another process has ended, or does not answer.
    fn until(&mut self, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        if self.communicator.is_aborted() {
            bail!("the exchanges with the other GPUs have been given up");
        }
        let began = Instant::now();
        loop {
            if done(self)? {
                return Ok(());
            }
            let waited = began.elapsed();
            let found = self.world.collective().look(waited).and_then(|()| self.communicator.look());
            if let Err(error) = found {
                let error = self.who_is_lost(error);
                self.communicator.abort();
                return Err(error);
            }
            if waited < EAGER { thread::yield_now() } else { thread::sleep(SLEEP) }
        }
    }

    /// The reason for an error: what is known of a process that has ended, if that is heard soon.
    fn who_is_lost(&self, error: anyhow::Error) -> anyhow::Error {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Err(reason) = self.world.collective().look(Duration::ZERO) {
                return reason;
            }
            thread::sleep(Duration::from_millis(5));
        }
        error
    }

    /// Waits until no more than [`AHEAD`] - 1 replays are in the stream.
    fn make_room(&mut self) -> Result<()> {
        let oldest = self.replays % AHEAD;
        if self.replays >= AHEAD { self.until(|this| this.events.is_done(oldest)) } else { Ok(()) }
    }
}

/// Whether all work of a stream is done.
fn is_done(stream: sys::CUstream) -> Result<bool> {
    // SAFETY: a stream that lives.
    is_ready(unsafe { sys::cuStreamQuery(stream) })
}

impl CudaDriver {
    /// Takes the GPUs of other processes.
    ///
    /// # Errors
    /// As [`Together::join`].
    pub(super) fn join_others(&mut self, world: &World) -> Result<()> {
        self.together = Some(Together::join(world, self.device, &self.gpu.name)?);
        Ok(())
    }

    /// Puts an exchange into a stream.
    pub(super) fn exchange(&mut self, exchange: &Exchange, stream: sys::CUstream) -> Result<()> {
        let together = self.together.as_ref().ok_or_else(|| anyhow!("an exchange without other GPUs"))?;
        // SAFETY: the addresses are of this driver's allocations, which live as long as it does.
        unsafe { together.communicator.exchange(exchange, stream.cast::<c_void>()) }
    }

    /// Where other processes take part in the stream's work: waits until it is done, as long as they are
    /// there.
    pub(super) fn settle(&mut self) -> Result<()> {
        let stream = self.stream;
        self.together.as_mut().map_or(Ok(()), |together| together.until(|_| is_done(stream)))
    }

    /// Where other processes take part: waits until few replays are in the stream.
    pub(super) fn before_replay(&mut self) -> Result<()> {
        self.together.as_mut().map_or(Ok(()), Together::make_room)
    }

    /// The counterpart of [`CudaDriver::before_replay`].
    pub(super) fn after_replay(&mut self) -> Result<()> {
        let Some(together) = &mut self.together else { return Ok(()) };
        together.events.record(together.replays % AHEAD, self.stream)?;
        together.replays += 1;
        Ok(())
    }

    /// Gives the others up where the stream's work is not done soon, so that it ends.
    pub(super) fn part(&mut self) {
        let Some(together) = &mut self.together else { return };
        let began = Instant::now();
        while !together.communicator.is_aborted() && matches!(is_done(self.stream), Ok(false)) {
            if began.elapsed() > PATIENCE {
                together.communicator.abort();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_with_one_gpu_are_named() {
        let gpu = |uuid: &str| Member { name: "A".into(), uuid: uuid.into(), nccl: "2.18.1".into() };
        let world = World::default();
        assert!(check_apart(&[gpu("1"), gpu("2"), gpu("3")], &world).is_ok());
        let error = check_apart(&[gpu("1"), gpu("2"), gpu("1")], &world).unwrap_err().to_string();
        assert!(error.starts_with("rank 0 and rank 2 have the same GPU, A (1); "), "{error}");
    }
}
