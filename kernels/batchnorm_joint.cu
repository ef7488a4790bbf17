// Batchnorm whose statistics are those of the rows of several GPUs: what each adds up of its own rows, and
// what follows from the sums of all. The passes over activations are those of batchnorm.cu.
//
//   M = sum over GPUs of their rows
//   s_c = sum over GPUs of sum_m x_mc                   q_c = sum over GPUs of sum_m x_mc^2
//   mean_c = s_c / M                                    var_c = q_c / M - mean_c^2
//   p_c = sum over GPUs of sum_m dy (x - mean)          t_c = sum over GPUs of sum_m dy
//
// Sums are in f64, so that the difference of squares loses nothing that an f32 result could show, and over
// GPUs in the order of their ranks. Sums of a GPU, `own`: f64 [2 C + 1], two a channel and the number of its
// rows; those of all, one after the other: `gathered` [R, 2 C + 1].
//
// Source: as batchnorm.cu.
// Cost: bound by latency: a few KB a channel. Deterministic: the order of every sum depends on the shape
// alone.
#include "batchnorm_value.cuh"
#include "common.cuh"

// Channels per block of the kernels that add up tiles: 32 bytes, one sector of the partial sums' rows.
constexpr int FINISH_CHANNELS = 8;
// Most lanes that share a channel's tiles.
constexpr int FINISH_LANES = 64;
// Threads per block of the kernels that add up GPUs.
constexpr int THREADS = 128;

// Two sums.
struct Sums {
    double first;
    double second;
};

// Adds the sums of a block's lanes pairwise; the result is that of lane 0. `shared` is [FINISH_LANES]
// [FINISH_CHANNELS].
__device__ __forceinline__ Sums over_lanes(Sums own, Sums (*shared)[FINISH_CHANNELS]) {
    const int lane = threadIdx.y;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (lane >= half && lane < 2 * half) shared[lane][threadIdx.x] = own;
        __syncthreads();
        if (lane < half) {
            const Sums other = shared[lane + half][threadIdx.x];
            own.first += other.first;
            own.second += other.second;
        }
    }
    return own;
}

// Writes the sums of a channel, and the first channel's thread the number of rows.
__device__ __forceinline__ void write_own(int rows, int channels, int channel, Sums sums,
                                          double* __restrict__ own) {
    own[channel] = sums.first;
    own[channels + channel] = sums.second;
    if (channel == 0) own[2 * channels] = (double)rows;
}

// own = sums of x and x^2 from what batchnorm_statistics has left of every tile: its sum, and M2, the squared
// deviations from the tile's mean; sum x^2 = M2 + (sum x)^2 / n.
// Grid: ceil(C / 8); block: 8 channels x `lanes`, a power of two, at most 64. Lane l adds tiles l, l + lanes,
// ... in order. Shared memory 8 KB. Reads partial [tiles][2][C] once.
extern "C" __global__ void __launch_bounds__(FINISH_CHANNELS* FINISH_LANES)
    batchnorm_own_sums(int rows, int channels, int tiles, int tile_rows, int rows_each,
                       const float* __restrict__ partial, const int* __restrict__ images,
                       double* __restrict__ own) {
    __shared__ Sums shared[FINISH_LANES][FINISH_CHANNELS];
    const int channel = blockIdx.x * FINISH_CHANNELS + threadIdx.x;
    const int valid = valid_rows(rows, rows_each, images);
    Sums sums = {0.0, 0.0};
    if (channel < channels) {
        const int used = min(tiles, ceiling_divide(valid, tile_rows));
        for (int tile = threadIdx.y; tile < used; tile += blockDim.y) {
            const float* of_tile = partial + (size_t)tile * 2 * channels + channel;
            const double sum = (double)of_tile[0];
            const double count = (double)min(tile_rows, valid - tile * tile_rows);
            sums.first += sum;
            sums.second += (double)of_tile[channels] + sum * sum / count;
        }
    }
    sums = over_lanes(sums, shared);
    if (threadIdx.y == 0 && channel < channels) write_own(valid, channels, channel, sums, own);
}

