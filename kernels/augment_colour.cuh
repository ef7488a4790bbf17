// Colour operations: blends with a degenerate image, hue, grayscale. Factors are f32 as in the reference, and
// nothing needs f64.
#pragma once
#include "augment_view.cuh"

// Pillow's luma.
__device__ __forceinline__ u32 luma(Pixel p) {
    return (19595 * p.r + 38470 * p.g + 7471 * p.b + 32768) >> 16;
}

// a + f (b - a) in f32 with two roundings, truncated, then clipped to 0..255; NaN gives 0. The reference
// returns a at f = 0 and b at f = 1; so does the formula, exactly.
__device__ __forceinline__ u32 blend(u32 a, u32 b, float factor) {
    const float low = (float)(int)a, high = (float)(int)b;
    return min(__float2uint_rz(__fadd_rn(low, __fmul_rn(factor, __fsub_rn(high, low)))), 255u);
}

// Towards black.
__device__ __forceinline__ void brightness(const View& view, float factor) {
    map_pixels(view, [&](Pixel p) -> Pixel {
        return {blend(0, p.r, factor), blend(0, p.g, factor), blend(0, p.b, factor)};
    });
}

// Towards each pixel's luma.
__device__ __forceinline__ void saturation(const View& view, float factor) {
    map_pixels(view, [&](Pixel p) -> Pixel {
        const u32 gray = luma(p);
        return {blend(gray, p.r, factor), blend(gray, p.g, factor), blend(gray, p.b, factor)};
    });
}

// Towards the image's mean luma, trunc(sum / n + 1/2). In integers it is (2 sum + n) / 2n: the reference's
// f64 quotient reaches a half exactly or stays 1/2n away from it. Integer addition has no order, so the sum
// does not depend on the order of the atomics.
__device__ __forceinline__ void contrast(const View& view, float factor, u32& total) {
    __syncthreads();
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    u32 sum = 0;
    for (int i = threadIdx.x; i < view.pixels; i += blockDim.x) sum += luma(load_pixel(view.image, i));
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0) atomicAdd(&total, sum);
    __syncthreads();
    const u32 count = view.pixels;
    const u32 mean = (2 * total + count) / (2 * count);
    map_pixels(view, [&](Pixel p) -> Pixel {
        return {blend(mean, p.r, factor), blend(mean, p.g, factor), blend(mean, p.b, factor)};
    });
}

// Towards the 3x3 smoothing (1 1 1; 1 5 1; 1 1 1) / 13, rounded; border pixels are kept.
__device__ __forceinline__ void sharpness(View& view, float factor) {
    __syncthreads();
    const int size = view.size;
    const u8* image = view.image;
    for_positions(view, [&](int index, int row, int column) {
        const Pixel centre = load_pixel(image, index);
        Pixel result = centre;
        if (row > 0 && row < size - 1 && column > 0 && column < size - 1) {
            u32 r = 4 * centre.r, g = 4 * centre.g, b = 4 * centre.b;
#pragma unroll
            for (int y = -1; y <= 1; ++y) {
#pragma unroll
                for (int x = -1; x <= 1; ++x) {
                    const Pixel p = load_pixel(image, index + y * size + x);
                    r += p.r, g += p.g, b += p.b;
                }
            }
            result = {blend((2 * r + 13) / 26, centre.r, factor), blend((2 * g + 13) / 26, centre.g, factor),
                      blend((2 * b + 13) / 26, centre.b, factor)};
        }
        store_pixel(view.other, index, result);
    });
    view.exchange();
}

__device__ __forceinline__ void grayscale(const View& view) {
    map_pixels(view, [](Pixel p) -> Pixel {
        const u32 gray = luma(p);
        return {gray, gray, gray};
    });
}

// To HSV in uint8, hue += shift modulo 256, and back.
//
// The reference divides in f32, continues in f64 and truncates. With c = (max - middle) / (max - min) its
// sector is one f32 addition of c and a whole number, hue = frac(sector / 6 + 1), and uint8 = trunc(255 hue).
// For all 32,895 pairs (max - min, max - middle) in all six orders of the channels, f32 division, addition
// and product alone give its uint8; likewise for the saturation. On the way back everything is a quotient of
// integers with an odd constant, so that no rounded value is a tie, and with 6H/255 = 2H/85 the hue's
// fraction is R/85: integers give the reference's values for all 2^24 (H, S, V). Tests compare both with the
// definition exhaustively.
__device__ __forceinline__ Pixel shift_hue(Pixel p, u32 shift) {
    const u32 most = max(p.r, max(p.g, p.b)), least = min(p.r, min(p.g, p.b));
    // A gray pixel is unchanged.
    if (most == least) return p;
    const float range = (float)(int)(most - least);
    const u32 middle = p.r + p.g + p.b - most - least;
    const float c = __fdiv_rn((float)(int)(most - middle), range);
    float sector;
    if (p.r == most) {
        sector = p.b == least ? __fsub_rn(1.0f, c) : __fsub_rn(c, 1.0f);
    } else if (p.g == most) {
        sector = p.b == least ? __fadd_rn(1.0f, c) : __fsub_rn(3.0f, c);
    } else {
        sector = p.r == least ? __fadd_rn(3.0f, c) : __fsub_rn(5.0f, c);
    }
    const float sixth = __fdiv_rn(sector, 6.0f);
    const float hue = sector < 0.0f ? __fadd_rn(sixth, 1.0f) : sixth;
    const u32 h = (__float2uint_rz(__fmul_rn(hue, 255.0f)) + shift) & 255u;
    const u32 s = __float2uint_rz(__fmul_rn(__fdiv_rn(range, (float)(int)most), 255.0f));

    const u32 v = most;
    if (s == 0) return {v, v, v};
    const u32 UNIT = 255 * 85;
    const u32 position = 2 * h / 85;
    const u32 fraction = 2 * h - 85 * position;
    const u32 low = (2 * v * (255 - s) + 255) / 510;
    const u32 falling = (2 * v * (UNIT - s * fraction) + UNIT) / (2 * UNIT);
    const u32 rising = (2 * v * (UNIT - s * (85 - fraction)) + UNIT) / (2 * UNIT);
    switch (position) {
        case 1: return {falling, v, low};
        case 2: return {low, v, rising};
        case 3: return {low, falling, v};
        case 4: return {rising, low, v};
        case 5: return {v, low, falling};
        default: return {v, rising, low};  // 0, and 6 for H = 255
    }
}

__device__ __forceinline__ void hue(const View& view, u32 shift) {
    map_pixels(view, [&](Pixel p) { return shift_hue(p, shift); });
}
