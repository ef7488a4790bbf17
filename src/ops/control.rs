//! Positions in a step's control block: f32 values in device memory that the host writes once an epoch, so that one recorded
//! step serves all epochs. They are those of `kernels/control.cuh`.

pub use crate::device::gpu::kernels::control::{CONTROL_LEN as LEN, LEARNING_RATE, MIXUP, OWN, UPDATE};
