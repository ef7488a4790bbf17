// Batchnorm over the rows of an NHWC activation (a row is a pixel), training forward, inference and gradient,
// with the ReLU and the residual of the block in the same passes.
//
//   mean_c = 1/M sum_m x_mc     var_c = 1/M sum_m (x_mc - mean_c)^2     xhat = (x - mean) / sqrt(var + eps)
//   y = relu?(g xhat + b + residual?)
//   d_g = sum_m dy xhat            d_b = sum_m dy            (dy set to 0 where the ReLU gave 0)
//   dx = g / sqrt(var + eps) (dy - d_b / M - xhat d_g / M)
//
// Source: S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3 (algorithms 1 and 2 and the gradient
// below them). Merging of partial variances: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances", 1979, equation 2.1.
//
// Tensors: x, y, residual, dy, dx are [M][C] of T (bf16, f16 or f32), 16-byte aligned, C a multiple
// of 8, of 4 in f32. affine [2][C] = g, b; running [2][C] = mean, var; batch [2][C] = mean, 1/sqrt(var + eps); d_affine
// [2][C]: all f32. positive [M][C / 8] (of f32 [C / 4]) u8: the bits of y > 0, a byte for each vector.
//
// How the passes over [M][C] are divided. A thread owns one vector of 16 bytes, 8 or 4 channels, of every row
// it visits, so the channels' coefficients and sums stay in its registers. A block is `width` vectors by
// `lanes` rows, at most 256 threads; blockIdx.x is a slice of `width` vectors of the channels, blockIdx.y a
// tile of `tile_rows` rows, through which the block steps `lanes` rows at a time. Narrow layers have one
// slice and many tiles, wide ones several slices and few tiles. A warp reads 512 contiguous bytes where the
// slice is 32 vectors wide or the whole row.
//
// `images` is for batches with a number of valid rows that the device decides: those of the first *images
// images, `rows_each` per image. The rows behind are not read and not counted; their y and dx are 0. A null
// pointer means that all rows are valid.
//
// Cost (predicted): no pass reuses data, so all are bound by memory; 3 to 9 FLOPs per element. Passes over a
// tensor of M C elements: training forward 3 (2 if the convolution's epilogue left the partial sums: read,
// write), inference 2, each plus 1 with a residual; gradient 5 without residual (dy, x; dy, x, dx) and 6 with
// (dy, x, dy; dy, x, dx). Without residual the ReLU's mask is recomputed from x with the forward pass's own
// expression, so y is not read and the masked dy not written; with one the forward pass leaves it as bits, a
// sixteenth of y in bf16. Without fusing into a neighbour's kernel this is the least possible: statistics
// must be complete before the first output. Partial sums add 2 C / tile_rows of a pass of f32.
//
// Deterministic: no atomics. Each thread adds its rows in order, a block its lanes in order, the finishing
// kernels the tiles in a tree that depends on their number alone; the tiling depends only on the shape and
// the GPU's description.
#include "batchnorm_value.cuh"
#include "common.cuh"

// Threads per block of the passes over activations.
constexpr int THREADS = 256;
// Bounds registers to 64 (forward) and 80 (gradient) per thread: 32 and 24 warps per multiprocessor. With the
// loads of two rows in flight per thread these keep 24 KB and more in flight, where the memory's latency
// requires 936 GB/s x 0.6 us / 82 = 7 KB on an RTX 3090 and 16 KB on an H100.
constexpr int FORWARD_BLOCKS = 4;
constexpr int GRADIENT_BLOCKS = 3;

// PyTorch's default: the weight of the new statistics in the running ones.
constexpr float MOMENTUM = 0.1f;

// The rows and channels of a thread.
struct Place {
    // First channel; the thread has none if this is C or more.
    int channel;
    // Rows first, first + step, ..., below end.
    int first;
    int end;
    int step;
};

template <typename T> __device__ __forceinline__ Place place(int rows, int tile_rows) {
    const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * Vector<T>::LEN;
    const int start = blockIdx.y * tile_rows;
    return {channel, start + (int)threadIdx.y, min(rows, start + tile_rows), (int)blockDim.y};
}

// A number known to the compiler.
template <int N> struct Count {
    static constexpr int value = N;
};

// Calls body(Count<N>, row) for N rows row, row + step, ... at a time, so that their loads are in flight
// together, and body(Count<1>, row) for each of the rest.
template <int N, typename Body> __device__ __forceinline__ void for_rows(const Place& at, Body body) {
    int row = at.first;
    for (; row + (N - 1) * at.step < at.end; row += N * at.step) body(Count<N>(), row);
    for (; row < at.end; row += at.step) body(Count<1>(), row);
}

