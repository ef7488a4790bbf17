// The operations of PiCO (Wang et al., ICLR 2022) beside a network's forward pass: embeddings on the unit
// sphere, the momentum encoder, pseudo-labels and prototypes, and the contrastive loss.
//
// Letters: B samples of K classes, embeddings q and keys k [B,D], prototypes mu [K,D], a queue z of Q earlier
// keys, D <= LANE_COLUMNS * 32. Labels are classes as whole numbers in f32, NO_LABEL if there is none.
//
// Deterministic: no float atomics; sums run over lanes, warps and rows in a fixed order.
#include "block.cuh"
#include "control.cuh"

// Threads per block, with one row per warp or one element per thread.
constexpr int THREADS = 256;
// Warps per block.
constexpr int WARPS = THREADS / 32;
// Most columns of an embedding per lane: lane, lane + 32, ...
constexpr int LANE_COLUMNS = 8;
// The label of a row without one.
constexpr float NO_LABEL = -1.0f;
// Lower bound of the norm that a row is divided by.
constexpr float LEAST_NORM = 1e-12f;
// Position of phi, the weight of the old confidence row, in the step's control block.
constexpr int PHI = OWN;

// This lane's columns of a row that a warp holds, 0 past the end.
struct LaneRow {
    float values[LANE_COLUMNS];

    __device__ __forceinline__ void load(const float* row, int columns) {
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; ++i) {
            const int column = threadIdx.x % 32 + 32 * i;
            values[i] = column < columns ? row[column] : 0.0f;
        }
    }

    __device__ __forceinline__ float dot(const LaneRow& other) const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; ++i) sum = fmaf(values[i], other.values[i], sum);
        return warp_sum(sum);
    }

    // += factor x.
    __device__ __forceinline__ void add(float factor, const LaneRow& x) {
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; ++i) values[i] = fmaf(factor, x.values[i], values[i]);
    }
};

// y [R,D] = x / max(|x|, LEAST_NORM), row by row.
// Launch: grid ceil(R / WARPS), block THREADS, one warp per row. Cost: 8 bytes per element, the least
//   possible.
extern "C" __global__ void __launch_bounds__(THREADS)
    normalise_rows(int rows, int columns, const float* x, float* y) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    LaneRow values;
    values.load(x + (size_t)row * columns, columns);
    const float norm = fmaxf(sqrtf(values.dot(values)), LEAST_NORM);
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; ++i) {
        const int column = threadIdx.x % 32 + 32 * i;
        if (column < columns) y[(size_t)row * columns + column] = values.values[i] / norm;
    }
}

// dx [R,D] = (dy - y (y dy)) / max(|x|, LEAST_NORM) with y of normalise_rows, row by row.
// Launch: as normalise_rows. Cost: 12 bytes per element, the least possible.
extern "C" __global__ void __launch_bounds__(THREADS)
    normalise_rows_gradient(int rows, int columns, const float* x, const float* dy, float* dx) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    LaneRow values, gradient;
    values.load(x + (size_t)row * columns, columns);
    gradient.load(dy + (size_t)row * columns, columns);
    const float norm = fmaxf(sqrtf(values.dot(values)), LEAST_NORM);
    const float along = values.dot(gradient) / norm;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; ++i) {
        const int column = threadIdx.x % 32 + 32 * i;
        const float across = gradient.values[i] - values.values[i] / norm * along;
        if (column < columns) dx[(size_t)row * columns + column] = across / norm;
    }
}

// average [len] = m average + (1 - m) values, and its rounded copy, which may be null.
// Launch: grid ceil(len / THREADS), block THREADS; one element per thread. Cost: 12 bytes per element and 2
// for the copy, the least possible. The bits are the CPU's: each product and the sum are rounded.
template <typename T>
__device__ __forceinline__ void moving_average(int len, float momentum, const float* values, float* average,
                                               T* copy) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= len) return;
    const float moved = __fadd_rn(__fmul_rn(momentum, average[i]), __fmul_rn(1.0f - momentum, values[i]));
    average[i] = moved;
    if (copy) copy[i] = from_float<T>(moved);
}

