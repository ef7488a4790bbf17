// Sums, maxima and argmax over a warp or a block, for the loss kernels, the class prior and Sinkhorn. The
// order of every sum is fixed by thread numbers alone, so the result has the same bits in every run.
#pragma once
#include "common.cuh"

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ __forceinline__ int warp_sum(int value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// Sum and maximum over a block of WARPS full warps, the same value in every thread; `scratch` holds WARPS
// values and may be reused immediately.
template <int WARPS, typename T> __device__ __forceinline__ T block_sum(T value, T* scratch) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    T total = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) total += scratch[warp];
    __syncthreads();
    return total;
}

template <int WARPS> __device__ __forceinline__ float block_max(float value, float* scratch) {
    value = warp_max(value);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float most = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) most = fmaxf(most, scratch[warp]);
    __syncthreads();
    return most;
}

// A largest value and its first position.
struct Argmax {
    float value;
    int at;
};

// The argmax over the lanes, the first of equals, in every lane.
__device__ __forceinline__ Argmax warp_argmax(Argmax best) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, best.value, distance);
        const int at = __shfl_xor_sync(0xffffffffu, best.at, distance);
        if (value > best.value || (value == best.value && at < best.at)) best = {value, at};
    }
    return best;
}

// The largest value of a row and its first position, computed by one warp; every lane returns it. As on the
// CPU, a NaN is never larger, and nothing is larger than a NaN at position 0.
__device__ __forceinline__ Argmax warp_argmax(const float* row, int classes, int lane) {
    Argmax best = {-infinity(), 0x7fffffff};
    for (int k = lane; k < classes; k += 32) {
        const float value = row[k];
        if (value > best.value || k == 0) best = {value, k};
    }
    // Lane 0 keeps a NaN at position 0, because no comparison with it succeeds; then that position is the
    // answer.
    const float first = __shfl_sync(0xffffffffu, best.value, 0);
    if (first != first) return {first, 0};
    return warp_argmax(best);
}

// The argmax among the classes of `set`, where a NaN is never chosen: {-inf, 0x7fffffff} if there is no
// candidate.
__device__ __forceinline__ Argmax warp_argmax_among(const float* row, const u8* set, int classes, int lane) {
    Argmax best = {-infinity(), 0x7fffffff};
    for (int k = lane; k < classes; k += 32)
        if (set[k] != 0 && row[k] > best.value) best = {row[k], k};
    return warp_argmax(best);
}
