// Shared by all convolution kernels: the shape, the geometry of forward pass and data gradient as a gather
// over taps, and the numbering of pixels.
#pragma once

#include "common.cuh"

// Channels (weight gradient: pixels) per stage of the tensor-core kernels' pipeline.
constexpr int SLICE = 32;

// x [batch, height, width, in_channels], w [out_channels, kernel, kernel, in_channels],
// y [batch, out_height, out_width, out_channels]; padding kernel / 2; every tensor below 2^31 elements.
struct ConvolutionShape {
    int batch, height, width, in_channels, out_channels, kernel, stride, out_height, out_width;
};

// One axis, rows or columns, of a gather: through its tap i, grid position g reads the source at g * stride +
// origin + direction * i, times the weights of tap tap_first + tap_step * i; in the target it is position
// target_first + target_step * g.
struct Axis {
    int grid, taps;
    int source, stride, origin, direction;
    int tap_first, tap_step;
    int target, target_first, target_step;

    // y[o] reads x[o stride + k - padding].
    static __device__ __forceinline__ Axis forward(int in, int out, int kernel, int stride) {
        return {out, kernel, in, stride, -(kernel / 2), 1, 0, 1, out, 0, 1};
    }

    // x[i] reads y[o] where i = o stride + k - padding. For i = parity + stride g that holds for every
    // stride-th tap k, so each parity is a dense gather of its own, and no zero is multiplied. A parity may
    // have no tap.
    static __device__ __forceinline__ Axis gradient(int in, int out, int kernel, int stride, int parity) {
        const int from = parity + kernel / 2, first = from % stride;
        const int taps = ceiling_divide(kernel - first, stride);
        return {ceiling_divide(in - parity, stride),
                taps,
                out,
                1,
                from / stride,
                -1,
                first,
                stride,
                in,
                parity,
                stride};
    }
};

// target[point, n] = sum over taps and channels c of source[tap of point, c] w[.., tap, ..].
struct Gather {
    Axis rows, columns;
    int batch, channels, kernel;

    __device__ __forceinline__ int points() const { return batch * rows.grid * columns.grid; }
    __device__ __forceinline__ int taps() const { return rows.taps * columns.taps; }

    // Offset in the target, in elements, of the `width` values of a point.
    __device__ __forceinline__ int target(int point, int width) const {
        // If the grid is the whole target, the points are contiguous.
        if (rows.target_step == 1) return point * width;
        const int column = point % columns.grid, line = point / columns.grid;
        const int row = line % rows.grid, image = line / rows.grid;
        return ((image * rows.target + row * rows.target_step + rows.target_first) * columns.target +
                column * columns.target_step + columns.target_first) *
               width;
    }
};

__device__ __forceinline__ Gather forward_gather(const ConvolutionShape& shape) {
    return {Axis::forward(shape.height, shape.out_height, shape.kernel, shape.stride),
            Axis::forward(shape.width, shape.out_width, shape.kernel, shape.stride), shape.batch,
            shape.in_channels, shape.kernel};
}

// Of stride * stride parities, blockIdx.z picks one: those with the most taps first, so that the long blocks
// start first.
__device__ __forceinline__ Gather gradient_gather(const ConvolutionShape& shape) {
    const int parity = gridDim.z - 1 - blockIdx.z;
    return {Axis::gradient(shape.height, shape.out_height, shape.kernel, shape.stride, parity / shape.stride),
            Axis::gradient(shape.width, shape.out_width, shape.kernel, shape.stride, parity % shape.stride),
            shape.batch, shape.out_channels, shape.kernel};
}

// The rows of a source tile that one thread copies: the offset of each for tap (0, 0), and for each tap a bit
// that says whether it is inside the image. The bits cost one register per row; bounds checks at every step
// would cost an instruction or two per copy in the inner loop.
template <int ROWS> struct SourceRows {
    int offset[ROWS];
    u32 inside[ROWS];

    // Points `first`, `first` + `step`, ...; those past the end have no tap inside.
    __device__ __forceinline__ SourceRows(const Gather& gather, int first, int step) {
        const Axis &rows = gather.rows, &columns = gather.columns;
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const int point = first + i * step;
            const int line = point / columns.grid, image = line / rows.grid;
            const int row = line % rows.grid * rows.stride + rows.origin;
            const int column = point % columns.grid * columns.stride + columns.origin;
            offset[i] = ((image * rows.source + row) * columns.source + column) * gather.channels;
            inside[i] = 0;
            if (point >= gather.points()) continue;
            for (int r = 0; r < rows.taps; ++r) {
                const bool row_inside = (u32)(row + rows.direction * r) < (u32)rows.source;
                for (int s = 0; s < columns.taps; ++s) {
                    const bool column_inside = (u32)(column + columns.direction * s) < (u32)columns.source;
                    inside[i] |= (u32)(row_inside && column_inside) << (r * columns.taps + s);
                }
            }
        }
    }
};

// Walks the summed index: taps inside, slices of channels outside, so that consecutive steps read
// neighbouring taps, whose pixels are nearly the same and still in the L1 cache.
struct Cursor {
    int r = 0, s = 0, channel = 0;

    __device__ __forceinline__ void advance(const Gather& gather, int slice) {
        if (++s < gather.columns.taps) return;
        s = 0;
        if (++r < gather.rows.taps) return;
        r = 0;
        channel += slice;
    }

    // The tap as a bit of SourceRows::inside.
    __device__ __forceinline__ int bit(const Gather& gather) const { return r * gather.columns.taps + s; }
    // Offset in elements from tap (0, 0), channel 0 of a point.
    __device__ __forceinline__ int offset(const Gather& gather) const {
        const int pixels = gather.rows.direction * r * gather.columns.source + gather.columns.direction * s;
        return pixels * gather.channels + channel;
    }
    // The number of the tap in the weights.
    __device__ __forceinline__ int weight(const Gather& gather) const {
        return (gather.rows.tap_first + gather.rows.tap_step * r) * gather.kernel + gather.columns.tap_first +
               gather.columns.tap_step * s;
    }
};

// The output pixel of a row of a tile, advanced by a constant without division: the constant's three digits
// (images, rows, columns) are added with at most one carry each.
struct Pixel {
    int index, image, row, column;

    static __device__ __forceinline__ Pixel at(const ConvolutionShape& shape, int index) {
        const int line = index / shape.out_width;
        return {index, line / shape.out_height, line % shape.out_height, index % shape.out_width};
    }

    __device__ __forceinline__ void advance(const ConvolutionShape& shape, const Pixel& by) {
        index += by.index;
        column += by.column;
        const int carry_row = column >= shape.out_width;
        column -= carry_row ? shape.out_width : 0;
        row += by.row + carry_row;
        const int carry_image = row >= shape.out_height;
        row -= carry_image ? shape.out_height : 0;
        image += by.image + carry_image;
    }
};