#define MOVE_AVERAGE(NAME, T)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                             \
        NAME(int len, float momentum, const float* values, float* average, T* copy) { \
        moving_average(len, momentum, values, average, copy);                         \
    }

MOVE_AVERAGE(move_average, bf16)
MOVE_AVERAGE(move_average_f16, f16)

// For each sample: label = its candidate with the largest logit less log-prior, NO_LABEL if all are NaN; and,
// if control[UPDATE] is not 0, confidence row s <- phi s + (1 - phi) e, where e is 1 at the candidate whose
// prototype has the largest product with q. Of equals, the first counts.
//
// logits [B,K], log_prior [K] or null, candidates u8 [N,K], index i32 [B], embeddings q [B,D], prototypes
// [K,D], control; labels f32 [B], confidence f32 [N,K].
// Launch: grid ceil(B / WARPS), block THREADS, one warp per sample.
// Cost: 2 D FLOPs per candidate of a sample; the prototypes, 51 KB for 100 classes, stay in L2.
extern "C" __global__ void __launch_bounds__(THREADS)
    pseudo_labels(int batch, int classes, int columns, const float* logits, const float* log_prior,
                  const u8* candidates, const int* index, const float* embeddings, const float* prototypes,
                  const float* control, float* labels, float* confidence) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= batch) return;
    const size_t sample = (size_t)index[row] * classes;
    Argmax best = {-infinity(), 0x7fffffff};
    for (int k = lane; k < classes; k += 32) {
        const float logit = logits[(size_t)row * classes + k];
        const float value = log_prior ? logit - log_prior[k] : logit;
        if (candidates[sample + k] != 0 && value > best.value) best = {value, k};
    }
    best = warp_argmax(best);
    if (lane == 0) labels[row] = best.at < classes ? (float)best.at : NO_LABEL;

    if (control[UPDATE] == 0.0f) return;
    LaneRow q;
    q.load(embeddings + (size_t)row * columns, columns);
    Argmax nearest = {-infinity(), 0x7fffffff};
    for (int k = 0; k < classes; ++k) {
        if (candidates[sample + k] == 0) continue;
        LaneRow prototype;
        prototype.load(prototypes + (size_t)k * columns, columns);
        const float score = q.dot(prototype);
        if (score > nearest.value) nearest = {score, k};
    }
    if (nearest.at >= classes) return;
    const float phi = control[PHI];
    for (int k = lane; k < classes; k += 32) {
        const float share = k == nearest.at ? 1.0f - phi : 0.0f;
        confidence[sample + k] = __fadd_rn(__fmul_rn(phi, confidence[sample + k]), share);
    }
}

// prototypes [K,D]: mu_label <- m mu_label + (1 - m) q of every sample in the order of the batch, then each
// row / max(|row|, LEAST_NORM).
// Launch: grid K, block THREADS: one class per block, one column per thread, D <= THREADS. Cost: every block
// reads the labels; the embeddings are read once. Before the norm the bits are the CPU's.
extern "C" __global__ void __launch_bounds__(THREADS)
    move_prototypes(int batch, int columns, float momentum, const float* embeddings, const float* labels,
                    float* prototypes) {
    __shared__ float scratch[WARPS];
    const int column = threadIdx.x;
    float* row = prototypes + (size_t)blockIdx.x * columns;
    float value = column < columns ? row[column] : 0.0f;
    for (int b = 0; b < batch; ++b) {
        if (labels[b] != (float)blockIdx.x || column >= columns) continue;
        const float q = embeddings[(size_t)b * columns + column];
        value = __fadd_rn(__fmul_rn(momentum, value), __fmul_rn(1.0f - momentum, q));
    }
    const float norm = fmaxf(sqrtf(block_sum<WARPS>(value * value, scratch)), LEAST_NORM);
    if (column < columns) row[column] = value / norm;
}

