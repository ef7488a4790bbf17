// AdamW over a flat arena of all parameters, and the corrections of its moving means.
//
//   c1 <- b1 c1 + (1 - b1)    c2 <- b2 c2 + (1 - b2)       from 0: c = 1 - b^t after t steps
//   p <- p (1 - lr wd)        m <- b1 m + (1 - b1) g       v <- b2 v + (1 - b2) g^2
//   p <- p - (lr / c1) m / (sqrt(v / c2) + eps)            copy = p, rounded
//
// Tensors: gradients, mean m, square v, parameters p [len] f32, copy [len] bf16 or f16, or null;
//   corrections [2] f32: c1, c2; scale, not_finite as in scaling.cuh, null without a loss scale. lr =
//   control[LEARNING_RATE] lies in device memory, so that one recorded step serves all epochs.
// Launch: adamw_corrections: one block of one warp, two threads of which work. adamw: grid ceil(len /
//   THREADS), block THREADS: one thread per element.
// Cost: reads g, m, v, p, writes m, v, p (28 bytes per parameter) and the copy (2): the least possible. 14
//   FLOPs per parameter.
// Deterministic: the bits are the CPU's. Every product, sum, root and quotient is rounded on its own.
// Source: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2; eps
//   outside the root of the corrected mean, as in PyTorch.
#include "common.cuh"
#include "control.cuh"
#include "scaling.cuh"

// Threads per block.
constexpr int THREADS = 256;
// Keeps the quotient finite where no gradient was seen.
constexpr float ADAM_EPSILON = 1e-8f;

// share old + (1 - share) value, each operation rounded on its own.
__device__ __forceinline__ float moved(float share, float old, float value) {
    return __fadd_rn(__fmul_rn(share, old), __fmul_rn(__fsub_rn(1.0f, share), value));
}

extern "C" __global__ void adamw_corrections(float beta1, float beta2, const int* not_finite,
                                             float* corrections) {
    if (left_out(not_finite)) return;
    if (threadIdx.x == 0) corrections[0] = moved(beta1, corrections[0], 1.0f);
    if (threadIdx.x == 1) corrections[1] = moved(beta2, corrections[1], 1.0f);
}

template <typename T>
__device__ __forceinline__ void descend(int len, float beta1, float beta2, float weight_decay,
                                        const float* control, const float* corrections,
                                        const float* gradients, const float* scale, const int* not_finite,
                                        float* mean, float* square, float* parameters, T* copy) {
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= len || left_out(not_finite)) return;
    const float rate = control[LEARNING_RATE], g = __fmul_rn(gradients[i], unscaling(scale));
    const float m = moved(beta1, mean[i], g), v = moved(beta2, square[i], __fmul_rn(g, g));
    const float root = __fsqrt_rn(__fdiv_rn(v, corrections[1]));
    const float step = __fdiv_rn(m, __fadd_rn(root, ADAM_EPSILON));
    const float kept = __fmul_rn(parameters[i], __fsub_rn(1.0f, __fmul_rn(rate, weight_decay)));
    const float p = __fsub_rn(kept, __fmul_rn(__fdiv_rn(rate, corrections[0]), step));
    mean[i] = m;
    square[i] = v;
    parameters[i] = p;
    if (copy) copy[i] = from_float<T>(p);
}

#define ADAMW(NAME, T)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                            \
        NAME(int len, float beta1, float beta2, float weight_decay, const float* control,            \
             const float* corrections, const float* gradients, const float* scale,                   \
             const int* not_finite, float* mean, float* square, float* parameters, T* copy) {        \
        descend(len, beta1, beta2, weight_decay, control, corrections, gradients, scale, not_finite, \
                mean, square, parameters, copy);                                                     \
    }

ADAMW(adamw, bf16)
ADAMW(adamw_f16, f16)