// The vectors of N rows.
template <typename T, int N>
__device__ __forceinline__ void load_rows(const T* from, size_t step, float (&values)[N][Vector<T>::LEN]) {
#pragma unroll
    for (int n = 0; n < N; ++n) Vector<T>::load(from + n * step, values[n]);
}

template <typename T, int N>
__device__ __forceinline__ void store_rows(T* to, size_t step, const float (&values)[N][Vector<T>::LEN]) {
#pragma unroll
    for (int n = 0; n < N; ++n) Vector<T>::store(to + n * step, values[n]);
}

// Writes zeros to the rows of the thread's tile that are not valid.
template <typename T>
__device__ __forceinline__ void zero_behind(const Place& at, int rows, int valid, int tile_rows, int channels,
                                            T* to) {
    if (valid == rows) return;
    const float zeros[Vector<T>::LEN] = {};
    const int end = min(rows, (int)blockIdx.y * tile_rows + tile_rows);
    for (int row = at.first; row < end; row += at.step)
        if (row >= valid) Vector<T>::store(to + (size_t)row * channels + at.channel, zeros);
}

// Adds two sums per channel over the lanes of a block, in order, and writes them to `partial` [tile][2][C].
// `finish(c, first, second)` may change the pair before it is stored. Shared memory: 2 x LEN x (256 + 32 /
// LEN) floats, 16.25 KB with bf16, element i of every thread's vector in row i: neighbouring threads write
// neighbouring words, and reading in the order of channels, i running fastest, touches every bank once,
// because rows are 32 / LEN banks apart.
template <int LEN, typename Finish>
__device__ __forceinline__ void sum_lanes(const float (&first)[LEN], const float (&second)[LEN], int channels,
                                          float* __restrict__ partial, Finish finish) {
    __shared__ float sums[2][LEN][THREADS + 32 / LEN];
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int i = 0; i < LEN; ++i) {
        sums[0][i][thread] = first[i];
        sums[1][i][thread] = second[i];
    }
    __syncthreads();
    const int width = blockDim.x * LEN;
    float* tile = partial + (size_t)blockIdx.y * 2 * channels;
    for (int i = thread; i < width; i += blockDim.x * blockDim.y) {
        const int channel = blockIdx.x * width + i;
        if (channel >= channels) break;
        float a = 0.0f, b = 0.0f;
        for (int lane = 0; lane < blockDim.y; ++lane) {
            a += sums[0][i % LEN][lane * blockDim.x + i / LEN];
            b += sums[1][i % LEN][lane * blockDim.x + i / LEN];
        }
        finish(channel, a, b);
        tile[channel] = a;
        tile[channels + channel] = b;
    }
}

// Partial statistics of x: partial [tile][0] = sum over the tile's rows, [tile][1] = M2, the squared
// deviations from the tile's own mean.
//
// Computed in one pass from deviations from the tile's first row p: sum = n p + sum (x - p), M2 = sum (x -
// p)^2 - (sum (x - p))^2 / n. The term that cancels is n (mean - p)^2. If p is within k standard deviations
// of the mean, that is k^2 M2, so M2 loses a fraction k^2 2^-24, whatever the mean. As p is one of the tile's
// own values, the term is never above (n - 1) M2. Grid: slices x tiles; block: width x lanes. Shared 16.25
// KB.
template <typename T>
__device__ __forceinline__ void statistics(int rows, int channels, int tile_rows, int rows_each,
                                           const T* __restrict__ x, const int* __restrict__ images,
                                           float* __restrict__ partial) {
    constexpr int LEN = Vector<T>::LEN;
    const Place at = place<T>(valid_rows(rows, rows_each, images), tile_rows);
    const size_t step = (size_t)at.step * channels;
    const int start = blockIdx.y * tile_rows;
    // The sums of a tile without rows are never read.
    if (at.end <= start) return;
    float sum[LEN] = {}, squares[LEN] = {};
    if (at.channel < channels) {
        float pivot[LEN];
        Vector<T>::load(x + (size_t)start * channels + at.channel, pivot);
        for_rows<4>(at, [&](auto count, int row) {
            constexpr int N = decltype(count)::value;
            float values[N][LEN];
            load_rows(x + (size_t)row * channels + at.channel, step, values);
#pragma unroll
            for (int j = 0; j < N * LEN; ++j) {
                const int n = j / LEN, i = j % LEN;
                const float deviation = values[n][i] - pivot[i];
                sum[i] += deviation;
                squares[i] += deviation * deviation;
            }
        });
    }
    const float n = (float)(at.end - start);
    sum_lanes<LEN>(sum, squares, channels, partial, [&](int channel, float& total, float& square) {
        const float pivot = to_float(x[(size_t)start * channels + channel]);
        const float m2 = square - total * (total / n);
        // Rounding may leave a value slightly below 0; a NaN passes.
        square = m2 < 0.0f ? 0.0f : m2;
        total = n * pivot + total;
    });
}