// Anchors per block: each row that is read serves this many.
constexpr int ANCHORS = 2;
// Figures per anchor: ln of the sum over A(i), 1 / number of its positives.
constexpr int FIGURES = 2;

// The loss of anchor i over rows z = [q; k; queue], s_ij = q_i z_j / T:
//   L_i = ln sum_{j in A(i)} exp s_ij  -  1 / |P(i)| sum_{j in P(i)} s_ij
// If control[UPDATE] is not 0, A(i) is all rows but i itself, and P(i) is its own key and those rows of A(i)
// with the label of i. Otherwise A(i) is its own key and the queue, and P(i) its own key.
struct Contrasted {
    int batch;
    int columns;
    int queue_rows;
    float temperature;
    const float* embeddings;
    const float* keys;
    const float* labels;
    const float* queue;
    const float* queue_labels;
    const float* control;
};

// Whether j is in A(i), in P(i); and row j with its label.
__device__ __forceinline__ bool is_held_against(const Contrasted& c, bool labelled, int i, int j) {
    return labelled ? j != i : j == c.batch + i || j >= 2 * c.batch;
}

__device__ __forceinline__ const float* row_of(const Contrasted& c, int j) {
    const float* from = j < c.batch ? c.embeddings : j < 2 * c.batch ? c.keys : c.queue;
    return from + (size_t)(j < c.batch ? j : j < 2 * c.batch ? j - c.batch : j - 2 * c.batch) * c.columns;
}

__device__ __forceinline__ float label_of(const Contrasted& c, int j) {
    return j < 2 * c.batch ? c.labels[j < c.batch ? j : j - c.batch] : c.queue_labels[j - 2 * c.batch];
}

__device__ __forceinline__ bool is_positive(const Contrasted& c, bool labelled, int i, float label, int j) {
    return j == c.batch + i || (labelled && j != i && label >= 0.0f && label_of(c, j) == label);
}

