// Global average pooling over the P positions of NHWC images, and its gradient.
//
//   y_nc = 1/P sum_p x_npc            dx_npc = dy_nc / P
//
// Tensors: x, dx [N][P][C] of T (bf16, f16 or f32), C a multiple of 8, of 4 in f32; y, dy [N][C] f32. Buffers
//   start 16-byte aligned.
// Launch: grid ceil(N C / (LEN x 256)), block 256: each thread owns a vector of 16 bytes of channels of one
//   image and loops over its positions, so neighbouring threads read neighbouring vectors; N C / LEN threads
//   (32,768 for 512 images of 512 channels in bf16), no shared memory, at most 40 registers.
// Cost: x once and y once, the least possible; one addition per element.
// Deterministic: each sum runs over the positions in order, as on the CPU: in f32 the bits are the
// same.
#include "common.cuh"

// Threads per block.
constexpr int THREADS = 256;

// The vector of a thread: image and first channel, if it is inside.
struct Place {
    bool inside;
    size_t image;
    int channel;
};

template <typename T> __device__ __forceinline__ Place place(int images, int channels) {
    const int vectors = channels / Vector<T>::LEN;
    const size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t image = index / vectors;
    return {image < images, image, (int)(index - image * vectors) * Vector<T>::LEN};
}

template <typename T>
__device__ __forceinline__ void average_pool(int images, int positions, int channels, const T* __restrict__ x,
                                             float* __restrict__ y) {
    constexpr int LEN = Vector<T>::LEN;
    const Place at = place<T>(images, channels);
    if (!at.inside) return;
    const T* from = x + at.image * positions * channels + at.channel;
    float sum[LEN] = {};
#pragma unroll 4
    for (int position = 0; position < positions; ++position) {
        float values[LEN];
        Vector<T>::load(from + (size_t)position * channels, values);
#pragma unroll
        for (int i = 0; i < LEN; ++i) sum[i] += values[i];
    }
    const float share = 1.0f / (float)positions;
    float* to = y + at.image * channels + at.channel;
#pragma unroll
    for (int i = 0; i < LEN; i += 4)
        *reinterpret_cast<float4*>(to + i) =
            make_float4(sum[i] * share, sum[i + 1] * share, sum[i + 2] * share, sum[i + 3] * share);
}

#define AVERAGE_POOL(NAME, T)                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                     \
        NAME(int images, int positions, int channels, const T* x, float* y) { \
        average_pool(images, positions, channels, x, y);                      \
    }

AVERAGE_POOL(average_pool_bf16, bf16)
AVERAGE_POOL(average_pool_f16, f16)
AVERAGE_POOL(average_pool_f32, float)

template <typename T>
__device__ __forceinline__ void average_pool_gradient(int images, int positions, int channels,
                                                      const float* __restrict__ dy, T* __restrict__ dx) {
    constexpr int LEN = Vector<T>::LEN;
    const Place at = place<T>(images, channels);
    if (!at.inside) return;
    const float* from = dy + at.image * channels + at.channel;
    const float share = 1.0f / (float)positions;
    float values[LEN];
#pragma unroll
    for (int i = 0; i < LEN; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + i);
        values[i] = four.x * share, values[i + 1] = four.y * share;
        values[i + 2] = four.z * share, values[i + 3] = four.w * share;
    }
    T* to = dx + at.image * positions * channels + at.channel;
#pragma unroll 4
    for (int position = 0; position < positions; ++position)
        Vector<T>::store(to + (size_t)position * channels, values);
}

#define AVERAGE_POOL_GRADIENT(NAME, T)                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                       \
        NAME(int images, int positions, int channels, const float* dy, T* dx) { \
        average_pool_gradient(images, positions, channels, dy, dx);             \
    }

AVERAGE_POOL_GRADIENT(average_pool_gradient_bf16, bf16)
AVERAGE_POOL_GRADIENT(average_pool_gradient_f16, f16)
AVERAGE_POOL_GRADIENT(average_pool_gradient_f32, float)