#define STATISTICS(NAME, T)                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS)                         \
        NAME(int rows, int channels, int tile_rows, int rows_each, const T* x, const int* images, \
             float* partial) {                                                                    \
        statistics(rows, channels, tile_rows, rows_each, x, images, partial);                     \
    }

STATISTICS(batchnorm_statistics_bf16, bf16)
STATISTICS(batchnorm_statistics_f16, f16)
STATISTICS(batchnorm_statistics_f32, float)

// Channels per block of the finishing kernels: 32 bytes, one sector of the partial sums' rows.
constexpr int FINISH_CHANNELS = 8;
// Most tile lanes per block of the finishing kernels: 1024 threads.
constexpr int FINISH_LANES = 128;

// Count, mean (as the deviation from a common value) and M2 of a set of rows.
struct Moments {
    float count;
    float mean;
    float m2;
};

// Chan's formula; a side without rows changes nothing.
__device__ __forceinline__ Moments merged(Moments a, Moments b) {
    if (b.count == 0.0f) return a;
    const float count = a.count + b.count;
    const float share = b.count / count;
    const float delta = b.mean - a.mean;
    return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

// Statistics of all rows from those of the tiles; batch and running statistics, the latter as PyTorch's:
// running = 0.9 running + 0.1 new, with the variance n/(n-1) (of one row: 0). Without valid rows the running
// statistics stay, and `batch` is 0.
//
// Means enter as deviations from the first tile's mean, so that f32 loses nothing if |mean| is large compared
// with the deviation; their variance is summed in one pass from those, with what `statistics` says of its
// loss. Grid: ceil(C / 8); block: 8 channels x `lanes` (a power of two, at most 128). Lane l sums tiles l, l +
// lanes, ... in order, then lanes are merged pairwise. partial [tiles][2][C] as above, read once; 6 FLOPs per
// tile and channel. Shared memory 12 KB; registers bounded to 64 by the block's 1024 threads.
extern "C" __global__ void __launch_bounds__(FINISH_CHANNELS* FINISH_LANES)
    batchnorm_finish(int rows, int channels, int tiles, int tile_rows, int rows_each,
                     const float* __restrict__ partial, const int* __restrict__ images,
                     float* __restrict__ running, float* __restrict__ batch) {
    __shared__ Moments shared[FINISH_LANES][FINISH_CHANNELS];
    const int channel = blockIdx.x * FINISH_CHANNELS + threadIdx.x;
    const int lane = threadIdx.y;
    if (images != nullptr) {
        rows = valid_rows(rows, rows_each, images);
        tiles = ceiling_divide(rows, tile_rows);
        if (rows == 0) {
            if (lane == 0 && channel < channels) batch[channel] = batch[channels + channel] = 0.0f;
            return;
        }
    }
    Moments own = {0.0f, 0.0f, 0.0f};
    float pivot = 0.0f;
    if (channel < channels) {
        pivot = partial[channel] / (float)min(rows, tile_rows);
        // Tiles of as many rows need no division each.
        const int full = rows / tile_rows;
        const float share = 1.0f / (float)tile_rows;
        float sum = 0.0f, squares = 0.0f, m2 = 0.0f;
#pragma unroll 4
        for (int tile = lane; tile < full; tile += blockDim.y) {
            const float* sums = partial + (size_t)tile * 2 * channels + channel;
            const float deviation = sums[0] * share - pivot;
            sum += deviation;
            squares += deviation * deviation;
            m2 += sums[channels];
        }
        if (lane < full) {
            const float count = (float)ceiling_divide(full - lane, (int)blockDim.y), mean = sum / count;
            const float between = squares - sum * mean;
            // Rounding may leave a value slightly below 0; a NaN passes.
            own = {count * (float)tile_rows, mean, m2 + (between < 0.0f ? 0.0f : between) * (float)tile_rows};
        }
        if (full < tiles && full % blockDim.y == lane) {
            const float* sums = partial + (size_t)full * 2 * channels + channel;
            const float count = (float)(rows - full * tile_rows);
            own = merged(own, {count, sums[0] / count - pivot, sums[channels]});
        }
    }
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (lane >= half && lane < 2 * half) shared[lane][threadIdx.x] = own;
        __syncthreads();
        if (lane < half) own = merged(own, shared[lane + half][threadIdx.x]);
    }
    if (lane > 0 || channel >= channels) return;
    const float mean = pivot + own.mean;
    const float variance = own.m2 / (float)rows;
    const float unbiased = own.m2 / (float)max(rows - 1, 1);
    batch[channel] = mean;
    batch[channels + channel] = inverse_deviation(variance);
    running[channel] = (1.0f - MOMENTUM) * running[channel] + MOMENTUM * mean;
    running[channels + channel] = (1.0f - MOMENTUM) * running[channels + channel] + MOMENTUM * unbiased;
}

