//! A run by several processes: what must be the same for all, what the first gives the others, and decisions
//! that are made together.
//!
//! The first process has the run's folder; the others take their state from it. All compute the same state,
//! so of a run's decisions only those that hang on a clock, a signal or a file need words.

use anyhow::{Result, anyhow, ensure};

use super::checkpoint::Checkpoint;
use super::stop::Reason;
use super::training::Training;
use crate::collective::World;
use crate::data::fingerprint::Fingerprint;
use crate::device::Device;
use crate::settings::{Settings, config_toml};
use crate::usage;

/// Settings that may differ between machines, or that the first process alone reads.
const MAY_DIFFER: [&str; 5] = ["data-dir", "device", "exp-dir", "name", "threads"];

/// Checks that all processes have been asked for the same, and compute with the same bits.
///
/// # Errors
/// A usage error, the same on all, that names what differs; if a process does not take part.
pub fn agree_on_settings(world: &World, settings: &Settings, device: &dyn Device) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let table: toml::Table = toml::from_str(&config_toml(settings)?)?;
    let differing = table.into_iter().filter(|(name, _)| !MAY_DIFFER.contains(&&**name));
    let mut said: Vec<(String, String)> =
        differing.map(|(name, value)| (format!("--{name}"), value.to_string())).collect();
    said.push(("the device".into(), device.arithmetic()));
    world.agree(&said, "start all processes with the same settings on machines of one kind")?;
    if settings.batch_size < world.size() {
        return Err(usage!(
            "--batch-size {}: {} processes share it; must be at least as large, or start fewer",
            settings.batch_size,
            world.size()
        ));
    }
    Ok(())
}

/// Checks that all processes have the data of the first.
///
/// # Errors
/// A usage error, the same on all, that names a process and what differs; if a process does not take part.
pub fn agree_on_data(world: &World, own: &Fingerprint) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let first = world.from_first(|| Ok(serde_json::to_vec(own)?))?;
    let first: Fingerprint = serde_json::from_slice(&first)?;
    let changes = first.changes(own, &|_, _| None).join("; ");
    let changes = world.collective().gather_any(changes.as_bytes())?;
    let differing = changes.iter().enumerate().find(|(_, changes)| !changes.is_empty());
    differing.map_or(Ok(()), |(rank, changes)| {
        Err(usage!(
            "the data of {} are not those of rank 0: {}; give all processes the same data (--data-dir)",
            world.name_of(rank),
            String::from_utf8_lossy(changes)
        ))
    })
}

/// Checks that the state of all processes has the same bits: each has computed it for itself.
///
/// # Errors
/// A failed run where it has not; if a process does not take part.
pub fn check_state(world: &World, training: &Training, device: &mut dyn Device) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let engine = &training.engine;
    let parameters = &engine.model.parameters;
    let mut sum = 0;
    for buffer in [parameters.values, parameters.running, engine.store.confidence] {
        sum = crc32c::crc32c_append(sum, bytemuck::cast_slice(&device.read_f32(buffer)?));
    }
    let sums = world.collective().gather(sum.to_le_bytes().to_vec(), &vec![4; world.size()])?;
    let sums = sums.as_chunks::<4>().0;
    match sums.iter().position(|sum| *sum != sums[0]) {
        None => Ok(()),
        Some(rank) => Err(anyhow!(
            "the state of {} differs from that of rank 0 although both compute the same: machines with other \
             processors or system libraries, or a faulty one; use machines of one kind, and resume from the last \
             checkpoint",
            world.name_of(rank)
        )),
    }
}

/// What the log says of the processes.
pub fn introduction(world: &World, settings: &Settings, training: &Training) -> String {
    let size = world.size();
    let gradients = 4.0 * training.engine.model.parameters.len() as f64;
    let sent = 2.0 * gradients * (size - 1) as f64 / size as f64;
    format!(
        "{size} processes share each step of {} samples, batchnorm statistics {}; each sends {:.1} MB of gradients a step",
        settings.batch_size,
        settings.batchnorm,
        sent / 1e6
    )
}

/// A checkpoint that the first process `finds`, on every process.
///
/// # Errors
/// Those of `finds`; if a process does not take part.
pub fn checkpoint_of_first(
    world: &World,
    finds: impl FnOnce() -> Result<Option<Checkpoint>>,
) -> Result<Option<Checkpoint>> {
    if world.is_alone() {
        return finds();
    }
    let mut found = None;
    let bytes = world.from_first(|| {
        found = finds()?;
        found.as_mut().map_or(Ok(Vec::new()), Checkpoint::to_bytes)
    })?;
    match (world.is_first(), bytes.is_empty()) {
        (true, _) => Ok(found),
        (false, true) => Ok(None),
        (false, false) => Checkpoint::from_bytes(&bytes).map(Some),
    }
}

/// What the processes have agreed on after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AfterStep {
    /// Why the run is to stop now, if it is: the reason of the first process that has one.
    pub stop: Option<Reason>,
    /// Whether to look at what the device has counted.
    pub look: bool,
}

impl AfterStep {
    /// Bytes of what a process says.
    const BYTES: usize = 10;

    /// What follows from what each process wants: a decision of one is a decision of all.
    ///
    /// # Errors
    /// If a process does not take part.
    pub fn agreed(self, world: &World) -> Result<Self> {
        if world.is_alone() {
            return Ok(self);
        }
        let all = world.collective().gather(self.to_bytes().to_vec(), &vec![Self::BYTES; world.size()])?;
        ensure!(all.len() == Self::BYTES * world.size(), "{} bytes after a step", all.len());
        let said = all.as_chunks::<{ Self::BYTES }>().0.iter().map(Self::from_bytes);
        Ok(said.fold(Self::default(), |all, one| Self {
            stop: all.stop.or(one.stop),
            look: all.look || one.look,
        }))
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let (kind, number) = match self.stop {
            None => (0, 0.0),
            Some(Reason::Signal(signal)) => (1, f64::from(signal)),
            Some(Reason::Time(minutes)) => (2, minutes),
        };
        let mut bytes = [0; Self::BYTES];
        (bytes[0], bytes[1]) = (u8::from(self.look), kind);
        bytes[2..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let number = f64::from_le_bytes(bytes[2..].try_into().unwrap_or_default());
        let stop = match bytes[1] {
            1 => Some(Reason::Signal(number as i32)),
            2 => Some(Reason::Time(number)),
            _ => None,
        };
        Self { stop, look: bytes[0] != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_after_a_step_comes_back() {
        for stop in [None, Some(Reason::Signal(15)), Some(Reason::Time(0.25))] {
            for look in [false, true] {
                let said = AfterStep { stop, look };
                assert_eq!(AfterStep::from_bytes(&said.to_bytes()), said);
                assert_eq!(said.agreed(&World::default()).unwrap(), said);
            }
        }
    }
}
