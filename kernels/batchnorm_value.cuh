// What batchnorm does to one value, shared by its own kernels and by those that do a part of it beside their
// own work.
#pragma once
#include "common.cuh"

// PyTorch's default: added to the variance.
constexpr float EPSILON = 1e-5f;

// Where the gradient's ReLU mask comes from. There is no ReLU, or dy is masked already.
constexpr int MASK_NONE = 0;
// The forward pass's value, recomputed from x: correct if no residual was added to it.
constexpr int MASK_FROM_X = 1;
// The bits that the forward pass has left of y > 0: with a residual the value is not to be had from x alone.
// The masked dy is written back, because it is the residual's gradient too.
constexpr int MASK_FROM_BITS = 2;

// The number of valid rows.
__device__ __forceinline__ int valid_rows(int rows, int rows_each, const int* __restrict__ images) {
    return images == nullptr ? rows : (int)min((size_t)max(*images, 0) * rows_each, (size_t)rows);
}

// Loads `LEN` coefficients; the rows of affine, batch and running are 16-byte aligned.
template <int LEN> __device__ __forceinline__ void load_channels(const float* from, float (&values)[LEN]) {
#pragma unroll
    for (int i = 0; i < LEN; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + i);
        values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
}

// 1/sqrt(var + eps), each operation rounded to nearest.
__device__ __forceinline__ float inverse_deviation(float variance) {
    return 1.0f / sqrtf(variance + EPSILON);
}

// The forward pass's value before residual and ReLU, and the gradient's mask: one expression, so that both
// agree in every bit. Subtracting the mean first keeps precision if |mean| is large compared with the
// deviation.
__device__ __forceinline__ float normalised(float x, float mean, float scale, float offset) {
    return __fmaf_rn(__fsub_rn(x, mean), scale, offset);
}

// The gradient of x from the masked dy, of some channels: dx = g/std (dy - mean(dy) - xhat mean(dy xhat)) =
// scale dy + slope (x - mean) + intercept.
template <int LEN> struct GradientCoefficients {
    float mean[LEN], scale[LEN], slope[LEN], intercept[LEN];

    // Those from `channel` on of `channels`; affine, batch and d_affine are [2][channels]: g, b; mean,
    // 1/sqrt(var + eps); sum dy xhat, sum dy, over `rows`.
    __device__ __forceinline__ void load(int rows, int channels, int channel,
                                         const float* __restrict__ affine, const float* __restrict__ batch,
                                         const float* __restrict__ d_affine) {
        float inverse_std[LEN];
        load_channels(batch + channel, mean);
        load_channels(batch + channels + channel, inverse_std);
        load_channels(affine + channel, scale);
        load_channels(d_affine + channel, slope);
        load_channels(d_affine + channels + channel, intercept);
#pragma unroll
        for (int i = 0; i < LEN; ++i) combine(i, rows, inverse_std[i]);
    }

    // Those of one channel.
    __device__ __forceinline__ void load_one(int rows, int channels, int channel, const float* affine,
                                             const float* batch, const float* d_affine) {
        mean[0] = batch[channel];
        scale[0] = affine[channel];
        slope[0] = d_affine[channel];
        intercept[0] = d_affine[channels + channel];
        combine(0, rows, batch[channels + channel]);
    }

    // From g, sum dy xhat and sum dy in scale, slope and intercept.
    __device__ __forceinline__ void combine(int i, int rows, float inverse_std) {
        const float share = -1.0f / (float)rows;
        scale[i] *= inverse_std;
        slope[i] *= share * scale[i] * inverse_std;
        intercept[i] *= share * scale[i];
    }

    __device__ __forceinline__ float dx(int i, float dy, float x) const {
        return __fmaf_rn(scale[i], dy, __fmaf_rn(slope[i], __fsub_rn(x, mean[i]), intercept[i]));
    }
};

// The bits of a vector of y as it is stored: bit i says whether value i is positive. `positive` [M][C / LEN], u8,
// has a byte for every vector.
template <typename T> __device__ __forceinline__ u8 positive_bits(const typename Vector<T>::Raw& y) {
    float values[Vector<T>::LEN];
    Vector<T>::unpack(y, values);
    u32 bits = 0;
#pragma unroll
    for (int i = 0; i < Vector<T>::LEN; ++i) bits |= (values[i] > 0.0f ? 1u : 0u) << i;
    return (u8)bits;
}

// A NaN stays NaN: a diverged run must not look healthy.
__device__ __forceinline__ float relu(float value) { return value < 0.0f ? 0.0f : value; }
