//! Networks: what one is, its parameters with their names and initialisation, and the networks there are.
//!
//! | what | file |
//! |---|---|
//! | the trait, the modes of a forward pass and what it gives | `network.rs` |
//! | the tensors that a network names, and their first values | `layout.rs` |
//! | their values on a device, under state_dict names | `parameters.rs` |
//! | the layers that networks are recorded from | `layers.rs` |
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
