//! The words a setting may take, and what data sets and methods bring.

use crate::data;
use crate::declaration::Declaration;
use crate::nn;
use crate::optim;
use crate::pll::registry;
pub use crate::pll::registry::MethodName as Method;

/// Networks that can be trained.
pub fn network_names() -> Vec<&'static str> {
    nn::registry::NAMES.to_vec()
}

/// Optimisers by the word that settings use.
pub fn optimizer_names() -> Vec<&'static str> {
    optim::registry::names()
}

/// Methods by the word that settings use.
pub fn method_names() -> Vec<&'static str> {
    registry::names()
}

/// The declarations of a method's own settings.
pub fn declared_by(method: Method) -> Vec<Declaration> {
    let own = method.0.own;
    own.map(|own| own.declared("method", method.word(), method.title())).unwrap_or_default()
}

/// The declarations of all methods' own settings.
pub fn methods_own_settings() -> Vec<Declaration> {
    Method::all().flat_map(declared_by).collect()
}

/// Data sets by the name that settings use.
pub fn dataset_names() -> Vec<&'static str> {
    data::registry::names().collect()
}

crate::declare_words! {
    /// Shape of the class counts (SPEC 2).
    pub enum ImbalanceType {
        /// Falling exponentially from class to class: n_k = n_max * mu^(k/(K-1)).
        Exp = "exp",
        /// The first K/2 classes keep n_max samples, the others n_max * mu.
        Step = "step",
        /// No class loses samples.
        None = "none",
    }
}

crate::declare_words! {
    /// What is subtracted from the logits that disambiguation and evaluation read.
    pub enum Debias {
        /// Nothing.
        None = "none",
        /// The log of the true class frequencies, in disambiguation and at test (Oracle-LA).
        Oracle = "oracle",
        /// The log of the true class frequencies, at test only.
        OraclePost = "oracle-post",
        /// The log of the class prior estimated from the moving mean feature (RECORDS, SPEC 6).
        Records = "records",
    }
}

crate::declare_words! {
    /// How the learning rate falls (SPEC 5).
    pub enum Schedule {
        /// Half a cosine from `lr` to `lr * lr-decay-rate^3`, set once an epoch.
        Cosine = "cosine",
        /// Times `lr-decay-rate` after each of `lr-decay-epochs`.
        Step = "step",
    }
}

crate::declare_words! {
    /// How activations are stored.
    pub enum Precision {
        /// bf16 on a GPU, f32 on the CPU.
        Auto = "auto",
        /// bf16 with f32 sums, on the tensor cores of a GPU.
        Bf16 = "bf16",
        /// f32 throughout; on a GPU for checking.
        F32 = "f32",
    }
}

crate::declare_words! {
    /// Where to compute.
    pub enum DeviceChoice {
        /// The best there is.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU.
        Cuda = "cuda",
        /// The CUDA kernels on the CPU, through the simulator.
        Sim = "sim",
    }
}
