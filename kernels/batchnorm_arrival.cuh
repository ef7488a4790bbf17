// The last pass of a batchnorm, done by the convolution that reads its result: a thread changes the eight
// channels of a pixel that it has copied to shared memory, beside the products of the slice before, and
// stores them for whoever else reads that result. The values are those of batchnorm.cu, bit for bit.
//
// What the channels of a slice are multiplied with stands in a table in shared memory, [coefficient][SLICE],
// which a warp fills a slice ahead. Few registers are free beside a product: four channels are changed at a
// time.
#pragma once

#include "batchnorm_value.cuh"
#include "convolution.cuh"
#include "tile.cuh"

// Bytes of the table: as many as six coefficients take.
constexpr int ARRIVAL_TABLE = 6 * SLICE * 4;

// What is copied is multiplied.
struct AsItIs {
    static constexpr bool CHANGES = false;
    struct Beside {};
};

// Changes eight channels, a pair in each word: four channels at a time by `change`(their first, their two
// words, the two words of `beside`).
template <typename Change>
__device__ __forceinline__ uint4 changed(const uint4& values, const uint4& beside, int channel,
                                         Change change) {
    const uint2 low = change(channel, make_uint2(values.x, values.y), make_uint2(beside.x, beside.y));
    const uint2 high = change(channel + 4, make_uint2(values.z, values.w), make_uint2(beside.z, beside.w));
    return make_uint4(low.x, low.y, high.x, high.y);
}

// Four values rounded.
template <typename T, typename Value> __device__ __forceinline__ uint2 rounded(Value value) {
    return make_uint2(Packed<T>::pack(value(0), value(1)), Packed<T>::pack(value(2), value(3)));
}

// Value i of four.
template <typename T> __device__ __forceinline__ float value_of(const uint2& four, int i) {
    const u32 pair = i < 2 ? four.x : four.y;
    return i % 2 == 0 ? Packed<T>::low(pair) : Packed<T>::high(pair);
}

// Value i of four channels from number `own` of their slice, normalised by the three coefficients of `table`.
template <typename T> __device__ __forceinline__ auto normalising(const float* table, int own) {
    struct {
        float mean[4], scale[4], offset[4];
        __device__ __forceinline__ float operator()(const uint2& x, int i) const {
            return normalised(value_of<T>(x, i), mean[i], scale[i], offset[i]);
        }
    } of;
    load_channels(table + own, of.mean);
    load_channels(table + SLICE + own, of.scale);
    load_channels(table + 2 * SLICE + own, of.offset);
    return of;
}

// y = relu?(g (x - mean) / std + b + residual?), of x. The residual may be the result of a batchnorm itself,
// which is nowhere else.
template <typename T> struct Normalised {
    static constexpr bool CHANGES = true;
    typedef uint4 Beside;

    int with_relu;
    // [2][channels]: g, b; mean, 1/sqrt(var + eps).
    const float *affine, *batch;
    // Null, or of the shape of y.
    const T* residual;
    // Null, or those of the batchnorm whose input the residual is: as above.
    const float *residual_affine, *residual_batch;
    T* y;
    // The bits of y (batchnorm_value.cuh), null where nobody asks for them.
    u8* positive;

    // Fills the table for channel `channel`, number `own` of its slice.
    __device__ __forceinline__ void prepare(float* table, int own, int channel, int channels) const {
        prepare_one(table, own, channel, channels, affine, batch);
        if (residual_batch)
            prepare_one(table + 3 * SLICE, own, channel, channels, residual_affine, residual_batch);
    }

    static __device__ __forceinline__ void prepare_one(float* table, int own, int channel, int channels,
                                                       const float* affine, const float* batch) {
        table[own] = batch[channel];
        table[SLICE + own] = affine[channel] * batch[channels + channel];
        table[2 * SLICE + own] = affine[channels + channel];
    }

    // What is to be read besides, of the chunk at offset `at` of x.
    __device__ __forceinline__ Beside beside(ptrdiff_t at) const {
        return residual ? *reinterpret_cast<const uint4*>(residual + at) : make_uint4(0, 0, 0, 0);
    }

    // Changes the eight channels from number `own` of their slice at the shared address `to`; also stores
    // them if `store`.
    __device__ __forceinline__ void change(u32 to, ptrdiff_t at, const float* table, int own,
                                           const Beside& added, bool store) const {
        const auto four = [&](int own, const uint2& x, uint2 added) {
            if (residual_batch) {
                // Rounded, as it would have been stored.
                const auto of_residual = normalising<T>(table + 3 * SLICE, own);
                added = rounded<T>([&](int i) { return of_residual(added, i); });
            }
            const auto of_x = normalising<T>(table, own);
            return rounded<T>([&](int i) {
                float value = of_x(x, i);
                if (residual) value += value_of<T>(added, i);
                return with_relu ? relu(value) : value;
            });
        };
        const uint4 result = changed(load_shared(to), added, own, four);
        store_shared(to, result);
        if (!store) return;
        *reinterpret_cast<uint4*>(y + at) = result;
        if (positive) positive[at / 8] = positive_bits<T>(result);
    }
};

// dx = g/std (dy - mean(dy) - xhat mean(dy xhat)), of dy, which is masked.
template <typename T> struct NormalisedGradient {
    static constexpr bool CHANGES = true;
    typedef uint4 Beside;

    // Rows of the batch.
    int rows;
    // [2][channels]: g, b; mean, 1/sqrt(var + eps); sum dy xhat, sum dy.
    const float *affine, *batch, *d_affine;
    const T* x;
    T* dx;

    __device__ __forceinline__ void prepare(float* table, int own, int channel, int channels) const {
        GradientCoefficients<1> of;
        of.load_one(rows, channels, channel, affine, batch, d_affine);
        table[own] = of.mean[0];
        table[SLICE + own] = of.scale[0];
        table[2 * SLICE + own] = of.slope[0];
        table[3 * SLICE + own] = of.intercept[0];
    }

    __device__ __forceinline__ Beside beside(ptrdiff_t at) const {
        return *reinterpret_cast<const uint4*>(x + at);
    }

    __device__ __forceinline__ void change(u32 to, ptrdiff_t at, const float* table, int own, const Beside& x,
                                           bool store) const {
        const auto four = [&](int channel, const uint2& dy, const uint2& x) {
            GradientCoefficients<4> of;
            load_channels(table + channel, of.mean);
            load_channels(table + SLICE + channel, of.scale);
            load_channels(table + 2 * SLICE + channel, of.slope);
            load_channels(table + 3 * SLICE + channel, of.intercept);
            return rounded<T>([&](int i) { return of.dx(i, value_of<T>(dy, i), value_of<T>(x, i)); });
        };
        const uint4 result = changed(load_shared(to), x, own, four);
        store_shared(to, result);
        if (store) *reinterpret_cast<uint4*>(dx + at) = result;
    }
};
