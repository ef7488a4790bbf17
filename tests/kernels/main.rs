//! Every kernel against its CPU twin, through the interpreter, or through a GPU where RECORDS_TEST_DEVICE=cuda says so.
//!
//! Each family states its tolerance with its reason. Inputs are random and fresh in every case, outputs are poisoned.

mod augment;
mod batch;
mod batchnorm;
mod convolution;
mod linear;
mod loss;
mod loss_by_kind;
mod optimizer;
mod pair;
mod pico;
mod pooling;
mod prior;
mod shared_memory;
mod sinkhorn;
mod solar;
#[path = "../support/solar_steps.rs"]
mod solar_steps;
mod temporaries;
