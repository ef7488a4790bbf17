// The body of forward and data gradient on the tensor cores: an implicit matrix product over a gathering of taps, a
// cp.async pipeline over shared memory, and an epilogue through shared memory.
#pragma once

#include "convolution.cuh"
#include "tile.cuh"

// Copies the weights' tile of a step, w [out, taps, in]. Forward: rows n (output channels), contiguous along the summed
// input channel. Gradient: rows k (summed output channels), contiguous along n (input channels): read as they are, the
// fragments are transposed on their way to the registers.
template <class P, bool FORWARD> struct Weights {
    static const int CHUNKS = (FORWARD ? P::K : P::N) / 8, ROWS = FORWARD ? P::N : P::K;
    static const int ROW_STEP = P::THREADS / CHUNKS, LOADS = ROWS / ROW_STEP;
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

// Rounds the product into shared memory (added to what the target held, if `accumulate`), sums its statistics if asked,
// and stores it, sixteen bytes a lane, a warp's along the target's rows. `base` is the tile's first point, `first` its
// first column, `width` the target's channels.
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
        each_pair([&](int column, float low, float high) {
            u32* pair = reinterpret_cast<u32*>(shared + Out::at(row, column / 8) + column % 8 * 2);
            if (accumulate && row < rows && first + column < width) low += low_bf16(*pair), high += high_bf16(*pair);
            *pair = pack_bf16(low, high);
        });
    });
    __syncthreads();
#pragma unroll 4
    for (int row = first_row; row < last_row; row += STEP)
        *reinterpret_cast<uint4*>(target + gather.target(base + row, width) + column) =
            *reinterpret_cast<const uint4*>(shared + Out::at(row, chunk));
    if (statistics)
        tile_statistics<P::THREADS, P::N, 2>(
            [&](int row, int word, float(&values)[2]) {
                const u32 pair = *reinterpret_cast<const u32*>(shared + Out::at(row, word / 4) + word % 4 * 4);
                values[0] = low_bf16(pair), values[1] = high_bf16(pair);
            },
            rows, reinterpret_cast<float*>(shared + P::M * P::N * 2), statistics + base / P::M * 2 * width + first,
            width - first, width);
}

// target = (or +=) the gathering of `source` with w, tile by tile: this block's is number blockIdx.x, columns fastest, so
// that blocks running together share their rows of the source. `statistics` may be null.
template <class P, bool FORWARD, int STAGES>
__device__ __forceinline__ void gather_product(const Gather& gather, const ConvolutionShape& shape, const bf16* source,
                                               const bf16* w, bf16* target, int width, bool accumulate,
                                               float* statistics) {
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