// y = relu?(g (x - mean) / std + b + residual?), where `statistics` [2][C] is the batch's mean and 1/std or,
// for inference, the running mean and variance. Grid: slices x tiles; block: width x lanes. Reads x (and
// residual), writes y (and its bits).
template <typename T, bool INFERENCE, bool RESIDUAL>
__device__ __forceinline__ void apply(int rows, int valid, int channels, int tile_rows, int with_relu,
                                      const T* __restrict__ x, const float* __restrict__ affine,
                                      const float* __restrict__ statistics, const T* __restrict__ residual,
                                      T* __restrict__ y, u8* __restrict__ positive) {
    constexpr int LEN = Vector<T>::LEN;
    typedef typename Vector<T>::Raw Raw;
    const Place at = place<T>(valid, tile_rows);
    if (at.channel >= channels) return;
    float mean[LEN], scale[LEN], offset[LEN], second[LEN];
    load_channels(statistics + at.channel, mean);
    load_channels(statistics + channels + at.channel, second);
    load_channels(affine + at.channel, scale);
    load_channels(affine + channels + at.channel, offset);
#pragma unroll
    for (int i = 0; i < LEN; ++i) scale[i] *= INFERENCE ? inverse_deviation(second[i]) : second[i];
    const size_t step = (size_t)at.step * channels;
    for_rows<2>(at, [&](auto count, int row) {
        constexpr int N = decltype(count)::value;
        const size_t index = (size_t)row * channels + at.channel;
        // The rows are in flight together, and become floats one after the other.
        Raw rows_of_x[N], rows_of_residual[N];
#pragma unroll
        for (int n = 0; n < N; ++n) {
            rows_of_x[n] = *reinterpret_cast<const Raw*>(x + index + n * step);
            if (RESIDUAL) rows_of_residual[n] = *reinterpret_cast<const Raw*>(residual + index + n * step);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            float values[LEN], added[LEN];
            Vector<T>::unpack(rows_of_x[n], values);
            if (RESIDUAL) Vector<T>::unpack(rows_of_residual[n], added);
#pragma unroll
            for (int i = 0; i < LEN; ++i) {
                float value = normalised(values[i], mean[i], scale[i], offset[i]);
                if (RESIDUAL) value += added[i];
                values[i] = with_relu ? relu(value) : value;
            }
            const Raw rounded = Vector<T>::packed(values);
            *reinterpret_cast<Raw*>(y + index + n * step) = rounded;
            if (RESIDUAL && positive) positive[(index + n * step) / LEN] = positive_bits<T>(rounded);
        }
    });
    zero_behind(at, rows, valid, tile_rows, channels, y);
}

#define APPLY(NAME, T, INFERENCE)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS)                                  \
        NAME(int rows, int channels, int tile_rows, int rows_each, int with_relu, const T* x,              \
             const float* affine, const float* statistics, const T* residual, const int* images, T* y,     \
             u8* positive) {                                                                               \
        const int valid = valid_rows(rows, rows_each, images);                                             \
        if (residual)                                                                                      \
            apply<T, INFERENCE, true>(rows, valid, channels, tile_rows, with_relu, x, affine, statistics,  \
                                      residual, y, positive);                                              \
        else                                                                                               \
            apply<T, INFERENCE, false>(rows, valid, channels, tile_rows, with_relu, x, affine, statistics, \
                                       residual, y, nullptr);                                              \
    }

