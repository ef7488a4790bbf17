// SGD with momentum and weight decay over a flat arena of all parameters; addition and conversion of flat
// arrays.
//
//   g <- g + wd p    v <- mu v + g    p <- p - lr v (Nesterov: p - lr (g + mu v))    copy = p, rounded
//
// Tensors: gradients, velocity, parameters [len] f32, copy [len] bf16 or f16, or null; all 16-byte aligned,
//   `len` arbitrary; scale, not_finite as in scaling.cuh, null without a loss scale. lr =
//   control[LEARNING_RATE] lies in device memory, so that one recorded step serves all epochs.
// Launch: grid ceil(ceil(len / ELEMENTS) / THREADS), block THREADS; no shared memory, 26 registers. Each
//   thread owns four elements, one 16-byte vector of each f32 array, so that a warp's 512 bytes are
//   contiguous, and eight bytes of the copy. The thread after the last full vector processes the last len % 4
//   elements one by one.
// Cost: reads g, v, p, writes v, p (20 bytes per parameter) and the copy (2): the least possible. 6 FLOPs per
//   parameter.
// Deterministic: the bits are the CPU's. Every product and sum is rounded on its own, as Rust compiles them,
//   never contracted into an fma.
// Source: PyTorch's form (momentum without dampening): I. Sutskever et al., "On the importance
//   of initialization and momentum in deep learning", 2013, section 2, with the learning rate applied to the
//   velocity when it is used.
#include "common.cuh"
#include "control.cuh"
#include "scaling.cuh"

// Threads per block.
constexpr int THREADS = 256;
// Elements per thread.
constexpr int ELEMENTS = 4;

__device__ __forceinline__ void store4(float* to, const float (&values)[ELEMENTS]) {
    Vector<float>::store(to, values);
}

template <typename T> __device__ __forceinline__ void store4(T* to, const float (&values)[ELEMENTS]) {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(Packed<T>::pack(values[0], values[1]), Packed<T>::pack(values[2], values[3]));
}

template <bool NESTEROV>
__device__ __forceinline__ void update(float rate, float momentum, float weight_decay, float gradient,
                                       float& velocity, float& parameter) {
    const float decayed = __fadd_rn(gradient, __fmul_rn(weight_decay, parameter));
    velocity = __fadd_rn(__fmul_rn(momentum, velocity), decayed);
    const float step = NESTEROV ? __fadd_rn(decayed, __fmul_rn(momentum, velocity)) : velocity;
    parameter = __fsub_rn(parameter, __fmul_rn(rate, step));
}

template <bool NESTEROV, typename T>
__device__ __forceinline__ void descend(int len, float momentum, float weight_decay,
                                        const float* __restrict__ control,
                                        const float* __restrict__ gradients, const float* scale,
                                        const int* not_finite, float* __restrict__ velocity,
                                        float* __restrict__ parameters, T* __restrict__ copy) {
    const size_t first = ((size_t)blockIdx.x * THREADS + threadIdx.x) * ELEMENTS;
    if (first >= len || left_out(not_finite)) return;
    const float rate = control[LEARNING_RATE], unscale = unscaling(scale);
    if (first + ELEMENTS <= len) {
        float g[ELEMENTS], v[ELEMENTS], p[ELEMENTS];
        Vector<float>::load(gradients + first, g);
        Vector<float>::load(velocity + first, v);
        Vector<float>::load(parameters + first, p);
#pragma unroll
        for (int i = 0; i < ELEMENTS; ++i)
            update<NESTEROV>(rate, momentum, weight_decay, __fmul_rn(g[i], unscale), v[i], p[i]);
        store4(velocity + first, v);
        store4(parameters + first, p);
        if (copy) store4(copy + first, p);
    } else {
        for (size_t i = first; i < len; ++i) {
            float v = velocity[i], p = parameters[i];
            update<NESTEROV>(rate, momentum, weight_decay, __fmul_rn(gradients[i], unscale), v, p);
            velocity[i] = v;
            parameters[i] = p;
            if (copy) copy[i] = from_float<T>(p);
        }
    }
}

#define SGD(NAME, T, NESTEROV)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                               \
        NAME(int len, float momentum, float weight_decay, const float* control, const float* gradients, \
             const float* scale, const int* not_finite, float* velocity, float* parameters, T* copy) {  \
        descend<NESTEROV>(len, momentum, weight_decay, control, gradients, scale, not_finite, velocity, \
                          parameters, copy);                                                            \
    }

SGD(sgd, bf16, false)
SGD(sgd_f16, f16, false)
SGD(sgd_nesterov, bf16, true)
SGD(sgd_nesterov_f16, f16, true)

