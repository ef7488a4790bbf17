//! Networks: the trait, their parameters with names and initialisation, and the built-in networks.
//!
//! | what | file |
//! |---|---|
//! | the trait, the modes of a forward pass and its outputs | `network.rs` |
//! | the tensors of a network and their initialisation | `layout.rs` |
//! | their values on a device, under state_dict names | `parameters.rs` |
//! | the layers that networks are built from | `layers.rs` |
//! | the networks by name | `registry.rs` |
//! | ResNet for CIFAR-sized images | `resnet/` |
//! | WideResNet | `wideresnet.rs` |

pub mod layers;
pub mod layout;
pub mod network;
pub mod parameters;
pub mod registry;
pub mod resnet;
pub mod wideresnet;

pub use layout::NetworkLayout;
pub use network::{Mode, Network, Outputs, Pass};
pub use parameters::{Parameters, StateDict};
pub use resnet::ResNet;
pub use wideresnet::WideResNet;