APPLY(batchnorm_apply_bf16, bf16, false)
APPLY(batchnorm_apply_f16, f16, false)
APPLY(batchnorm_apply_f32, float, false)
APPLY(batchnorm_inference_bf16, bf16, true)
APPLY(batchnorm_inference_f16, f16, true)
APPLY(batchnorm_inference_f32, float, true)

// Partial sums of the gradient: partial [tile][0] = sum dy (x - mean), [tile][1] = sum dy, dy masked.
// Grid: slices x tiles; block: width x lanes. Shared 16.25 KB. Reads dy and x (MASK_FROM_BITS: and the bits,
// writes dy).
template <typename T, int MASK>
__device__ __forceinline__ void gradient_sums(int rows, int channels, int tile_rows, int rows_each,
                                              const T* __restrict__ x, const u8* __restrict__ positive,
                                              const float* __restrict__ affine,
                                              const float* __restrict__ batch, const int* __restrict__ images,
                                              T* __restrict__ dy, float* __restrict__ partial) {
    constexpr int LEN = Vector<T>::LEN;
    const Place at = place<T>(valid_rows(rows, rows_each, images), tile_rows);
    float products[LEN] = {}, sums[LEN] = {};
    if (at.channel < channels) {
        float mean[LEN], scale[LEN], offset[LEN];
        load_channels(batch + at.channel, mean);
        if (MASK == MASK_FROM_X) {
            float inverse_std[LEN];
            load_channels(batch + channels + at.channel, inverse_std);
            load_channels(affine + at.channel, scale);
            load_channels(affine + channels + at.channel, offset);
#pragma unroll
            for (int i = 0; i < LEN; ++i) scale[i] *= inverse_std[i];
        }
        const size_t step = (size_t)at.step * channels;
        for_rows<2>(at, [&](auto count, int row) {
            constexpr int N = decltype(count)::value;
            const size_t index = (size_t)row * channels + at.channel;
            float gradient[N][LEN], values[N][LEN];
            u32 bits[N];
            load_rows(dy + index, step, gradient);
            load_rows(x + index, step, values);
#pragma unroll
            for (int n = 0; n < N; ++n)
                if (MASK == MASK_FROM_BITS) bits[n] = positive[(index + n * step) / LEN];
#pragma unroll
            for (int j = 0; j < N * LEN; ++j) {
                const int n = j / LEN, i = j % LEN;
                bool passed = true;
                if (MASK == MASK_FROM_X)
                    passed = normalised(values[n][i], mean[i], scale[i], offset[i]) > 0.0f;
                if (MASK == MASK_FROM_BITS) passed = bits[n] >> i & 1;
                gradient[n][i] = passed ? gradient[n][i] : 0.0f;
                products[i] += gradient[n][i] * (values[n][i] - mean[i]);
                sums[i] += gradient[n][i];
            }
            if (MASK == MASK_FROM_BITS) store_rows(dy + index, step, gradient);
        });
    }
    sum_lanes<LEN>(products, sums, channels, partial, [](int, float&, float&) {});
}

#define GRADIENT_SUMS(NAME, T, MASK)                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, GRADIENT_BLOCKS)                            \
        NAME(int rows, int channels, int tile_rows, int rows_each, const T* x, const u8* positive,    \
             const float* affine, const float* batch, const int* images, T* dy, float* partial) {     \
        gradient_sums<T, MASK>(rows, channels, tile_rows, rows_each, x, positive, affine, batch,      \
                               images, dy, partial);                                                  \
    }

GRADIENT_SUMS(batchnorm_gradient_sums_bf16, bf16, MASK_NONE)
GRADIENT_SUMS(batchnorm_gradient_sums_f16, f16, MASK_NONE)
GRADIENT_SUMS(batchnorm_gradient_sums_f32, float, MASK_NONE)
GRADIENT_SUMS(batchnorm_gradient_sums_relu_bf16, bf16, MASK_FROM_X)
GRADIENT_SUMS(batchnorm_gradient_sums_relu_f16, f16, MASK_FROM_X)
GRADIENT_SUMS(batchnorm_gradient_sums_relu_f32, float, MASK_FROM_X)
GRADIENT_SUMS(batchnorm_gradient_sums_residual_bf16, bf16, MASK_FROM_BITS)
GRADIENT_SUMS(batchnorm_gradient_sums_residual_f16, f16, MASK_FROM_BITS)
GRADIENT_SUMS(batchnorm_gradient_sums_residual_f32, float, MASK_FROM_BITS)

