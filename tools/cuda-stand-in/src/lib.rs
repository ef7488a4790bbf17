//! A stand-in for NVIDIA's driver library: the calls that `records` makes through cudarc, with kernels given
//! as PTX run by `ptx-sim` and their memory checked. The README says what is as on a GPU and what is not.
//!
//! | file | what |
//! |---|---|
//! | `api/` | the exported functions, a file a subject: they turn C's arguments into Rust's |
//! | `state.rs` | the one GPU and its context: who may call what, and when |
//! | `module.rs` | modules of PTX, their kernels, what a launch must satisfy |
//! | `work.rs` | what can be put into a stream, and doing it |
//! | `capture.rs`, `graph.rs` | streams that record instead of doing; dependencies and their order |
//! | `nccl/` | NCCL: communicators of several processes, and exchanges as work of a stream |
//! | `gpu.rs` | what an RTX 3090 and an H100 answer |
//! | `code.rs`, `log.rs` | the driver's error codes; the log, and calls made to fail |

mod api;
mod capture;
mod code;
mod gpu;
mod graph;
mod log;
mod module;
mod nccl;
mod state;
#[cfg(test)]
mod tests;
mod work;
