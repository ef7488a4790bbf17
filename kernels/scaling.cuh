// The loss scale of training in f16, f32 [LOSS_SCALE_LEN] in device memory: decided there, so that no step
// waits for the host, and part of a checkpoint, so that a resumed run has the same bits.
#pragma once

#include "common.cuh"

// The factor of the loss's gradients, a power of two.
constexpr int LOSS_SCALE = 0;
// Steps since it last changed, all with finite gradients.
constexpr int GOOD_STEPS = 1;
// Steps left out so far because a gradient was not finite.
constexpr int SKIPPED_STEPS = 2;
// Steps so far.
constexpr int STEPS = 3;
// The number, from 1, of the step that took the scale below LEAST_SCALE; 0 if none has.
constexpr int STOPPED_AT = 4;
// Length of the state.
constexpr int LOSS_SCALE_LEN = 5;

// The factor of the first step, and the steps after which it doubles: those of PyTorch's GradScaler.
constexpr float FIRST_SCALE = 65536.0f;
constexpr int GROWTH_INTERVAL = 2000;
// Gradients that are not finite with a smaller scale are none that a scale could help.
constexpr float LEAST_SCALE = 1.0f;

// What takes the scale out of gradients again, exactly: 1 where the pointer is null, because they have none.
__device__ __forceinline__ float unscaling(const float* scale) {
    return scale == nullptr ? 1.0f : __fdiv_rn(1.0f, scale[LOSS_SCALE]);
}

// Whether a step is left out; `not_finite` counts the gradients that are infinite or NaN, and is null if they
// have no scale.
__device__ __forceinline__ bool left_out(const int* not_finite) {
    return not_finite != nullptr && *not_finite != 0;
}
