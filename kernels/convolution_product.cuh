// The body of forward pass and data gradient on the tensor cores: an implicit matrix product over a gather of
// taps, a cp.async pipeline over shared memory, and an epilogue through shared memory.
#pragma once

#include "batchnorm_value.cuh"
#include "convolution.cuh"
#include "tile.cuh"

// Copies the tile of weights of a step, w [out, taps, in]. Forward: rows n (output channels), contiguous
// along the summed input channel. Gradient: rows k (summed output channels), contiguous along n (input
// channels): read in place; the fragments are transposed on their way to the registers.
template <class P, bool FORWARD> struct Weights {
    static constexpr int CHUNKS = (FORWARD ? P::K : P::N) / 8, ROWS = FORWARD ? P::N : P::K;
    static constexpr int ROW_STEP = P::THREADS / CHUNKS, LOADS = ROWS / ROW_STEP;
    static_assert(P::THREADS % CHUNKS == 0 && ROWS % ROW_STEP == 0, "every thread copies as much");
    static_assert(LOADS == 1 || ROW_STEP % 8 == 0, "the rows of a thread are permuted alike");

    const typename P::T* w;
    int taps, in_channels, out_channels, first;
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    // Where the thread's first chunk goes in a tile.
    u32 into = kept(P::B::at(row, chunk));

    // `first`: the tile's first column n.
    __device__ __forceinline__ Weights(const ConvolutionShape& shape, const typename P::T* w, int first)
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
            copy_async(P::B::moved(tile + into, i * ROW_STEP, 0), w + (out * taps + tap) * in_channels + in,
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
    typedef typename P::T T;
    static constexpr int CHUNKS = P::N / 8, STEP = P::THREADS / CHUNKS;

    const Gather& gather;
    T* target;
    int base, first, width;
    int rows;  // valid rows of the tile

    __device__ __forceinline__ TargetTile(const Gather& gather, T* target, int base, int first, int width)
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
                    low += Packed<T>::low(*pair), high += Packed<T>::high(*pair);
                const u32 rounded = Packed<T>::pack(low, high);
                *pair = rounded;
                low = Packed<T>::low(rounded), high = Packed<T>::high(rounded);
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

// A batchnorm whose result is the target's position in the forward pass: the target is its dy, and its
// backward pass needs two sums of every channel before anything else. Left out where `partial` is null.
template <typename T> struct GradientSums {
    // MASK_NONE, MASK_FROM_X or MASK_FROM_BITS.
    int mask;
    // Its input [points][width], the bits of its result [points][width / 8], and [2][width]: g, b; mean,
    // 1/sqrt(var + eps).
    const T* x;
    const u8* positive;
    const float *affine, *batch;
    // [tiles, 2, width]: sum dy (x - mean), sum dy, dy masked; tiles of rows, those of one parity together.
    float* partial;
};

// The sums over a tile that lies rounded in shared memory, made while it is stored, masked: dy is not read
// again, and needs no mask later.
template <class P> struct SumsOfTile {
    typedef typename P::T T;
    static constexpr int CHUNKS = TargetTile<P>::CHUNKS, WARPS = P::THREADS / 32;

    const GradientSums<T>& of;
    float* warps;  // [WARPS][2][N] of shared memory, behind the tile
    float mean[8], scale[8], offset[8], products[8], sums[8];

    __device__ __forceinline__ SumsOfTile(const GradientSums<T>& of, u8* shared, int first, int width)
        : of(of), warps(reinterpret_cast<float*>(shared + P::M * P::N * 2)), products(), sums() {
        const int channel = first + threadIdx.x % CHUNKS * 8;
        if (channel >= width) return;
        load_channels(of.batch + channel, mean);
        load_channels(of.batch + width + channel, scale);
        load_channels(of.affine + width + channel, offset);
        float gain[8];
        load_channels(of.affine + channel, gain);
#pragma unroll
        for (int i = 0; i < 8; ++i) scale[i] *= gain[i];
    }

    // Adds eight channels of dy that lie at offset `at` in the target.
    __device__ __forceinline__ void add(float (&dy)[8], int at) {
        float x[8];
        Vector<T>::load(of.x + at, x);
        const u32 bits = of.mask == MASK_FROM_BITS ? of.positive[at / 8] : 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const bool passed = of.mask == MASK_FROM_BITS
                                    ? bits >> i & 1
                                    : normalised(x[i], mean[i], scale[i], offset[i]) > 0.0f;
            dy[i] = of.mask == MASK_NONE || passed ? dy[i] : 0.0f;
            products[i] += dy[i] * (x[i] - mean[i]);
            sums[i] += dy[i];
        }
    }

    // Adds the lanes that hold the same channels as a tree, then the warps in order; writes [2][width] of the
    // tile from its column `first` on. A block-wide call.
    __device__ __forceinline__ void store(int first, int width, float* partial) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int distance = CHUNKS; distance < 32; distance *= 2) {
                products[i] += __shfl_xor_sync(0xffffffffu, products[i], distance);
                sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], distance);
            }
        float* own = warps + threadIdx.x / 32 * 2 * P::N + threadIdx.x % CHUNKS * 8;
        if (threadIdx.x % 32 < CHUNKS) {
            Vector<float>::store(own, {products[0], products[1], products[2], products[3]});
            Vector<float>::store(own + 4, {products[4], products[5], products[6], products[7]});
            Vector<float>::store(own + P::N, {sums[0], sums[1], sums[2], sums[3]});
            Vector<float>::store(own + P::N + 4, {sums[4], sums[5], sums[6], sums[7]});
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 2 * P::N; i += P::THREADS) {
            const int which = i / P::N, column = i % P::N;
            if (first + column >= width) continue;
            float total = 0.0f;
#pragma unroll
            for (int warp = 0; warp < WARPS; ++warp) total += warps[warp * 2 * P::N + i];
            partial[which * width + first + column] = total;
        }
    }
};

