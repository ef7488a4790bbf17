//! Every kernel against its CPU twin, on the interpreter, or on a GPU with RECORDS_TEST_DEVICE=cuda.
//!
//! Each family states its tolerance and the reason for it. Inputs are random and differ between cases;
//! outputs are poisoned.

mod augment;
mod batch;
mod batchnorm;
mod convolution;
mod division;
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
