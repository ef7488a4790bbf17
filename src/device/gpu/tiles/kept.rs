//! Where measured times are kept: beside compiled kernels, a file for each model of GPU and content of the
//! kernels.
//!
//! They decide which kernels run, not what these are, but are trusted alike (`own_files.rs`).

use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::times::{MOST_BYTES, MeasuredOn, Times};
use crate::device::gpu::cache::Place;
use crate::device::gpu::own_files;
use crate::text::printable;
use crate::usage;

/// What to do about a file that cannot be used.
const REMEDY: &str = "remove it, or measure anew with `records tune`";

/// The file of the times that were measured on something.
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
    on: MeasuredOn,
}

impl Kept {
    /// Of a GPU and its kernels.
    ///
    /// # Errors
    /// A usage error where nothing is kept on this machine, or as [`Place::find`].
    pub fn of(on: &MeasuredOn) -> Result<Self> {
        match Place::find()? {
            Place::Folder(folder) => Ok(Self::in_folder(&folder, on)),
            Place::Nowhere(reason) => Err(usage!("there is no folder to keep measured times in: {reason}")),
        }
    }

    fn in_folder(folder: &Path, on: &MeasuredOn) -> Self {
        let MeasuredOn { gpu, architecture, multiprocessors, kernels } = on;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        // Names of GPUs that are equal but for odd characters share a file, which is of one of them.
        let gpu: String = gpu.chars().take(64).map(plain).collect();
        let name = format!("tiles-{gpu}-sm_{architecture}-{multiprocessors}-{kernels}.json");
        Self { path: folder.join(name), on: on.clone() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was measured; `None` where nothing was.
    ///
    /// # Errors
    /// Why the file cannot be used, with its name and what to do, in one line.
    pub fn read(&self) -> std::result::Result<Option<Times>, String> {
        let unusable =
            |why: String| format!("{}: {why}; {REMEDY}", printable(&self.path.display().to_string()));
        let Some(text) = own_files::trusted(&self.path, MOST_BYTES).map_err(unusable)? else {
            return Ok(None);
        };
        let times = Times::of_text(&text).map_err(|problem| unusable(format!("is damaged ({problem})")))?;
        if times.on != self.on {
            return Err(unusable("was measured on another GPU or with other kernels".into()));
        }
        Ok(Some(times))
    }

    /// Makes the folder, and sees whether files can be written there.
    ///
    /// # Errors
    /// A usage error naming the folder.
    pub fn make_ready(&self) -> Result<()> {
        own_files::make_folder(&self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|number| {
            let error = std::io::Error::from(number);
            usage!(
                "{}: measured times cannot be kept there: {error}; name another folder with RECORDS_KERNEL_CACHE",
                printable(&folder.display().to_string())
            )
        })
    }

    /// Writes what was measured, in place of what is there.
    ///
    /// # Errors
    /// A message naming the file.
    pub fn write(&self, times: &Times) -> Result<()> {
        own_files::keep(&self.path, times.to_text()?.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn on(gpu: &str, kernels: &str) -> MeasuredOn {
        MeasuredOn { gpu: gpu.into(), architecture: 86, multiprocessors: 82, kernels: kernels.into() }
    }

    /// For another GPU, other kernels, or behind another's back, a file counts for nothing.
    #[test]
    fn times_are_of_one_gpu_and_one_content_of_the_kernels() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("kernels");
        let kept = |gpu, kernels| Kept::in_folder(&folder, &on(gpu, kernels));
        let ours = kept("NVIDIA RTX/3090", "a1");
        assert_eq!(ours.read(), Ok(None));
        let mut times = Times::none(on("NVIDIA RTX/3090", "a1"));
        times.insert("key".into(), 1e-5);
        ours.make_ready().unwrap();
        ours.write(&times).unwrap();
        assert_eq!(ours.path(), folder.join("tiles-nvidia-rtx-3090-sm_86-82-a1.json"));
        assert_eq!(ours.read(), Ok(Some(times)));
        for other in [kept("NVIDIA RTX/3090", "a2"), kept("NVIDIA A100", "a1")] {
            assert_eq!(other.read(), Ok(None));
            fs::copy(ours.path(), other.path()).unwrap();
            let problem = other.read().unwrap_err();
            assert!(problem.contains("another GPU or with other kernels; remove it"), "{problem}");
        }
        let shared = kept("NVIDIA RTX-3090", "a1").read().unwrap_err();
        assert!(shared.contains("another GPU"), "{shared}");

        let text = fs::read(ours.path()).unwrap();
        for len in 0..text.len() - 1 {
            fs::write(ours.path(), &text[..len]).unwrap();
            let problem = ours.read().unwrap_err();
            assert!(problem.contains("is damaged (") && problem.lines().count() == 1, "{problem}");
        }
        fs::write(ours.path(), &text).unwrap();
        fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(ours.read().unwrap_err().contains("others may write to it"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let kept = Kept::in_folder(Path::new("/proc/none/kernels"), &on("A", "1"));
        let error = kept.make_ready().unwrap_err().to_string();
        assert!(error.starts_with("/proc/none/kernels: the folder cannot be made"), "{error}");
    }
}
