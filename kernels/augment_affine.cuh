// Affine transforms with the nearest neighbour and black outside, with coefficients computed on the host:
// 16.16 fixed point for rotation and shear, whole pixels for translation. Sums wrap, as the reference's do.
#pragma once
#include "augment_view.cuh"

// Pixel (row, column) becomes the image's pixel at `source(row, column)` = (x, y).
template <typename F> __device__ __forceinline__ void gather(View& view, F source) {
    __syncthreads();
    const u32 size = view.size;
    for_positions(view, [&](int index, int row, int column) {
        const int2 from = source(row, column);
        Pixel pixel = {0, 0, 0};
        // As unsigned numbers, coordinates below 0 are above any size.
        if ((u32)from.x < size && (u32)from.y < size) {
            pixel = load_pixel(view.image, from.y * (int)size + from.x);
        }
        store_pixel(view.other, index, pixel);
    });
    view.exchange();
}

// `coefficients`: start, step per column and step per row, (x, y) each.
__device__ __forceinline__ void transform(View& view, const int* coefficients) {
    const u32 x = coefficients[0], y = coefficients[1], x_column = coefficients[2],
              y_column = coefficients[3];
    const u32 x_row = coefficients[4], y_row = coefficients[5];
    gather(view, [&](int row, int column) {
        return make_int2((int)(x + x_column * column + x_row * row) >> 16,
                         (int)(y + y_column * column + y_row * row) >> 16);
    });
}

// `shift`: whole pixels (x, y). A sum beyond 31 bits becomes negative, which is outside as well.
__device__ __forceinline__ void translate(View& view, const int* shift) {
    const u32 x = shift[0], y = shift[1];
    gather(view, [&](int row, int column) { return make_int2((int)(x + column), (int)(y + row)); });
}
