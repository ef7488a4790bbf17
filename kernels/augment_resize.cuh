// Pillow's antialiased bilinear resize of a crop, with weights in 22-bit fixed point, with integer arithmetic
// only.
//
// An axis of L input and S output positions: scale L/S, support max(1, L/S), M = max(L, S). Input k
// contributes to output x with the triangle's weight 1 - |k + 1/2 - (x + 1/2) L/S| / support, which times 2M
// is the integer
//     n_k = 2M - |(2k + 1) S - (2x + 1) L|,
// and its fixed-point weight is floor(2^22 n_k / N + 1/2) with N = sum of the window's n_k. The reference
// does this in f64; no quotient is so near a half that its rounding matters, and inputs with n_k <= 0 in its
// rounded window get the weight 0. A test compares all weights for L up to 256, S up to 160.
#pragma once
#include "augment_view.cuh"

// Fractional bits of a weight.
constexpr int WEIGHT_BITS = 22;

// A crop of the source.
struct Crop {
    int top, left, height, width;
};

// Windows and weights in shared memory, int [2, size, 1 + taps], columns then rows: first input | inputs <<
// 16, then the weights.
struct Axes {
    int* words;
    int size;
    int taps;

    __device__ const int* window(int axis, int position) const {
        return words + (axis * size + position) * (1 + taps);
    }
};

// Called by all threads; a barrier must follow. 2M <= 2^13 and N < 2^20, which lowering checks, keep the
// quotient within 32 bits: it is computed in two steps, 12 bits of the 23 before the other 11.
__device__ __forceinline__ void make_axes(const Axes& axes, const Crop& crop) {
    const int size = axes.size;
    for (int i = threadIdx.x; i < 2 * size; i += blockDim.x) {
        const int axis = i >= size ? 1 : 0;
        const int position = i - axis * size;
        const int input = axis ? crop.height : crop.width;
        const int reach = 2 * max(input, size);
        const int centre = (2 * position + 1) * input;
        const int below = centre - reach - size;
        const int first = below < 0 ? 0 : below / (2 * size) + 1;
        const int end = min((centre + reach + size - 1) / (2 * size), input);
        const int start =
            reach - centre;  // n_k is the lesser of start + (2k + 1) S and reach + centre - (2k + 1) S
        u32 total = 0;
        for (int k = first; k < end; ++k) {
            const int at = (2 * k + 1) * size;
            total += min(start + at, reach + centre - at);
        }
        int* window = axes.words + i * (1 + axes.taps);
        window[0] = first | (end - first) << 16;
        for (int k = first; k < end; ++k) {
            const int at = (2 * k + 1) * size;
            const u32 dividend = (u32)min(start + at, reach + centre - at) << 12;
            const u32 high = dividend / (2 * total);
            const u32 low = ((dividend - high * (2 * total)) << 11) + total;
            window[1 + k - first] = (high << 11) + low / (2 * total);
        }
    }
}

__device__ __forceinline__ u32 round_weighted(int sum) {
    return min(max((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS, 0), 255);
}

// The view's image = the crop of the source u8 [.., source_width, 3], resized, and mirrored if `flip` is set.
// Each row's weighted sum is rounded to uint8 before the rows are weighted, as the reference's horizontal
// pass does. An axis that keeps its size has the one weight 2^22, which changes nothing: the reference skips
// it. Both passes are computed for each pixel: with at most two taps per direction (four pixels) where
// nothing shrinks, this takes no more work than keeping the result of the horizontal pass, and no memory for
// it.
__device__ __forceinline__ void resize_crop(const View& view, const u8* __restrict__ source, int source_width,
                                            const Crop& crop, bool flip, const Axes& axes) {
    for_positions(view, [&](int index, int row, int column) {
        const int* across = axes.window(0, flip ? view.size - 1 - column : column);
        const int* down = axes.window(1, row);
        const int left = crop.left + (across[0] & 0xffff), width = across[0] >> 16;
        const int top = crop.top + (down[0] & 0xffff), height = down[0] >> 16;
        const u8* line = source + (top * source_width + left) * 3;
        int red = 0, green = 0, blue = 0;
        for (int j = 1; j <= height; ++j) {
            int r = 0, g = 0, b = 0;
            for (int i = 1; i <= width; ++i) {
                const int weight = across[i];
                const u8* from = line + 3 * (i - 1);
                r += weight * from[0];
                g += weight * from[1];
                b += weight * from[2];
            }
            const int weight = down[j];
            red += weight * (int)round_weighted(r);
            green += weight * (int)round_weighted(g);
            blue += weight * (int)round_weighted(b);
            line += 3 * source_width;
        }
        store_pixel(view.image, index, {round_weighted(red), round_weighted(green), round_weighted(blue)});
    });
}