// d_affine = [sum dy xhat; sum dy] from the tiles' sums: the division by the deviation is taken out of the
// sum. Grid and block as batchnorm_finish; shared memory 8 KB; 2 FLOPs per tile and channel.
extern "C" __global__ void __launch_bounds__(FINISH_CHANNELS* FINISH_LANES)
    batchnorm_gradient_finish(int channels, int tiles, const float* __restrict__ partial,
                              const float* __restrict__ batch, float* __restrict__ d_affine) {
    __shared__ float2 shared[FINISH_LANES][FINISH_CHANNELS];
    const int channel = blockIdx.x * FINISH_CHANNELS + threadIdx.x;
    const int lane = threadIdx.y;
    float2 own = make_float2(0.0f, 0.0f);
    if (channel < channels) {
#pragma unroll 4
        for (int tile = lane; tile < tiles; tile += blockDim.y) {
            const float* sums = partial + (size_t)tile * 2 * channels + channel;
            own.x += sums[0];
            own.y += sums[channels];
        }
    }
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (lane >= half && lane < 2 * half) shared[lane][threadIdx.x] = own;
        __syncthreads();
        if (lane < half) {
            const float2 other = shared[lane + half][threadIdx.x];
            own.x += other.x;
            own.y += other.y;
        }
    }
    if (lane > 0 || channel >= channels) return;
    d_affine[channel] = own.x * batch[channels + channel];
    d_affine[channels + channel] = own.y;
}

// dx, one set of GradientCoefficients per channel. Grid: slices x tiles; block: width x lanes. Reads dy and x, writes dx.
template <typename T, int MASK>
__device__ __forceinline__ void gradient_apply(int rows, int channels, int tile_rows, int rows_each,
                                               const T* __restrict__ x, const float* __restrict__ affine,
                                               const float* __restrict__ batch, const T* __restrict__ dy,
                                               const float* __restrict__ d_affine,
                                               const int* __restrict__ images, T* __restrict__ dx) {
    constexpr int LEN = Vector<T>::LEN;
    const int valid = valid_rows(rows, rows_each, images);
    const Place at = place<T>(valid, tile_rows);
    if (at.channel >= channels) return;
    GradientCoefficients<LEN> of;
    of.load(valid, channels, at.channel, affine, batch, d_affine);
    float offset[LEN];
    if (MASK == MASK_FROM_X) load_channels(affine + channels + at.channel, offset);
    const size_t step = (size_t)at.step * channels;
    for_rows<2>(at, [&](auto count, int row) {
        constexpr int N = decltype(count)::value;
        const size_t index = (size_t)row * channels + at.channel;
        float gradient[N][LEN], values[N][LEN];
        load_rows(dy + index, step, gradient);
        load_rows(x + index, step, values);
#pragma unroll
        for (int j = 0; j < N * LEN; ++j) {
            const int n = j / LEN, i = j % LEN;
            float masked = gradient[n][i];
            if (MASK == MASK_FROM_X)
                masked = normalised(values[n][i], of.mean[i], of.scale[i], offset[i]) > 0.0f ? masked : 0.0f;
            values[n][i] = of.dx(i, masked, values[n][i]);
        }
        store_rows(dx + index, step, values);
    });
    zero_behind(at, rows, valid, tile_rows, channels, dx);
}

#define GRADIENT_APPLY(NAME, T, MASK)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, GRADIENT_BLOCKS)                            \
        NAME(int rows, int channels, int tile_rows, int rows_each, const T* x, const float* affine,   \
             const float* batch, const T* dy, const float* d_affine, const int* images, T* dx) {      \
        gradient_apply<T, MASK>(rows, channels, tile_rows, rows_each, x, affine, batch, dy, d_affine, \
                                images, dx);                                                          \
    }

GRADIENT_APPLY(batchnorm_gradient_apply_bf16, bf16, MASK_NONE)
GRADIENT_APPLY(batchnorm_gradient_apply_f16, f16, MASK_NONE)
GRADIENT_APPLY(batchnorm_gradient_apply_f32, float, MASK_NONE)
GRADIENT_APPLY(batchnorm_gradient_apply_relu_bf16, bf16, MASK_FROM_X)
GRADIENT_APPLY(batchnorm_gradient_apply_relu_f16, f16, MASK_FROM_X)
GRADIENT_APPLY(batchnorm_gradient_apply_relu_f32, float, MASK_FROM_X)