// to [len] = from [len], rounded to the nearest T. Grid and block as sgd; each element read and written once.
template <typename T>
__device__ __forceinline__ void convert(int len, const float* __restrict__ from, T* __restrict__ to) {
    const size_t first = ((size_t)blockIdx.x * THREADS + threadIdx.x) * ELEMENTS;
    if (first >= len) return;
    if (first + ELEMENTS <= len) {
        float values[ELEMENTS];
        Vector<float>::load(from + first, values);
        store4(to + first, values);
    } else {
        for (size_t i = first; i < len; ++i) to[i] = from_float<T>(from[i]);
    }
}

#define CONVERT(NAME, T)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(int len, const float* from, T* to) { \
        convert(len, from, to);                                                                     \
    }

CONVERT(convert_bf16, bf16)
CONVERT(convert_f16, f16)
CONVERT(convert_f32, float)

// into [len] += x [len], each sum in f32, rounded once.
//
// Launch: grid ceil(ceil(len / (16 / size)) / THREADS), block THREADS. Each thread adds 16 bytes, the last
//   one the rest; arrays not aligned to 16 bytes, which are parts of an arena, are added element by element.
// Cost: three accesses per element, the least possible.
// Deterministic: the CPU's bits.
template <typename T>
__device__ __forceinline__ void add(int len, const T* __restrict__ x, T* __restrict__ into) {
    constexpr int LEN = Vector<T>::LEN;
    const size_t first = ((size_t)blockIdx.x * THREADS + threadIdx.x) * LEN;
    if (first >= len) return;
    const bool aligned = ((size_t)x | (size_t)into) % 16 == 0;
    if (aligned && first + LEN <= len) {
        float a[LEN], b[LEN];
        Vector<T>::load(x + first, a);
        Vector<T>::load(into + first, b);
#pragma unroll
        for (int i = 0; i < LEN; ++i) b[i] += a[i];
        Vector<T>::store(into + first, b);
    } else {
        for (size_t i = first; i < len && i < first + LEN; ++i)
            into[i] = from_float<T>(to_float(into[i]) + to_float(x[i]));
    }
}

#define ADD(NAME, T)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(int len, const T* x, T* into) { \
        add(len, x, into);                                                                     \
    }

ADD(add_bf16, bf16)
ADD(add_f16, f16)
ADD(add_f32, float)

// out [len] = a [len] + b [len], each sum in f32, rounded once; and to [len] = from [len]. 16-byte aligned,
// `len` arbitrary. Grid and block as add; least traffic; the CPU's bits.
template <typename T>
__device__ __forceinline__ void sum(int len, const T* __restrict__ a, const T* __restrict__ b,
                                    T* __restrict__ out) {
    constexpr int LEN = Vector<T>::LEN;
    const size_t first = ((size_t)blockIdx.x * THREADS + threadIdx.x) * LEN;
    if (first + LEN <= len) {
        float x[LEN], y[LEN];
        Vector<T>::load(a + first, x);
        Vector<T>::load(b + first, y);
#pragma unroll
        for (int i = 0; i < LEN; ++i) x[i] += y[i];
        Vector<T>::store(out + first, x);
    } else {
        for (size_t i = first; i < len; ++i) out[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
    }
}

#define SUM(NAME, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(int len, const T* a, const T* b, T* out) { \
        sum(len, a, b, out);                                                                              \
    }

SUM(sum_bf16, bf16)
SUM(sum_f16, f16)
SUM(sum_f32, float)

// Two bytes an element, whatever they mean.
extern "C" __global__ void __launch_bounds__(THREADS) copy_bf16(int len, const bf16* from, bf16* to) {
    constexpr int LEN = Vector<bf16>::LEN;
    const size_t first = ((size_t)blockIdx.x * THREADS + threadIdx.x) * LEN;
    if (first + LEN <= len)
        *reinterpret_cast<uint4*>(to + first) = *reinterpret_cast<const uint4*>(from + first);
    else
        for (size_t i = first; i < len; ++i) to[i] = from[i];
}

// y [len] = max(x, 0), f32, where a NaN stays NaN; and its gradient, dx = dy where y > 0, else 0. Arrays may
// start anywhere.
//
// Launch: grid ceil(len / THREADS), block THREADS; one element per thread.
// Cost: 8 and 12 bytes per element, the least possible.
// Deterministic: the CPU's bits.
extern "C" __global__ void __launch_bounds__(THREADS) relu(int len, const float* x, float* y) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < len) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

extern "C" __global__ void __launch_bounds__(THREADS)
    relu_gradient(int len, const float* y, const float* dy, float* dx) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < len) dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
}
