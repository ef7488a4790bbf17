// The body of forward and data gradient on the tensor cores: an implicit matrix product over a gathering of taps, a
// cp.async pipeline over shared memory, and an epilogue through shared memory.
#pragma once

#include "convolution.cuh"
#include "tile.cuh"

// Copies the weights' tile of a step, w [out, taps, in]. Forward: rows n (output channels), contiguous along the summed
// input channel. Gradient: rows k (summed output channels), contiguous along n (input channels): read as they are, the
// fragments are transposed on their way to the registers.
template <class P, bool FORWARD> struct Weights {
    static constexpr int CHUNKS = (FORWARD ? P::K : P::N) / 8, ROWS = FORWARD ? P::N : P::K;
    static constexpr int ROW_STEP = P::THREADS / CHUNKS, LOADS = ROWS / ROW_STEP;
    static_assert(P::THREADS % CHUNKS == 0 && ROWS % ROW_STEP == 0, "every thread copies as much");

    const bf16* w;
    int taps, in_channels, out_channels, first;
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;

    // `first`: the tile's first column n.
    __device__ __forceinline__ Weights(const ConvolutionShape& shape, const bf16* w, int first)
        : w(w), taps(shape.kernel * shape.kernel), in_channels(shape.in_channels), out_channels(shape.out_channels),
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

// Sums term(value, row, pair j, which of the two) over the rows of a tile, into sums[warp row][column]: each lane its
// rows downwards, then the lanes that hold the same columns as a tree.
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
                for (int v = 0; v < 2; ++v) sum[j][v] += term(product.c[i][j][2 * half + v], P::row(i, half), j, v);
#pragma unroll
    for (int j = 0; j < P::FN; ++j) {
#pragma unroll
        for (int v = 0; v < 2; ++v)
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                sum[j][v] += __shfl_xor_sync(0xffffffffu, sum[j][v], distance);
        if (P::lane() < 4)
            *reinterpret_cast<float2*>(sums + P::warp_row() * P::N + P::pair(j)) = make_float2(sum[j][0], sum[j][1]);
    }
}

// The sum of a column over the warps' rows, in order.
template <class P> __device__ __forceinline__ float column_total(const float* sums, int column) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < P::WARPS_M; ++w) total += sums[w * P::N + column];
    return total;
}

// Rounds the product into shared memory (added to what the target held, if `accumulate`) and stores it, sixteen bytes a
// lane, a warp's along the target's rows. `base` is the tile's first point, `first` its first column, `width` the
// target's channels.
//
// With `statistics` [tiles, 2, width], of every column of the tile: the sum of the rounded values, and the sum of their
// squared deviations from the tile's own mean, which lose nothing to cancellation and can be merged (Chan, Golub,
// LeVeque 1979). Every sum has one order, so the bits are always the same.
template <class P>
__device__ __forceinline__ void finish(P& product, u8* shared, const Gather& gather, bf16* target, int base, int first,
                                       int width, bool accumulate, float* statistics) {
    typedef Swizzled<P::N> Out;
    const int CHUNKS = P::N / 8, STEP = P::THREADS / CHUNKS;
    const int rows = min(P::M, gather.points() - base);
    const int chunk = threadIdx.x % CHUNKS, column = first + chunk * 8;
    const int first_row = threadIdx.x / CHUNKS, last_row = column < width ? rows : 0;
    if (accumulate) {
#pragma unroll 4
        for (int row = first_row; row < last_row; row += STEP)
            *reinterpret_cast<uint4*>(shared + Out::at(row, chunk)) =
                *reinterpret_cast<const uint4*>(target + gather.target(base + row, width) + column);
        __syncthreads();
    }
    product.each_row([&](int row, auto each_pair) {
        each_pair([&](int column, float& low, float& high) {
            u32* pair = reinterpret_cast<u32*>(shared + Out::at(row, column / 8) + column % 8 * 2);
            if (accumulate && row < rows && first + column < width) low += low_bf16(*pair), high += high_bf16(*pair);
            const u32 rounded = pack_bf16(low, high);
            *pair = rounded;
            low = low_bf16(rounded), high = high_bf16(rounded);
        });
    });
    float* sums = reinterpret_cast<float*>(shared + P::M * P::N * 2);
    float* squares = sums + P::WARPS_M * P::N;
    // Rows past the last point are zeros.
    if (statistics) sum_columns(product, sums, [](float value, int, int, int) { return value; });
    __syncthreads();
#pragma unroll 4
    for (int row = first_row; row < last_row; row += STEP)
        *reinterpret_cast<uint4*>(target + gather.target(base + row, width) + column) =
            *reinterpret_cast<const uint4*>(shared + Out::at(row, chunk));
    if (!statistics) return;
    float mean[P::FN][2];
    // An error of the mean enters the squares squared, so the quick division serves.
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
    float* out = statistics + base / P::M * 2 * width + first;
    for (int column = threadIdx.x; column < P::N && first + column < width; column += P::THREADS) {
        out[column] = column_total<P>(sums, column);
        out[width + column] = column_total<P>(squares, column);
    }
}

// target = (or +=) the gathering of `source` with w, tile by tile: this block's is number blockIdx.x, columns fastest,
// so that blocks running together share their rows of the source. `statistics` may be null.
template <class P, bool FORWARD, int STAGES>
__device__ __forceinline__ void gather_product(const Gather& gather, const ConvolutionShape& shape, bool accumulate, int width,
                                               const bf16* source, const bf16* w, bf16* target, float* statistics) {
    extern __shared__ __align__(128) u8 shared[];
    const int tiles = ceiling_divide(width, P::N);
    const int base = blockIdx.x / tiles * P::M, first = blockIdx.x % tiles * P::N;
    if (base >= gather.points()) return;

    const int CHUNKS = P::K / 8, ROW_STEP = P::THREADS / CHUNKS, LOADS = P::M / ROW_STEP;
    static_assert(P::M % (P::THREADS / (P::K / 8)) == 0, "every thread copies as much");
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const SourceRows<LOADS> rows(gather, base + row, ROW_STEP);
    const Weights<P, FORWARD> weights(shape, w, first);
    const u32 tiles_at = shared_address(shared);
    const int STAGE_BYTES = P::A_BYTES + P::B_BYTES;

    Cursor cursor;
    auto copy = [&](int stage) {
        const u32 a_tile = tiles_at + stage * STAGE_BYTES;
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
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < steps) copy(stage);
        commit_copies();
    }
    int reading = 0, writing = STAGES - 1;
    for (int step = 0; step < steps; ++step) {
        // This thread's copies of the stage have arrived; after the barrier everyone's have, and everyone has read the
        // stage that is now overwritten.
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) copy(writing);
        commit_copies();
        const u32 a_tile = tiles_at + reading * STAGE_BYTES;
        product.add(a_tile, a_tile + P::A_BYTES);
        reading = reading + 1 == STAGES ? 0 : reading + 1;
        writing = writing + 1 == STAGES ? 0 : writing + 1;
    }
    wait_for_copies<0>();
    __syncthreads();
    finish(product, shared, gather, target, base, first, width, accumulate, statistics);
}
