//! What the host does between epochs: the figures of `host.toml`, each with its source.

use anyhow::Result;

use crate::device::gpu::model::gpus::{Keys, table};

/// What a run does between epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Seconds an epoch and training sample.
    pub epoch: f64,
    /// Seconds a byte of the state that is copied aside for a checkpoint.
    pub copy_aside: f64,
    /// Seconds a byte of a checkpoint that is written, while the GPU goes on.
    pub checkpoint: f64,
    /// Where the figures are from.
    pub sources: [String; 3],
}

impl Host {
    /// The figures of host.toml.
    ///
    /// # Errors
    /// None as it stands.
    pub fn measured() -> Result<Self> {
        let table = table(include_str!("host.toml"), "host.toml")?;
        let mut keys = Keys::new(&table, "host.toml");
        let epoch = 1e-6 * keys.number("epoch-us-a-sample", 0.0, 1e6)?;
        let checkpoint = 1e-9 * keys.number("checkpoint-ms-a-mb", 0.0, 1e6)?;
        let copy_aside = 1e-9 * keys.number("copy-aside-ms-a-mb", 0.0, 1e6)?;
        let sources = ["epoch-us-a-sample", "copy-aside-ms-a-mb", "checkpoint-ms-a-mb"];
        let sources = sources.map(|key| keys.source(key));
        Ok(Self { epoch, copy_aside, checkpoint, sources })
    }
}