// figures [B,FIGURES] of every anchor, and loss_rows [B] += weight L_i.
// Launch: grid ceil(B / ANCHORS), block THREADS: a warp takes every WARPS-th row for the block's anchors and
// keeps the sum of exponentials relative to the largest so far; the warps' sums are then merged in order.
// Cost: 2 B (2 B + Q) D FLOPs; from L2 the rows once per block: for 256 anchors and 8192 keys of 128 values
// 0.57 GFLOP and 0.57 GB. The interpreter counts about 110 warp instructions per anchor and row, so 1.2 ms
// are predicted for that case on an RTX 3090: instruction issue limits it, mostly in the sums over lanes. No
// B x (2 B + Q) matrix is stored. A term of the sums passes (2 B + Q) / WARPS + WARPS additions.
extern "C" __global__ void __launch_bounds__(THREADS)
    contrast_figures(Contrasted c, float weight, float* figures, float* loss_rows) {
    __shared__ float merged[ANCHORS][4][WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * ANCHORS;
    const bool labelled = c.control[UPDATE] != 0.0f;
    const float sharpness = 1.0f / c.temperature;
    LaneRow q[ANCHORS];
    float own[ANCHORS], most[ANCHORS], sum[ANCHORS], positive[ANCHORS], count[ANCHORS];
#pragma unroll
    for (int a = 0; a < ANCHORS; ++a) {
        const int i = min(first + a, c.batch - 1);
        q[a].load(c.embeddings + (size_t)i * c.columns, c.columns);
        own[a] = c.labels[i], most[a] = -infinity(), sum[a] = positive[a] = count[a] = 0.0f;
    }
    for (int j = warp; j < 2 * c.batch + c.queue_rows; j += WARPS) {
        LaneRow z;
        z.load(row_of(c, j), c.columns);
#pragma unroll
        for (int a = 0; a < ANCHORS; ++a) {
            const int i = min(first + a, c.batch - 1);
            if (!is_held_against(c, labelled, i, j)) continue;
            const float s = q[a].dot(z) * sharpness;
            const float above = fmaxf(most[a], s);
            sum[a] = sum[a] * expf(most[a] - above) + expf(s - above);
            most[a] = above;
            if (is_positive(c, labelled, i, own[a], j)) positive[a] += s, count[a] += 1.0f;
        }
    }
#pragma unroll
    for (int a = 0; a < ANCHORS; ++a)
        if (lane == 0) {
            merged[a][0][warp] = most[a], merged[a][1][warp] = sum[a];
            merged[a][2][warp] = positive[a], merged[a][3][warp] = count[a];
        }
    __syncthreads();
    if (threadIdx.x >= ANCHORS || first + threadIdx.x >= c.batch) return;
    const float(&mine)[4][WARPS] = merged[threadIdx.x];
    float above = -infinity(), total = 0.0f, positives = 0.0f, number = 0.0f;
    for (int w = 0; w < WARPS; ++w) above = fmaxf(above, mine[0][w]);
    for (int w = 0; w < WARPS; ++w) {
        // A warp without a row has -infinity, and adds nothing.
        total += mine[1][w] * expf(mine[0][w] - above);
        positives += mine[2][w], number += mine[3][w];
    }
    const int i = first + threadIdx.x;
    const float log_sum = above + logf(total);
    figures[i * FIGURES] = log_sum;
    figures[i * FIGURES + 1] = 1.0f / number;
    loss_rows[i] += weight * (log_sum - positives / number);
}

// gradient [B,D] of q: of weight times the mean of L_i. An anchor's q is also a row z_j of other anchors:
//   dq_i = weight / (B T) sum_j (g_ij + [j < B] g_ji) z_j,  g_ij = exp(s_ij - ln sum) - [j in P(i)] / |P(i)|
// Launch and cost: as contrast_figures, and as many FLOPs again; the sums of the warps are added in order.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    contrast_gradient(Contrasted c, float weight, const float* figures, float* gradient) {
    __shared__ float parts[WARPS][32 * LANE_COLUMNS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * ANCHORS;
    const bool labelled = c.control[UPDATE] != 0.0f;
    const float sharpness = 1.0f / c.temperature;
    LaneRow q[ANCHORS], sums[ANCHORS];
    float own[ANCHORS];
#pragma unroll
    for (int a = 0; a < ANCHORS; ++a) {
        const int i = min(first + a, c.batch - 1);
        q[a].load(c.embeddings + (size_t)i * c.columns, c.columns);
        own[a] = c.labels[i];
#pragma unroll
        for (int column = 0; column < LANE_COLUMNS; ++column) sums[a].values[column] = 0.0f;
    }
    for (int j = warp; j < 2 * c.batch + c.queue_rows; j += WARPS) {
        LaneRow z;
        z.load(row_of(c, j), c.columns);
#pragma unroll
        for (int a = 0; a < ANCHORS; ++a) {
            const int i = min(first + a, c.batch - 1);
            if (!is_held_against(c, labelled, i, j)) continue;
            const float s = q[a].dot(z) * sharpness;
            const bool positive = is_positive(c, labelled, i, own[a], j);
            float g = expf(s - figures[i * FIGURES]) - (positive ? figures[i * FIGURES + 1] : 0.0f);
            if (j < c.batch)
                g += expf(s - figures[j * FIGURES]) - (positive ? figures[j * FIGURES + 1] : 0.0f);
            sums[a].add(g, z);
        }
    }
    const float scale = weight / ((float)c.batch * c.temperature);
#pragma unroll
    for (int a = 0; a < ANCHORS; ++a) {
#pragma unroll
        for (int column = 0; column < LANE_COLUMNS; ++column)
            parts[warp][lane + 32 * column] = sums[a].values[column];
        __syncthreads();
        if (first + a < c.batch && threadIdx.x < c.columns) {
            float total = 0.0f;
            for (int w = 0; w < WARPS; ++w) total += parts[w][threadIdx.x];
            gradient[(size_t)(first + a) * c.columns + threadIdx.x] = scale * total;
        }
        __syncthreads();
    }
}
