// The class-prior estimate of RECORDS (Hong et al., ICLR 2023, section 4): the softmax of the classifier (W,
// b) on the moving mean feature F.
//
//   F <- m F + (1 - m) mean over R rows of the features
//   ln pi_k = ln(softmax(W F + b)_k + eps),  eps = EPSILON
#include "block.cuh"
#include "epsilon.cuh"

// Threads per block of mean_feature and log_class_prior.
constexpr int THREADS = 256;
// Columns of features that a block averages.
constexpr int COLUMNS = 8;
constexpr int GROUPS = THREADS / COLUMNS;
// Classes per block of class_scores, one per warp.
constexpr int CLASSES = 4;

// The moving mean: features f32 [R,D] row-major, mean F f32 [D], read and overwritten.
//
// A block of 256 threads takes 8 columns, one 32-byte sector of each row, so that even 64 features occupy 8
// blocks and the usual 512 occupy 64: thread (g, d) adds rows g, g+32, ... of column d in f32, then one
// thread per column adds the 32 sums in order. Each value passes R/32 + 32 additions, so the mean is accurate
// to (R/32 + 32) 2^-24 of the mean magnitude, without f64, which is 1/64 as fast on small GPUs. Reads 4RD +
// 4D bytes once, writes 4D: bound by memory; the features were just written. 1 KB of shared memory. The rows
// of a thread do not depend on timing, so every run has the same bits.
extern "C" __global__ void __launch_bounds__(THREADS)
    mean_feature(int rows, int inputs, float momentum, const float* features, float* mean) {
    __shared__ float sums[GROUPS][COLUMNS];
    const int column = threadIdx.x % COLUMNS, group = threadIdx.x / COLUMNS;
    const int d = blockIdx.x * COLUMNS + column;
    float sum = 0.0f;
    if (d < inputs) {
#pragma unroll 4
        for (int row = group; row < rows; row += GROUPS) sum += features[row * (size_t)inputs + d];
    }
    sums[group][column] = sum;
    __syncthreads();
    if (group != 0 || d >= inputs) return;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < GROUPS; ++i) total += sums[i][column];
    mean[d] = momentum * mean[d] + (1.0f - momentum) * (total / (float)rows);
}

// The classifier on F: parameters f32 [W (K x D); b (K)], mean F f32 [D], scores f32 [K] of workspace.
//
// One warp per class, blocks of 4 warps; 128-bit loads if D is a multiple of 4 (W and F start 16-byte
// aligned). Reads W once, 4KD bytes, bound by memory or, for few classes, by the latency of D/128 loads; F
// comes from the cache. A product passes D/32 + 5 additions (D/128 + 7 with 128-bit loads). No shared memory.
extern "C" __global__ void __launch_bounds__(32 * CLASSES)
    class_scores(int inputs, int classes, const float* mean, const float* parameters, float* scores) {
    const int lane = threadIdx.x % 32, k = blockIdx.x * CLASSES + threadIdx.x / 32;
    if (k >= classes) return;
    const float* w = parameters + k * (size_t)inputs;
    float sum = 0.0f;
    if (inputs % 4 == 0) {
        const float4* w4 = reinterpret_cast<const float4*>(w);
        const float4* f4 = reinterpret_cast<const float4*>(mean);
#pragma unroll 4
        for (int d = lane; d < inputs / 4; d += 32) {
            const float4 a = w4[d], f = f4[d];
            sum += (a.x * f.x + a.y * f.y) + (a.z * f.z + a.w * f.w);
        }
    } else {
        for (int d = lane; d < inputs; d += 32) sum += w[d] * mean[d];
    }
    sum = warp_sum(sum);
    if (lane == 0) scores[k] = sum + parameters[classes * (size_t)inputs + k];
}

// log_prior f32 [K] = ln(softmax(scores) + eps): one block of 256 threads, three passes over at most a few
// thousand numbers. 32 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(THREADS)
    log_class_prior(int classes, const float* scores, float* log_prior) {
    constexpr int WARPS = THREADS / 32;
    __shared__ float scratch[WARPS];
    float most = -infinity();
    for (int k = threadIdx.x; k < classes; k += THREADS) most = fmaxf(most, scores[k]);
    most = block_max<WARPS>(most, scratch);
    float sum = 0.0f;
    for (int k = threadIdx.x; k < classes; k += THREADS) sum += expf(scores[k] - most);
    sum = block_sum<WARPS>(sum, scratch);
    for (int k = threadIdx.x; k < classes; k += THREADS)
        log_prior[k] = logf(expf(scores[k] - most) / sum + EPSILON);
}
