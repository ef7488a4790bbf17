//! The network: ResNet for CIFAR-sized images, its parameters, their names and their initialisation.
//!
//! [`architecture`] lists layers, [`parameters`] holds their values on a device under state_dict names, [`resnet`] records
//! the network on a tape.

pub mod architecture;
pub mod parameters;
pub mod resnet;

pub use architecture::{Architecture, BlockKind};
pub use parameters::{Parameters, StateDict};
