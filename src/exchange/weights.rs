//! A network's state_dict as a safetensors file, without what only training needs.

use std::path::Path;

use anyhow::Result;

use super::onnx::about;
use crate::device::cpu::CpuDevice;
use crate::train::checkpoint::Checkpoint;
use crate::train::tensor_file::TensorFile;

/// Parameters, running statistics and `num_batches_tracked` under the reference's names, those that PyTorch's
/// `load_state_dict` asks for; classes, image size and normalisation are in the metadata. `path` names the
/// checkpoint in messages.
///
/// # Errors
/// A usage error where the checkpoint does not fit its own settings.
pub fn weights(checkpoint: &Checkpoint, path: &Path) -> Result<TensorFile> {
    let settings = checkpoint.settings(path)?;
    let mut device = CpuDevice::new(1)?;
    let model = checkpoint.model(&settings, path, &mut device)?;
    let mut file = TensorFile::default();
    let parameters = &model.parameters;
    file.extend(parameters.export(parameters.values, &mut device)?);
    file.extend(parameters.export_running(&mut device)?);
    file.add_batch_counters(parameters, parameters.batches_tracked);
    file.metadata = about(checkpoint, &settings)?;
    Ok(file)
}
