// Positions in the step's control block, f32 [CONTROL_LEN] in device memory that the host writes once an
// epoch, so that one recorded step serves all epochs.
#pragma once

// Learning rate of the epoch.
constexpr int LEARNING_RATE = 0;
// 1 where confidences are updated (epoch >= upd_start), else 0.
constexpr int UPDATE = 1;
// Weight of the mixed views' loss: alpha where confidences are updated, else 0.
constexpr int MIXUP = 2;
// SoLar's eta: weight of the losses of the chosen samples. 0: none are chosen.
constexpr int ETA = 3;
// SoLar's rho: share of a class's expected samples that is chosen.
constexpr int RHO = 4;
// Length of the block.
constexpr int CONTROL_LEN = 5;
