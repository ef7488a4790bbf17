//! Positions in a step's control block: f32 values in device memory that the host writes once per epoch, so
//! that one recorded step serves all epochs. They are defined in `kernels/control.cuh`.

pub use crate::device::gpu::kernels::control::{CONTROL_LEN as LEN, LEARNING_RATE, MIXUP, OWN, UPDATE};