// own = sums of dy (x - mean) and dy from those of the tiles, and d_affine [2][C] = what they are of the
// gradient of the parameters: [sum dy xhat; sum dy] of this GPU's rows.
// Launch and cost: as batchnorm_own_sums.
extern "C" __global__ void __launch_bounds__(FINISH_CHANNELS* FINISH_LANES)
    batchnorm_own_gradient(int rows, int channels, int tiles, int rows_each,
                           const float* __restrict__ partial, const float* __restrict__ batch,
                           const int* __restrict__ images, float* __restrict__ d_affine,
                           double* __restrict__ own) {
    __shared__ Sums shared[FINISH_LANES][FINISH_CHANNELS];
    const int channel = blockIdx.x * FINISH_CHANNELS + threadIdx.x;
    Sums sums = {0.0, 0.0};
    if (channel < channels) {
        for (int tile = threadIdx.y; tile < tiles; tile += blockDim.y) {
            const float* of_tile = partial + (size_t)tile * 2 * channels + channel;
            sums.first += (double)of_tile[0];
            sums.second += (double)of_tile[channels];
        }
    }
    sums = over_lanes(sums, shared);
    if (threadIdx.y > 0 || channel >= channels) return;
    write_own(valid_rows(rows, rows_each, images), channels, channel, sums, own);
    d_affine[channel] = (float)(sums.first * (double)batch[channels + channel]);
    d_affine[channels + channel] = (float)sums.second;
}

// The sums of all GPUs of a channel, in the order of the ranks, and their rows.
__device__ __forceinline__ Sums over_ranks(int channels, int channel, int ranks,
                                           const double* __restrict__ gathered, double& rows) {
    Sums sums = {0.0, 0.0};
    rows = 0.0;
    for (int rank = 0; rank < ranks; ++rank) {
        const double* of_rank = gathered + (size_t)rank * (2 * channels + 1);
        sums.first += of_rank[channel];
        sums.second += of_rank[channels + channel];
        rows += of_rank[2 * channels];
    }
    return sums;
}

// batch [2][C] = mean and 1/sqrt(var + eps) of all rows, running [2][C] as PyTorch's, with the variance
// M/(M-1) (of one row: 0). Without any row the running statistics stay, and `batch` is 0.
// Launch: C threads in blocks of 128. Reads R (2 C + 1) doubles.
extern "C" __global__ void __launch_bounds__(THREADS)
    batchnorm_joint_statistics(int channels, int ranks, const double* __restrict__ gathered,
                               float* __restrict__ running, float* __restrict__ batch) {
    const int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels) return;
    double rows;
    const Sums sums = over_ranks(channels, channel, ranks, gathered, rows);
    if (rows == 0.0) {
        batch[channel] = batch[channels + channel] = 0.0f;
        return;
    }
    const double mean = sums.first / rows;
    const double difference = sums.second / rows - mean * mean;
    // Rounding may leave a value slightly below 0; a NaN passes.
    const double variance = difference < 0.0 ? 0.0 : difference;
    const double unbiased = variance * rows / (rows > 2.0 ? rows - 1.0 : 1.0);
    batch[channel] = (float)mean;
    batch[channels + channel] = inverse_deviation((float)variance);
    const double kept = 0.9, taken = 0.1;
    running[channel] = (float)(kept * (double)running[channel] + taken * mean);
    running[channels + channel] = (float)(kept * (double)running[channels + channel] + taken * unbiased);
}

// share [2][C] = what batchnorm_gradient_apply takes for the gradient of the parameters, so that it divides
// by the rows of all GPUs where it divides by its own: those of all, [sum dy xhat; sum dy], times own rows /
// all rows.
// Launch: C threads in blocks of 128. Reads R (2 C + 1) doubles.
extern "C" __global__ void __launch_bounds__(THREADS)
    batchnorm_joint_gradient(int channels, int rank, int ranks, const double* __restrict__ gathered,
                             const float* __restrict__ batch, float* __restrict__ share) {
    const int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels) return;
    double rows;
    const Sums sums = over_ranks(channels, channel, ranks, gathered, rows);
    const double own = gathered[(size_t)rank * (2 * channels + 1) + 2 * channels];
    const double part = rows == 0.0 ? 0.0 : own / rows;
    share[channel] = (float)(sums.first * (double)batch[channels + channel] * part);
    share[channels + channel] = (float)(sums.second * part);
}
