// Loss scaling: f16 holds nothing below 2^-24, where many gradients of activations lie, so the loss's
// gradients are multiplied by a scale, and the optimiser divides by it; the scale is the largest that does not
// overflow.
//
// Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2; the scale moves as
// PyTorch's torch.amp.GradScaler moves it: halved when a gradient is not finite, in which case the optimiser leaves the
// step out, and doubled after GROWTH_INTERVAL steps without.
// Deterministic: a product each, and one thread.
#include "scaling.cuh"

// Threads per block.
constexpr int THREADS = 256;

// gradients [len] f32 *= scale. Grid ceil(len / THREADS), one element per thread; 8 bytes per element.
extern "C" __global__ void __launch_bounds__(THREADS)
    scale_gradients(int len, const float* scale, float* gradients) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < len) gradients[i] = __fmul_rn(gradients[i], scale[LOSS_SCALE]);
}

// Moves the scale, f32 [LOSS_SCALE_LEN], after a step of which `not_finite` i32 [1] gradients were not finite,
// and sets that to 0 for the next step. One thread.
extern "C" __global__ void move_scale(float* scale, int* not_finite) {
    const bool overflow = *not_finite != 0;
    const float step = scale[STEPS] + 1.0f, good = overflow ? 0.0f : scale[GOOD_STEPS] + 1.0f;
    const bool grows = good >= (float)GROWTH_INTERVAL;
    const float moved = scale[LOSS_SCALE] * (overflow ? 0.5f : grows ? 2.0f : 1.0f);
    scale[LOSS_SCALE] = moved;
    scale[GOOD_STEPS] = grows ? 0.0f : good;
    scale[SKIPPED_STEPS] += overflow ? 1.0f : 0.0f;
    scale[STEPS] = step;
    if (moved < LEAST_SCALE && scale[STOPPED_AT] == 0.0f) scale[STOPPED_AT] = step;
    *not_finite = 0;
}
