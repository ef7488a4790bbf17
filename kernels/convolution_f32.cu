// Convolution in f32 without tensor cores, for checking: forward, gradient of the input, gradient of the
// weights.
//
// Formulas, tensors (all f32 here), statistics, partial sums and parities as in convolution_forward.cu,
// convolution_data_gradient.cu and convolution_weight_gradient.cu; any number of channels.
//
// Tiles of 64 x 64, 256 threads, 16 values deep, sixteen sums per thread: 8.5 KB of static shared memory
// (forward with the statistics' tile 25.5 KB), at most 73 registers. A step is 256 FMA per thread against 32
// loads from shared memory of 16 bytes; the weights of the data gradient are read with a stride. It is meant
// to be simple, not fast.
//
// Deterministic: each value is one sum in a fixed order; shares as in convolution_weight_gradient.cu.
#include "convolution.cuh"

// Rows and columns of a tile.
constexpr int TILE = 64;
// Values per step along the summed index.
constexpr int DEPTH = 16;
// Threads per block.
constexpr int THREADS = 256;

// The 64 x 64 tile of a block's product, sixteen values per thread, and the two slices it is computed from. A
// thread holds rows 4 (thread / 16).. and columns 4 (thread % 16)...
struct Tile {
    float (&a)[DEPTH][TILE + 4];
    float (&b)[DEPTH][TILE + 4];
    float c[4][4];

    __device__ __forceinline__ static int row(int i) { return threadIdx.x / 16 * 4 + i; }
    __device__ __forceinline__ static int column(int j) { return threadIdx.x % 16 * 4 + j; }

    // c += a^T b once every thread has written its part of the slices.
    __device__ __forceinline__ void add() {
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
            const float4 left = *reinterpret_cast<const float4*>(&a[k][row(0)]);
            const float4 right = *reinterpret_cast<const float4*>(&b[k][column(0)]);
            const float l[4] = {left.x, left.y, left.z, left.w}, r[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) c[i][j] = fmaf(l[i], r[j], c[i][j]);
        }
        __syncthreads();
    }
};

// For every column of the tile, over its first `rows` rows: writes the sum and the sum of squared deviations
// from the tile's mean to out[0][column] and out[1][column], `width` apart, for the columns below `columns`.
// Each quarter of the threads takes every fourth row; then the quarters are added in order.
__device__ __forceinline__ void tile_statistics(const Tile& tile, int rows, float* out, int columns,
                                                int width) {
    __shared__ float values[TILE][TILE], sums[4][TILE];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) values[tile.row(i)][tile.column(j)] = tile.c[i][j];
    const int column = threadIdx.x % TILE, quarter = threadIdx.x / TILE;
    float mean = 0.0f;
    for (int pass = 0; pass < 2; ++pass) {
        __syncthreads();
        float sum = 0.0f;
        for (int row = quarter; row < rows; row += 4) {
            const float deviation = values[row][column] - mean;
            sum += pass == 0 ? deviation : deviation * deviation;
        }
        sums[quarter][column] = sum;
        __syncthreads();
        const float total = sums[0][column] + sums[1][column] + sums[2][column] + sums[3][column];
        mean = total / (float)rows;
        if (quarter == 0 && column < columns) out[pass * width + column] = total;
    }
}

