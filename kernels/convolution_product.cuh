// The body of forward pass and data gradient on the tensor cores: an implicit matrix product over a gather of
// taps, a cp.async pipeline over shared memory, and an epilogue through shared memory.
#pragma once

#include "convolution.cuh"
#include "tile.cuh"

// Copies the tile of weights of a step, w [out, taps, in]. Forward: rows n (output channels), contiguous
// along the summed input channel. Gradient: rows k (summed output channels), contiguous along n (input
// channels): read in place; the fragments are transposed on their way to the registers.
template <class P, bool FORWARD> struct Weights {
    static constexpr int CHUNKS = (FORWARD ? P::K : P::N) / 8, ROWS = FORWARD ? P::N : P::K;
    static constexpr int ROW_STEP = P::THREADS / CHUNKS, LOADS = ROWS / ROW_STEP;
    static_assert(P::THREADS % CHUNKS == 0 && ROWS % ROW_STEP == 0, "every thread copies as much");

    const bf16* w;
    int taps, in_channels, out_channels, first;
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;

    // `first`: the tile's first column n.
    __device__ __forceinline__ Weights(const ConvolutionShape& shape, const bf16* w, int first)
        : w(w),
          taps(shape.kernel * shape.kernel),
          in_channels(shape.in_channels),
          out_channels(shape.out_channels),
          first(first) {}

    __device__ __forceinline__ void copy(u32 tile, int tap, int channel) const {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const int line = row + i * ROW_STEP;
            const int out = (FORWARD ? first : channel) + line, in = (FORWARD ? channel : first) + chunk * 8;
            copy_async(tile + P::B::at(line, chunk), w + (out * taps + tap) * in_channels + in,
                       out < out_channels && in < in_channels);
        }
    }
};

// Sums term(value, row, pair j, which of the two) over the rows of a tile into sums[warp row][column]: first
// each lane its rows in order, then the lanes with the same columns as a tree.
template <class P, typename Term>
__device__ __forceinline__ void sum_columns(const P& product, float* sums, Term term) {
    float sum[P::FN][2] = {};
#pragma unroll
    for (int i = 0; i < P::FM; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < P::FN; ++j)
#pragma unroll
                for (int v = 0; v < 2; ++v)
                    sum[j][v] += term(product.c[i][j][2 * half + v], P::row(i, half), j, v);
#pragma unroll
    for (int j = 0; j < P::FN; ++j) {
#pragma unroll
        for (int v = 0; v < 2; ++v)
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                sum[j][v] += __shfl_xor_sync(0xffffffffu, sum[j][v], distance);
        if (P::lane() < 4)
            *reinterpret_cast<float2*>(sums + P::warp_row() * P::N + P::pair(j)) =
                make_float2(sum[j][0], sum[j][1]);
    }
}

// The sum of a column over the warps' rows, in order.
template <class P> __device__ __forceinline__ float column_total(const float* sums, int column) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < P::WARPS_M; ++w) total += sums[w * P::N + column];
    return total;
}

// The part of the target that a block's tile covers: rows of `width` values, of which the tile has P::N,
// starting at `first`. A lane moves sixteen bytes, a warp consecutive ones along the target's rows.
template <class P> struct TargetTile {
    typedef Swizzled<P::N> Tile;
    static constexpr int CHUNKS = P::N / 8, STEP = P::THREADS / CHUNKS;

    const Gather& gather;
    bf16* target;
    int base, first, width;
    int rows;  // valid rows of the tile

    __device__ __forceinline__ TargetTile(const Gather& gather, bf16* target, int base, int first, int width)
        : gather(gather),
          target(target),
          base(base),
          first(first),
          width(width),
          rows(min(P::M, gather.points() - base)) {}

    // Calls visit(chunk in shared memory, its place in the target) for each of the thread's chunks.
    template <typename Visit> __device__ __forceinline__ void each_chunk(u8* shared, Visit visit) const {
        const int chunk = threadIdx.x % CHUNKS, column = first + chunk * 8;
        const int last_row = column < width ? rows : 0;
#pragma unroll 4
        for (int row = threadIdx.x / CHUNKS; row < last_row; row += STEP)
            visit(reinterpret_cast<uint4*>(shared + Tile::at(row, chunk)),
                  reinterpret_cast<uint4*>(target + gather.target(base + row, width) + column));
    }

    __device__ __forceinline__ void load(u8* shared) const {
        each_chunk(shared, [](uint4* tile, const uint4* target) { *tile = *target; });
    }

    __device__ __forceinline__ void store(u8* shared) const {
        each_chunk(shared, [](const uint4* tile, uint4* target) { *target = *tile; });
    }

    // Rounds the product into shared memory, added to the contents if `accumulate`; the product keeps the
    // rounded values.
    __device__ __forceinline__ void round(P& product, u8* shared, bool accumulate) const {
        product.each_row([&](int row, auto each_pair) {
            each_pair([&](int column, float& low, float& high) {
                u32* pair = reinterpret_cast<u32*>(shared + Tile::at(row, column / 8) + column % 8 * 2);
                if (accumulate && row < rows && first + column < width)
                    low += low_bf16(*pair), high += high_bf16(*pair);
                const u32 rounded = pack_bf16(low, high);
                *pair = rounded;
                low = low_bf16(rounded), high = high_bf16(rounded);
            });
        });
    }
};

