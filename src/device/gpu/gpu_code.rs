//! Which code a GPU gets: machine code of exactly its architecture, or PTX that its driver translates.
//!
//! Machine code needs a compiler that knows the GPU. For a newer GPU, PTX of the newest architecture that the
//! compiler knows runs, with the instructions of that architecture. `RECORDS_GPU_CODE` forces either.

use anyhow::Result;

use super::nvrtc::{Nvrtc, Target};
use crate::usage;

/// Name of the variable that forces a kind of code.
pub const VARIABLE: &str = "RECORDS_GPU_CODE";

/// What `RECORDS_GPU_CODE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The variable is not set: machine code where the compiler knows the GPU, else PTX.
    Fitting,
    /// `ptx`.
    Ptx,
    /// `cubin`: machine code.
    Cubin,
}

impl Wanted {
    /// By the environment; an empty variable counts as not set.
    ///
    /// # Errors
    /// A usage error for another word.
    pub fn find() -> Result<Self> {
        let word = std::env::var_os(VARIABLE).unwrap_or_default();
        match word.to_str() {
            Some("") => Ok(Self::Fitting),
            Some("ptx") => Ok(Self::Ptx),
            Some("cubin") => Ok(Self::Cubin),
            _ => Err(usage!("{VARIABLE} {word:?}: must be ptx or cubin")),
        }
    }

    /// What to compile for a GPU of that compute capability (86 for 8.6), by a compiler that knows `known`.
    ///
    /// # Errors
    /// A usage error where machine code is wanted of a compiler that does not know the GPU, or the compiler
    /// knows nothing as old.
    pub fn target(self, architecture: u32, known: &[u32]) -> Result<Target> {
        let newest = known.iter().copied().filter(|&other| other <= architecture).max();
        match (self, newest) {
            (Self::Cubin | Self::Fitting, Some(newest)) if newest == architecture => {
                Ok(Target::Cubin(architecture))
            }
            (Self::Fitting | Self::Ptx, Some(newest)) => Ok(Target::Ptx(newest)),
            (Self::Cubin, _) => Err(usage!(
                "{VARIABLE}=cubin: NVRTC does not know sm_{architecture}; update NVRTC, or take ptx"
            )),
            (_, None) => Err(usage!("NVRTC knows no architecture as old as sm_{architecture}")),
        }
    }
}

/// For people: what the first GPU, of that compute capability, gets, and why; without one, what a GPU would
/// get.
pub fn describe(architecture: Option<u32>) -> String {
    let wanted = match Wanted::find() {
        Ok(wanted) => wanted,
        Err(error) => return format!("unusable: {error}"),
    };
    let by = if wanted == Wanted::Fitting { "" } else { ", by RECORDS_GPU_CODE" };
    let chosen = architecture.and_then(|architecture| {
        let known = Nvrtc::open().and_then(|compiler| compiler.architectures()).ok()?;
        Some((architecture, wanted.target(architecture, &known)))
    });
    match chosen {
        Some((_, Err(error))) => format!("unusable: {error}"),
        Some((_, Ok(target @ Target::Cubin(_)))) => format!("machine code for {}{by}", target.word()),
        Some((newer, Ok(target))) if wanted == Wanted::Fitting => {
            format!("PTX for {}, as NVRTC does not know sm_{newer}", target.word())
        }
        Some((_, Ok(target))) => format!("PTX for {}{by}", target.word()),
        None if wanted == Wanted::Ptx => format!("PTX{by}"),
        None => format!("machine code of the exact GPU{by}"),
    }
}

/// What is compiled for a GPU of that compute capability.
///
/// # Errors
/// As [`Wanted::find`] and [`Wanted::target`].
pub fn target(architecture: u32, compiler: &Nvrtc) -> Result<Target> {
    Wanted::find()?.target(architecture, &compiler.architectures()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_follows_the_gpu_the_compiler_and_the_variable() {
        let known = [80, 86, 89, 90];
        let chosen = |wanted: Wanted, gpu| wanted.target(gpu, &known).map_err(|error| error.to_string());
        assert_eq!(chosen(Wanted::Fitting, 86), Ok(Target::Cubin(86)));
        assert_eq!(chosen(Wanted::Fitting, 90), Ok(Target::Cubin(90)));
        assert_eq!(chosen(Wanted::Fitting, 120), Ok(Target::Ptx(90)));
        assert_eq!(chosen(Wanted::Fitting, 88), Ok(Target::Ptx(86)));
        assert_eq!(chosen(Wanted::Ptx, 86), Ok(Target::Ptx(86)));
        assert_eq!(chosen(Wanted::Ptx, 120), Ok(Target::Ptx(90)));
        assert_eq!(chosen(Wanted::Cubin, 89), Ok(Target::Cubin(89)));
        let refused = chosen(Wanted::Cubin, 120).unwrap_err();
        assert!(refused.contains("RECORDS_GPU_CODE=cubin") && refused.contains("sm_120"), "{refused}");
        assert!(chosen(Wanted::Fitting, 75).unwrap_err().contains("sm_75"));
    }
}
