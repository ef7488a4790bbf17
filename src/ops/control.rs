//! Positions in a step's control block: f32 values in device memory that the host writes once an epoch, so that one recorded
//! step serves all epochs. The kernels read the same positions, by `control.cuh`.

/// Learning rate of the epoch.
pub const LEARNING_RATE: usize = 0;
/// 1 where confidences are updated (epoch >= upd_start), else 0.
pub const UPDATE: usize = 1;
/// Weight of the mixed views' loss: alpha where confidences are updated, else 0.
pub const MIXUP: usize = 2;
/// From here on to the end: scalars of the method's own, which that method names.
pub const OWN: usize = 3;
/// Length of the block.
pub const LEN: usize = 5;