// For every column of a tile: the sum of its values, and the sum of their squared deviations from the tile's
// own mean, which lose nothing to cancellation and can be merged (Chan, Golub, LeVeque 1979). Every sum has a
// fixed order, so the bits are always the same.
template <class P> struct TileStatistics {
    float* sums;  // [WARPS_M][N] of shared memory
    float* squares;  // likewise

    __device__ __forceinline__ explicit TileStatistics(u8* shared)
        : sums(reinterpret_cast<float*>(shared + P::M * P::N * 2)), squares(sums + P::WARPS_M * P::N) {}

    // Rows past the last point are zeros. A barrier must follow.
    __device__ __forceinline__ void add(const P& product) const {
        sum_columns(product, sums, [](float value, int, int, int) { return value; });
    }

    // Computes the second sums and writes both to `statistics` [2][width] of the tile, from its first column.
    __device__ __forceinline__ void store(const P& product, int rows, int columns, int width,
                                          float* statistics) const {
        float mean[P::FN][2];
        // An error of the mean enters the squares squared, so fast division is accurate enough.
        const float share = __fdividef(1.0f, (float)rows);
#pragma unroll
        for (int j = 0; j < P::FN; ++j)
#pragma unroll
            for (int v = 0; v < 2; ++v) mean[j][v] = column_total<P>(sums, P::pair(j) + v) * share;
        sum_columns(product, squares, [&](float value, int row, int j, int v) {
            const float deviation = row < rows ? value - mean[j][v] : 0.0f;
            return deviation * deviation;
        });
        __syncthreads();
        for (int column = threadIdx.x; column < P::N && column < columns; column += P::THREADS) {
            statistics[column] = column_total<P>(sums, column);
            statistics[width + column] = column_total<P>(squares, column);
        }
    }
};

// Rounds the product into shared memory (added to the target if `accumulate`) and stores it; also writes the
// tile's `statistics` [tiles, 2, width], of the rounded values, unless null. `base` is the tile's first
// point, `first` its first column, `width` the target's channels.
template <class P>
__device__ __forceinline__ void finish(P& product, u8* shared, const Gather& gather, int base, int first,
                                       int width, bool accumulate, bf16* target, float* statistics) {
    const TargetTile<P> tile(gather, target, base, first, width);
    if (accumulate) {
        tile.load(shared);
        __syncthreads();
    }
    tile.round(product, shared, accumulate);
    const TileStatistics<P> of_tile(shared);
    if (statistics) of_tile.add(product);
    __syncthreads();
    tile.store(shared);
    if (statistics)
        of_tile.store(product, tile.rows, width - first, width, statistics + base / P::M * 2 * width + first);
}

// target = (or +=) the gather of `source` with w, tile by tile. This block's tile is number blockIdx.x,
// columns fastest, so that blocks running together share rows of the source. `statistics` may be null.
template <class P, bool FORWARD, int STAGES>
__device__ __forceinline__ void gather_product(const Gather& gather, const ConvolutionShape& shape,
                                               bool accumulate, int width, const bf16* source, const bf16* w,
                                               bf16* target, float* statistics) {
    extern __shared__ __align__(128) u8 shared[];
    const int tiles = ceiling_divide(width, P::N);
    const int base = blockIdx.x / tiles * P::M, first = blockIdx.x % tiles * P::N;
    if (base >= gather.points()) return;

    const int CHUNKS = P::K / 8, ROW_STEP = P::THREADS / CHUNKS, LOADS = P::M / ROW_STEP;
    static_assert(P::M % (P::THREADS / (P::K / 8)) == 0, "every thread copies as much");
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const SourceRows<LOADS> rows(gather, base + row, ROW_STEP);
    const Weights<P, FORWARD> weights(shape, w, first);

    Cursor cursor;
    auto copy = [&](u32 a_tile) {
        const bf16* from = source + cursor.offset(gather) + chunk * 8;
        const bool inside = cursor.channel + chunk * 8 < gather.channels;
        const int bit = cursor.bit(gather);
#pragma unroll
        for (int i = 0; i < LOADS; ++i)
            copy_async_cached(a_tile + P::A::at(row + i * ROW_STEP, chunk), from + rows.offset[i],
                              inside && (rows.inside[i] >> bit & 1));
        weights.copy(a_tile + P::A_BYTES, cursor.weight(gather), cursor.channel);
        cursor.advance(gather, P::K);
    };

    P product;
    product.clear();
    const int steps = gather.taps() * ceiling_divide(gather.channels, P::K);
    multiply_pipelined<STAGES>(product, shared_address(shared), steps, copy);
    wait_for_copies<0>();
    __syncthreads();
    finish(product, shared, gather, base, first, width, accumulate, target, statistics);
}
