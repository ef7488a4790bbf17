// Positions in the step's control block, f32 [CONTROL_LEN] in device memory that the host writes once per
// epoch, so that one recorded step serves all epochs.
#pragma once

// Learning rate of the epoch.
constexpr int LEARNING_RATE = 0;
// 1 if confidence rows are updated (epoch >= upd_start), else 0.
constexpr int UPDATE = 1;
// Weight of the mixed views' loss: alpha if confidence rows are updated, else 0.
constexpr int MIXUP = 2;
// From here to the end: scalars of the method, which each method names.
constexpr int OWN = 3;
// Length of the block.
constexpr int CONTROL_LEN = 5;
