// Operations that map each channel's value on its own: through a table of 256 values computed from the image,
// or by a formula.
#pragma once
#include "augment_view.cuh"

// What the block shares while it prepares an autocontrast.
struct Extremes {
    double gain[3], offset[3];
    u32 low[3], high[3];
};

// Maps each channel through its table; `tables` holds [3, 256] words.
__device__ __forceinline__ void map_tables(const View& view, const u32* tables) {
    map_pixels(view, [&](Pixel p) -> Pixel { return {tables[p.r], tables[256 + p.g], tables[512 + p.b]}; });
}

// Minimum and maximum over a warp's lanes, then over the warps.
__device__ __forceinline__ void extend(u32 low, u32 high, u32& lowest, u32& highest) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        low = min(low, __shfl_xor_sync(0xffffffffu, low, distance));
        high = max(high, __shfl_xor_sync(0xffffffffu, high, distance));
    }
    if (threadIdx.x % 32 == 0) {
        atomicMin(&lowest, low);
        atomicMax(&highest, high);
    }
}

// Stretches each channel's used range to 0..255: v -> clip(trunc(v g - low g)), g = 255 / (high - low) in
// f64. Where 255 (v - low) is a multiple of high - low, the f64 roundings decide between that quotient and
// the value below it (12,094 of the 190,950 cases), so this part stays in f64. It is 3 divisions and 2 x 768
// operations per image; at the RTX 3090's two f64 operations per cycle about 800 cycles of a multiprocessor.
__device__ __forceinline__ void autocontrast(const View& view, Extremes& extremes) {
    // Threads that read the extremes of an earlier autocontrast have passed a barrier since.
    if (threadIdx.x < 3) {
        extremes.low[threadIdx.x] = 255;
        extremes.high[threadIdx.x] = 0;
    }
    __syncthreads();
    Pixel low = {255, 255, 255}, high = {0, 0, 0};
    for (int i = threadIdx.x; i < view.pixels; i += blockDim.x) {
        const Pixel p = load_pixel(view.image, i);
        low = {min(low.r, p.r), min(low.g, p.g), min(low.b, p.b)};
        high = {max(high.r, p.r), max(high.g, p.g), max(high.b, p.b)};
    }
    extend(low.r, high.r, extremes.low[0], extremes.high[0]);
    extend(low.g, high.g, extremes.low[1], extremes.high[1]);
    extend(low.b, high.b, extremes.low[2], extremes.high[2]);
    __syncthreads();
    if (threadIdx.x < 3) {
        const int low = extremes.low[threadIdx.x], high = extremes.high[threadIdx.x];
        const double gain = __ddiv_rn(255.0, (double)(high - low));
        extremes.gain[threadIdx.x] = gain;
        extremes.offset[threadIdx.x] = __dmul_rn(-(double)low, gain);
    }
    __syncthreads();
    u32* tables = reinterpret_cast<u32*>(view.other);
    for (int i = threadIdx.x; i < 3 * 256; i += blockDim.x) {
        const int channel = i / 256, value = i % 256;
        const double stretched =
            __dadd_rn(__dmul_rn((double)value, extremes.gain[channel]), extremes.offset[channel]);
        // A channel with a single value is unchanged; values outside low..high do not occur.
        const bool flat = extremes.high[channel] <= extremes.low[channel];
        tables[i] = flat ? value : min(max(__double2int_rz(stretched), 0), 255);
    }
    __syncthreads();
    map_tables(view, tables);
}

// Equalises each channel's histogram with Pillow's integer steps: step = (n - count of the highest used
// value) / 255, value v -> min(255, (step / 2 + counts below v) / step); unchanged where the step is 0, which
// is also the case with a single used value. The histogram uses shared-memory atomics on integers, whose
// order does not matter; warp c < 3 turns that of channel c into its table, eight values per lane.
__device__ __forceinline__ void equalize(const View& view) {
    __syncthreads();
    u32* counts = reinterpret_cast<u32*>(view.other);
    for (int i = threadIdx.x; i < 3 * 256; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < view.pixels; i += blockDim.x) {
        const Pixel p = load_pixel(view.image, i);
        atomicAdd(&counts[p.r], 1u);
        atomicAdd(&counts[256 + p.g], 1u);
        atomicAdd(&counts[512 + p.b], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 3 * 32) {
        const int lane = threadIdx.x % 32;
        u32* own = counts + threadIdx.x * 8;
        u32 values[8], sum = 0, last = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            values[i] = own[i];
            sum += values[i];
            if (values[i] > 0) last = values[i];
        }
        const u32 used = __ballot_sync(0xffffffffu, sum > 0);
        last = __shfl_sync(0xffffffffu, last, 31 - __clz(used));
        u32 before = sum;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const u32 other = __shfl_up_sync(0xffffffffu, before, distance);
            if (lane >= distance) before += other;
        }
        before -= sum;
        const u32 step = (view.pixels - last) / 255;
        u32 position = step / 2 + before;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            own[i] = step == 0 ? 8 * lane + i : min(position / step, 255u);
            position += values[i];
        }
    }
    __syncthreads();
    map_tables(view, counts);
}

// Keeps the top `bits` bits, at least one.
__device__ __forceinline__ void posterize(const View& view, int bits) {
    const u32 mask = (255u << (8 - min(max(bits, 1), 8))) & 255u;
    map_pixels(view, [&](Pixel p) -> Pixel { return {p.r & mask, p.g & mask, p.b & mask}; });
}

// Inverts values of `threshold` and above.
__device__ __forceinline__ void solarize(const View& view, int threshold) {
    map_pixels(view, [&](Pixel p) -> Pixel {
        return {(int)p.r < threshold ? p.r : 255 - p.r, (int)p.g < threshold ? p.g : 255 - p.g,
                (int)p.b < threshold ? p.b : 255 - p.b};
    });
}