// target = (or +=) the gather of `source` with w: the simple form of convolution_product.cuh. The summed
// index runs over (tap, channel) without padding, so that three channels cost no more than their share.
template <bool FORWARD>
__device__ __forceinline__ void gather_product(const Gather& gather, const ConvolutionShape& shape,
                                               bool accumulate, int width, const float* source,
                                               const float* w, float* target, float* statistics) {
    __shared__ __align__(16) float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4];
    const int tiles = ceiling_divide(width, TILE);
    const int base = blockIdx.x / tiles * TILE, first = blockIdx.x % tiles * TILE;
    if (base >= gather.points()) return;

    const int line = threadIdx.x / DEPTH, k = threadIdx.x % DEPTH;
    const SourceRows<4> rows(gather, base + line, THREADS / DEPTH);
    Tile tile = {a, b, {}};
    const int length = gather.taps() * gather.channels;
    for (int at = 0; at < length; at += DEPTH) {
        const int number = (at + k) / gather.channels, channel = (at + k) % gather.channels;
        const bool present = at + k < length;
        const Cursor cursor = {number / max(gather.columns.taps, 1), number % max(gather.columns.taps, 1),
                               channel};
        const int offset = cursor.offset(gather), bit = cursor.bit(gather), tap = cursor.weight(gather);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = line + i * (THREADS / DEPTH), n = first + row;
            const bool inside = present && (rows.inside[i] >> bit & 1);
            a[k][row] = inside ? source[rows.offset[i] + offset] : 0.0f;
            const int out = FORWARD ? n : channel, in = FORWARD ? channel : n;
            const int weight = (out * gather.kernel * gather.kernel + tap) * shape.in_channels + in;
            b[k][row] = present && n < width ? w[weight] : 0.0f;
        }
        tile.add();
    }

    const int rows_here = min(TILE, gather.points() - base);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (tile.row(i) >= rows_here) continue;
        float* to = target + gather.target(base + tile.row(i), width) + first;
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (first + tile.column(j) < width)
                to[tile.column(j)] = accumulate ? to[tile.column(j)] + tile.c[i][j] : tile.c[i][j];
    }
    if constexpr (FORWARD)
        if (statistics)
            tile_statistics(tile, rows_here, statistics + base / TILE * 2 * width + first, width - first,
                            width);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_forward_f32(ConvolutionShape shape, const float* x, const float* w, float* y,
                            float* statistics) {
    gather_product<true>(forward_gather(shape), shape, false, shape.out_channels, x, w, y, statistics);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_data_gradient_f32(ConvolutionShape shape, int accumulate, const float* dy, const float* w,
                                  float* dx) {
    gather_product<false>(gradient_gather(shape), shape, accumulate, shape.in_channels, dy, w, dx, nullptr);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_weight_gradient_f32(ConvolutionShape shape, int share, const float* x, const float* dy,
                                    float* partials) {
    __shared__ __align__(16) float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4];
    const int columns = shape.kernel * shape.kernel * shape.in_channels,
              tiles = ceiling_divide(columns, TILE);
    const int first_out = blockIdx.x / tiles * TILE, first_column = blockIdx.x % tiles * TILE;
    const int start = blockIdx.y * share;
    const int end = min(start + share, shape.batch * shape.out_height * shape.out_width);

    const int line = threadIdx.x / TILE, out = first_out + threadIdx.x % TILE;
    const int column = first_column + threadIdx.x % TILE, tap = column / shape.in_channels;
    const int tap_row = tap / shape.kernel - shape.kernel / 2,
              tap_column = tap % shape.kernel - shape.kernel / 2;
    Tile tile = {a, b, {}};
    for (int at = start; at < end; at += DEPTH) {
#pragma unroll
        for (int i = 0; i < DEPTH * TILE / THREADS; ++i) {
            const int k = line + i * (THREADS / TILE);
            const Pixel pixel = Pixel::at(shape, at + k);
            const bool present = pixel.index < end;
            const int y = pixel.row * shape.stride + tap_row, z = pixel.column * shape.stride + tap_column;
            const bool inside =
                present && column < columns && (u32)y < (u32)shape.height && (u32)z < (u32)shape.width;
            a[k][threadIdx.x % TILE] =
                present && out < shape.out_channels ? dy[pixel.index * shape.out_channels + out] : 0.0f;
            b[k][threadIdx.x % TILE] =
                inside ? x[((pixel.image * shape.height + y) * shape.width + z) * shape.in_channels +
                           column % shape.in_channels]
                       : 0.0f;
        }
        tile.add();
    }
    float* to = partials + (size_t)blockIdx.y * shape.out_channels * columns;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (first_out + tile.row(i) < shape.out_channels && first_column + tile.column(j) < columns)
                to[(first_out + tile.row(i)) * columns + first_column + tile.column(j)] = tile.c[i][j];
}
