//! The words a setting may take, and what data sets and methods bring.

use crate::declaration::Declaration;
use crate::nn::Architecture;
use crate::pll::registry;
pub use crate::pll::registry::MethodName as Method;

/// Data sets by the name that settings use.
pub fn dataset_names() -> Vec<&'static str> {
    vec!["cifar10-lt", "cifar100-lt", "cifar100-lt-nu", "folder", "voc", "csv", "synthetic"]
}

/// Networks that can be trained.
pub fn network_names() -> Vec<&'static str> {
    Architecture::names().to_vec()
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

/// The name among [`dataset_names`] of a data set that may be called as in the reference (`cifar10_im`) or in
/// short (`cifar100`); any other word comes back as it is.
pub fn dataset_name(word: &str) -> String {
    let word = word.replace('_', "-");
    match word.as_str() {
        "cifar10" | "cifar-10" | "cifar10-im" | "cifar-10-lt" => "cifar10-lt".into(),
        "cifar100" | "cifar-100" | "cifar100-im" | "cifar-100-lt" => "cifar100-lt".into(),
        "cifar100-nu" | "cifar-100-nu" | "cifar-100-lt-nu" => "cifar100-lt-nu".into(),
        _ => word,
    }
}

/// Number of classes, where the name of the data set says it.
pub fn classes(dataset: &str) -> Option<usize> {
    match dataset {
        "cifar10-lt" => Some(10),
        "cifar100-lt" | "cifar100-lt-nu" => Some(100),
        "voc" => Some(20),
        _ => None,
    }
}

/// Rows and columns of the network's input where nothing else is said (SPEC 9).
pub fn image_size(dataset: &str) -> usize {
    if dataset == "voc" { 128 } else { 32 }
}

/// Imbalance factor mu where nothing else is said: that of the reference, but for a user's own folders all
/// images are kept.
pub fn imb_factor(dataset: &str) -> f64 {
    if dataset == "folder" { 1.0 } else { 0.01 }
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
