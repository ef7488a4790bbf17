//! `records export`: a trained network for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output;
use crate::exchange::onnx::{self, OnnxOptions};
use crate::exchange::weights::weights;
use crate::files::write_atomically;
use crate::settings::quoted_where_odd;
use crate::train::checkpoint::Checkpoint;
use crate::usage;

/// Arguments of `records export`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "ONNX: input images, f32 [batch, 3, S, S], RGB in 0..1 (already normalised with --normalisation out), output \
                  logits, f32 [batch, K]. Safetensors: the tensors that PyTorch's load_state_dict takes. Both have class \
                  names, image size, mean and standard deviation in their metadata."
)]
pub struct ExportArguments {
    /// A checkpoint of `records train`
    #[arg(long, value_name = "FILE.safetensors")]
    checkpoint: PathBuf,
    /// What to write: onnx or safetensors
    #[arg(long, value_name = "WORD")]
    format: String,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Whether an ONNX model normalises its images itself: in or out
    #[arg(long, value_name = "WORD", default_value = "in")]
    normalisation: String,
    /// Do not subtract the class prior that the run estimated from the logits of an ONNX model
    #[arg(long)]
    no_debias: bool,
}

/// Runs `records export`.
///
/// # Errors
/// A usage error for a file that is not a complete checkpoint, and one that cannot be written.
pub fn run(arguments: &ExportArguments) -> Result<()> {
    let ExportArguments { checkpoint: path, output: out, .. } = arguments;
    let normalises = match arguments.normalisation.as_str() {
        "in" => true,
        "out" => false,
        other => return Err(usage!("--normalisation {}: must be in or out", quoted_where_odd(other))),
    };
    let is_onnx = match arguments.format.as_str() {
        "onnx" => true,
        "safetensors" => false,
        other => return Err(usage!("--format {}: must be onnx or safetensors", quoted_where_odd(other))),
    };
    let checkpoint = Checkpoint::read(path)?;
    let bytes = if is_onnx {
        onnx::model(&checkpoint, path, OnnxOptions { normalises, debiases: !arguments.no_debias })?
    } else {
        weights(&checkpoint, path)?.to_bytes()?
    };
    write_atomically(out, &bytes)?;
    output::print(&format!("{}: {} bytes\n", out.display(), bytes.len()))
}
