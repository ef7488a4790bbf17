//! `records replay`: runs given steps on given tensors.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArguments;
use super::output;
use crate::train::replay::replay_file;

/// Arguments of `records replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "The format is documented in docs/replay.md.")]
pub struct ReplayArguments {
    /// The case: batches, candidate sets and parameters in one safetensors file
    #[arg(long, value_name = "CASE.safetensors")]
    input: PathBuf,
    /// Where to write losses, logits, gradients, parameters and confidences
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Runs `records replay`.
///
/// # Errors
/// A usage error naming the file and the tensor or metadata string at fault.
pub fn run(arguments: &ReplayArguments) -> Result<()> {
    let mut device = arguments.device.open()?;
    let unread = replay_file(&arguments.input, &arguments.output, &mut *device)?;
    if !unread.is_empty() {
        output::note(&format!("metadata that a replay does not read: {}", unread.join(", ")));
    }
    Ok(())
}
