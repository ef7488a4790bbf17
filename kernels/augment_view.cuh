// The image that a block computes, and the loops over its pixels.
//
// A thread owns the pixels threadIdx.x, threadIdx.x + blockDim.x, ... in every loop, so operations that read
// only the pixel itself need no barrier between them. An operation that reads other pixels or the second half
// of the memory begins with a barrier, so that none is needed after an operation.
#pragma once
#include "common.cuh"

struct View {
    u8* image;  // uint8 [size, size, 3], shared memory
    u8* other;  // the other half, at least three tables of 256 words: tables, or the next image
    int size;
    int pixels;
    int row, column;  // of the thread's first pixel
    int row_step, column_step;  // from one of its pixels to the next, before the column wraps

    __device__ View(u8* memory, int half_bytes, int size)
        : image(memory), other(memory + half_bytes), size(size), pixels(size * size) {
        const u32 width = size;
        row = threadIdx.x / width;
        column = threadIdx.x - row * width;
        row_step = blockDim.x / width;
        column_step = blockDim.x - row_step * width;
    }

    // Makes the next image the current one.
    __device__ void exchange() {
        u8* before = image;
        image = other;
        other = before;
    }
};

struct Pixel {
    u32 r, g, b;
};

__device__ __forceinline__ Pixel load_pixel(const u8* image, int index) {
    const u8* from = image + 3 * index;
    return {from[0], from[1], from[2]};
}

__device__ __forceinline__ void store_pixel(u8* image, int index, Pixel pixel) {
    u8* to = image + 3 * index;
    to[0] = pixel.r;
    to[1] = pixel.g;
    to[2] = pixel.b;
}

// Replaces each of the thread's pixels by f(pixel).
template <typename F> __device__ __forceinline__ void map_pixels(const View& view, F f) {
    for (int i = threadIdx.x; i < view.pixels; i += blockDim.x) {
        store_pixel(view.image, i, f(load_pixel(view.image, i)));
    }
}

// Calls f(index, row, column) for each of the thread's pixels.
template <typename F> __device__ __forceinline__ void for_positions(const View& view, F f) {
    int row = view.row, column = view.column;
    for (int i = threadIdx.x; i < view.pixels; i += blockDim.x) {
        f(i, row, column);
        row += view.row_step;
        column += view.column_step;
        if (column >= view.size) {
            column -= view.size;
            ++row;
        }
    }
}