// Rounds the product into shared memory (added to the target if `accumulate`) and stores it; also writes the
// tile's `statistics` [tiles, 2, width], of the rounded values, unless null. `base` is the tile's first
// point, `first` its first column, `width` the target's channels. `sums`: see GradientSums.
template <class P>
__device__ __forceinline__ void finish(P& product, u8* shared, const Gather& gather, int base, int first,
                                       int width, bool accumulate, typename P::T* target, float* statistics,
                                       const GradientSums<typename P::T>& sums) {
    typedef typename P::T T;
    const TargetTile<P> tile(gather, target, base, first, width);
    if (accumulate) {
        tile.load(shared);
        __syncthreads();
    }
    tile.round(product, shared, accumulate);
    const TileStatistics<P> of_tile(shared);
    if (statistics) of_tile.add(product);
    __syncthreads();
    if (sums.partial) {
        SumsOfTile<P> of_tile(sums, shared, first, width);
        tile.each_chunk(shared, [&](uint4* chunk, uint4* to) {
            float dy[8];
            Vector<T>::load(reinterpret_cast<const T*>(chunk), dy);
            of_tile.add(dy, (int)(reinterpret_cast<T*>(to) - target));
            Vector<T>::store(reinterpret_cast<T*>(to), dy);
        });
        const int tiles = gridDim.x / ceiling_divide(width, P::N), number = blockIdx.z * tiles + base / P::M;
        of_tile.store(first, width, sums.partial + (size_t)number * 2 * width);
        return;
    }
    tile.store(shared);
    if (statistics)
        of_tile.store(product, tile.rows, width - first, width, statistics + base / P::M * 2 * width + first);
}

// The batchnorm with running statistics that follows a convolution, with the residual and the ReLU behind it.
template <typename T> struct Inference {
    int with_relu;
    // [2][width]: g, b; running mean, variance.
    const float *affine, *running;
    // [points][width], or null.
    const T* residual;
};

// Rounds the product into shared memory and stores what the batchnorm makes of it: the convolution's own
// result is never written. The bits are those of the two kernels one after the other.
template <class P>
__device__ __forceinline__ void finish_normalised(P& product, u8* shared, const Gather& gather, int base,
                                                  int first, int width, const Inference<typename P::T>& of,
                                                  typename P::T* target) {
    typedef typename P::T T;
    const TargetTile<P> tile(gather, target, base, first, width);
    tile.round(product, shared, false);
    __syncthreads();
    const int channel = first + threadIdx.x % TargetTile<P>::CHUNKS * 8;
    if (channel >= width) return;
    float mean[8], variance[8], scale[8], offset[8];
    load_channels(of.running + channel, mean);
    load_channels(of.running + width + channel, variance);
    load_channels(of.affine + channel, scale);
    load_channels(of.affine + width + channel, offset);
#pragma unroll
    for (int i = 0; i < 8; ++i) scale[i] *= inverse_deviation(variance[i]);
    tile.each_chunk(shared, [&](const uint4* chunk, uint4* to) {
        float values[8], added[8] = {};
        Vector<T>::load(reinterpret_cast<const T*>(chunk), values);
        T* out = reinterpret_cast<T*>(to);
        if (of.residual) Vector<T>::load(of.residual + (out - target), added);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float value = normalised(values[i], mean[i], scale[i], offset[i]);
            if (of.residual) value += added[i];
            values[i] = of.with_relu ? relu(value) : value;
        }
        Vector<T>::store(out, values);
    });
}

// The gather of `source` with w, tile by tile; finish(product, shared memory, first point, first column)
// makes the target from a tile. This block's tile is number blockIdx.x, columns fastest, so that blocks
// running together share rows of the source.
template <class P, bool FORWARD, int STAGES, typename Finish>
__device__ __forceinline__ void gather_product(const Gather& gather, const ConvolutionShape& shape, int width,
                                               const typename P::T* source, const typename P::T* w,
                                               Finish finish) {
    extern __shared__ __align__(128) u8 shared[];
    const int tiles = ceiling_divide(width, P::N);
    const int base = blockIdx.x / tiles * P::M, first = blockIdx.x % tiles * P::N;
    if (base >= gather.points()) return;

    const int CHUNKS = P::K / 8, ROW_STEP = P::THREADS / CHUNKS, LOADS = P::M / ROW_STEP;
    static_assert(P::M % ROW_STEP == 0 && ROW_STEP % 16 == 0, "every thread copies as much, permuted alike");
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const u32 into = kept(P::A::at(row, chunk));
    const SourceRows<LOADS> rows(gather, base + row, ROW_STEP);
    const Weights<P, FORWARD> weights(shape, w, first);

    Cursor cursor;
    auto copy = [&](u32 a_tile) {
        const typename P::T* from = source + cursor.offset(gather) + chunk * 8;
        const bool inside = cursor.channel + chunk * 8 < gather.channels;
        const int bit = cursor.bit(gather);
#pragma unroll
        for (int i = 0; i < LOADS; ++i)
            copy_async_cached(P::A::moved(a_tile + into, i * ROW_STEP, 0), from + rows.offset[i],
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
    finish(product, shared, base, first);
}
