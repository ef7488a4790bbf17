//! The words that a setting may be, and the settings that methods add.

use crate::data;
use crate::declaration::Declaration;
use crate::nn;
use crate::optim;
use crate::pll::registry;
pub use crate::pll::registry::MethodName as Method;

/// The words for networks.
pub fn network_names() -> Vec<&'static str> {
    nn::registry::NAMES.to_vec()
}

/// The words for optimisers.
pub fn optimizer_names() -> Vec<&'static str> {
    optim::registry::names()
}

/// The words for methods.
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

/// The words for data sets.
pub fn dataset_names() -> Vec<&'static str> {
    data::registry::names().collect()
}

crate::declare_words! {
    /// The debias: what is subtracted from the logits that disambiguation and evaluation read.
    pub enum Debias {
        /// Nothing.
        None = "none",
        /// The log of the true class frequencies, in disambiguation and at test (Oracle-LA).
        Oracle = "oracle",
        /// The log of the true class frequencies, at test only.
        OraclePost = "oracle-post",
        /// The log of the class prior that is estimated from the mean feature (RECORDS, SPEC 6).
        Records = "records",
    }
}

crate::declare_words! {
    /// How the learning rate falls (SPEC 5).
    pub enum ScheduleChoice {
        /// Along half a cosine from `lr` to `lr * lr-decay-rate^3`, set once per epoch.
        Cosine = "cosine",
        /// By the factor `lr-decay-rate` after each of `lr-decay-epochs`.
        Step = "step",
    }
}

crate::declare_words! {
    /// What a run does that diverges.
    pub enum OnDivergence {
        /// Ends as failed.
        Stop = "stop",
        /// Goes back to the last checkpoint, and on from there with half the learning rate.
        Rollback = "rollback",
    }
}

crate::declare_words! {
    /// Over which images several processes take a batchnorm's statistics.
    pub enum BatchnormChoice {
        /// Those of the whole batch, as one process does.
        Joint = "joint",
        /// Those that each process takes through the network.
        Local = "local",
    }
}

crate::declare_words! {
    /// How activations are stored.
    pub enum PrecisionChoice {
        /// bf16 on a GPU, f32 on the CPU.
        Auto = "auto",
        /// bf16 with f32 sums, on the tensor cores of a GPU; the CPU computes in f32 and rounds what it stores.
        Bf16 = "bf16",
        /// f16 with loss scaling: three digits more than bf16, a smaller range; twice as fast on GeForce chips
        /// of Ampere and Ada, whose tensor cores sum short runs in f16.
        F16 = "f16",
        /// f32 throughout; on a GPU for checking.
        F32 = "f32",
    }
}

crate::declare_words! {
    /// Where to compute.
    pub enum DeviceChoice {
        /// A GPU where it can be used, else the CPU.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU.
        Cuda = "cuda",
        /// The CUDA kernels on the CPU, through the interpreter.
        Sim = "sim",
    }
}
