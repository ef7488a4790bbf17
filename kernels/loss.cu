// The pair loss of CORR with its gradient, the disambiguation of confidence rows, and the statistics of both.
//
// Letters as in RECORDS (Hong et al., ICLR 2023) and CORR: B samples of K classes, views v = w (weak), s
// (strong), logits z^v, p^v = softmax(z^v), confidence row c, candidate row s, log-prior ln(pi + eps), eps =
// EPSILON.
//
//   loss of a sample  sum over v of { sum_{c_k=0} -ln(|1-p_k|+eps) + sum_{c_k!=0} c_k (ln c_k - ln p_k) }
//   gradient          dz_k = (p_k (g_k - sum_j p_j g_j) + p_k C - c_k) / B,
//                     g_k = [c_k=0] sign(1-p_k) / (|1-p_k|+eps), 0 at p_k = 1;  C = sum c
//   CORR              r = sqrt([c>0] p^w p^s);                          c' = r / (sum r + eps)
//   CORR, debiased    q^v = softmax(z^v - ln(pi+eps)); r = s q^w q^s; r /= sum r + eps; r = sqrt r;
//                     c' = r / (sum r + eps)
#include "control.cuh"
#include "counter.cuh"
#include "loss_row.cuh"

// What a launch of the pair kernels reads and writes. Every row of `confidence` that `index` names belongs to
// one sample.
struct Pair {
    int batch, classes;  // B, K
    int debiased;  // which disambiguation
    const float* logits;  // z f32 [2B,K], weak rows first
    const int* index;  // i32 [B], distinct
    const float* control;  // f32 [CONTROL_LEN]; null: no disambiguation
    const u8* candidates;  // s u8 [N,K], read by the debiased disambiguation
    const float* log_prior;  // ln(pi+eps) f32 [K], read by the debiased disambiguation; may be null
    float* confidence;  // c f32 [N,K]: rows `index` are read, and overwritten by a disambiguation
    float* d_logits;  // dz f32 [2B,K]; null: no loss
    float* loss_rows;  // f32 [B]
};

__device__ __forceinline__ bool updates(const Pair& pair) {
    return pair.control != nullptr && pair.control[UPDATE] != 0.0f;
}

// Warps per block of the kernels that process one row per warp.
constexpr int PAIR_WARPS = 2;

// The classes of a row in a warp's registers: class k is in register k / 32 of lane k % 32. Calls apply(i, k)
// for each existing class.
template <int N, typename Do> __device__ __forceinline__ void for_classes(int classes, Do apply) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int k = threadIdx.x % 32 + 32 * i;
        if (k < classes) apply(i, k);
    }
}

// Sum over a warp's registers.
template <int N> __device__ __forceinline__ float warp_total(const float (&values)[N]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) sum += values[i];
    return warp_sum(sum);
}

// Softmax of the values of a warp's registers; lanes beyond the row hold -inf and get 0.
template <int N>
__device__ __forceinline__ void warp_softmax(const float (&z)[N], float (&p)[N], float& most,
                                             float& log_sum) {
    most = -infinity();
#pragma unroll
    for (int i = 0; i < N; ++i) most = fmaxf(most, z[i]);
    most = warp_max(most);
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] = expf(z[i] - most);
    const float sum = warp_total(p);
    log_sum = logf(sum);
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] /= sum;
}

// This lane's part of the loss of a view, whose softmax is p; d receives the gradient.
template <int N>
__device__ __forceinline__ float view_loss(int classes, float scale, const float (&z)[N], const float (&p)[N],
                                           float most, float log_sum, const float (&c)[N], float total,
                                           float loss, float* d) {
    float g[N], weighted = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = 0.0f;
    for_classes<N>(classes, [&](int i, int) {
        const Part part = class_part<CONSISTENCY>(c[i], false, 0.0f, p[i], (z[i] - most) - log_sum);
        loss += part.loss;
        g[i] = part.g;
        weighted += p[i] * part.g;
    });
    weighted = warp_sum(weighted);
    for_classes<N>(classes,
                   [&](int i, int k) { d[k] = scale * (p[i] * (g[i] - weighted) + p[i] * total - c[i]); });
    return loss;
}

// Stores the new confidence row from r = p^w p^s (debiased: q^w q^s) and the old row c.
template <int N>
__device__ __forceinline__ void store_confidence(const Pair& pair, size_t sample, float (&r)[N],
                                                 const float (&c)[N]) {
    const int classes = pair.classes;
    if (pair.debiased) {
        const u8* candidates = pair.candidates + sample * classes;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int k = threadIdx.x % 32 + 32 * i;
            r[i] = k < classes && candidates[k] != 0 ? r[i] : 0.0f;
        }
        const float sum = warp_total(r) + EPSILON;
#pragma unroll
        for (int i = 0; i < N; ++i) r[i] /= sum;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) r[i] = pair.debiased || c[i] > 0.0f ? sqrtf(r[i]) : 0.0f;
    const float sum = warp_total(r) + EPSILON;
    float* row = pair.confidence + sample * classes;
    for_classes<N>(classes, [&](int i, int k) { row[k] = r[i] / sum; });
}

// Loss, disambiguation or both for rows of at most 32 N classes.
//
// Launch: one warp per sample; ceil(B / PAIR_WARPS) blocks of PAIR_WARPS warps; no shared memory.
// Cost: doing both at once reads the logits and the row once: 12 BK + 4 BK (+ BK candidates) bytes in, 8 BK +
// 4 BK + 4 B out, which is the least possible. About 120 BK operations, per class, 8 of them logarithms,
// exponentials, divisions and roots: a batch of 256 fills a third of a large GPU's warp slots once, so the
// time is that of one row's chain of loads and shuffles.
// Accuracy: the loss of a row is summed in f32; each term passes at most N + 5 additions, so the error is
// below (N + 5) 2^-24 of the sum of the terms' magnitudes, about the error of storing the row as f32, without
// the slow f64 units.
// Deterministic: sums are over lanes in a fixed order. The old row is in registers before the new one is
// stored, so the loss reads the old one.
template <int N> __device__ __forceinline__ void pair_rows(const Pair& pair) {
    const int batch = pair.batch, classes = pair.classes;
    const int b = blockIdx.x * PAIR_WARPS + threadIdx.x / 32;
    if (b >= batch) return;
    const size_t sample = pair.index[b];
    const bool loss_wanted = pair.d_logits != nullptr, update = updates(pair), debiased = pair.debiased != 0;

    float z[2][N], c[N], r[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int k = threadIdx.x % 32 + 32 * i;
        const bool inside = k < classes;
        c[i] = inside ? pair.confidence[sample * classes + k] : 0.0f;
#pragma unroll
        for (int view = 0; view < 2; ++view)
            z[view][i] = inside ? pair.logits[(view * batch + b) * (size_t)classes + k] : -infinity();
        r[i] = 1.0f;
    }

    const float total = warp_total(c);
    float loss = 0.0f;
#pragma unroll
    for (int view = 0; view < 2; ++view) {
        float p[N], most, log_sum;
        if (loss_wanted || !debiased) warp_softmax(z[view], p, most, log_sum);
        if (loss_wanted)
            loss = view_loss(classes, 1.0f / (float)batch, z[view], p, most, log_sum, c, total, loss,
                             pair.d_logits + (view * batch + b) * (size_t)classes);
        if (!update) continue;
        if (debiased) {
            if (pair.log_prior != nullptr)
                for_classes<N>(classes, [&](int i, int k) { z[view][i] -= pair.log_prior[k]; });
            warp_softmax(z[view], p, most, log_sum);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) r[i] *= p[i];
    }
    if (loss_wanted) {
        loss = warp_sum(loss);
        if (threadIdx.x % 32 == 0) pair.loss_rows[b] = loss;
    }
    if (update) store_confidence(pair, sample, r, c);
}

#define PAIR(NAME, REGISTERS)                                                       \
    extern "C" __global__ void __launch_bounds__(32 * PAIR_WARPS) NAME(Pair pair) { \
        pair_rows<REGISTERS>(pair);                                                 \
    }

PAIR(pair_32, 1)
PAIR(pair_64, 2)
PAIR(pair_128, 4)
PAIR(pair_256, 8)

// The loss of a sample, computed by a block.
__device__ __forceinline__ void wide_loss(const BlockTeam& team, const Pair& pair, const float* row) {
    const int b = blockIdx.x, classes = pair.classes;
    const size_t view_len = pair.batch * (size_t)classes, at = b * (size_t)classes;
    float loss = 0.0f;
#pragma unroll 1
    for (int view = 0; view < 2; ++view)
        loss += row_loss<CONSISTENCY>(team, classes, pair.logits + at + view * view_len, row, nullptr, 0.0f,
                                      1.0f / (float)pair.batch, pair.d_logits + at + view * view_len);
    if (threadIdx.x == 0) pair.loss_rows[b] = loss;
}

// The disambiguation of a confidence row, computed by a block.
__device__ __forceinline__ void wide_confidence(const BlockTeam& team, const Pair& pair, size_t sample,
                                                float* row) {
    const int classes = pair.classes, step = team.threads();
    const bool debiased = pair.debiased != 0;
    const float* weak = pair.logits + blockIdx.x * (size_t)classes;
    const float* strong = weak + pair.batch * (size_t)classes;
    const float* shift = debiased ? pair.log_prior : nullptr;
    const u8* candidate = pair.candidates + sample * classes;
    const auto shifted = [&](const float* z, int k) { return shift == nullptr ? z[k] : z[k] - shift[k]; };
    const Normaliser w = normaliser(team, classes, [&](int k) { return shifted(weak, k); });
    const Normaliser s = normaliser(team, classes, [&](int k) { return shifted(strong, k); });
    const auto product = [&](int k) { return w.p(shifted(weak, k)) * s.p(shifted(strong, k)); };
    float total = 0.0f, sum = 0.0f;
    if (debiased) {
        for (int k = threadIdx.x; k < classes; k += step) total += candidate[k] != 0 ? product(k) : 0.0f;
        total = team.sum(total) + EPSILON;
    }
    const auto root = [&](int k) {
        if (debiased) return sqrtf((candidate[k] != 0 ? product(k) : 0.0f) / total);
        return row[k] > 0.0f ? sqrtf(product(k)) : 0.0f;
    };
    for (int k = threadIdx.x; k < classes; k += step) sum += root(k);
    sum = team.sum(sum) + EPSILON;
    for (int k = threadIdx.x; k < classes; k += step) row[k] = root(k) / sum;
}

// Threads per block of pair_wide.
constexpr int WIDE_THREADS = 32 * ROW_WARPS;

// Loss, disambiguation or both for any number of classes.
//
// Launch: one block per sample; thread t takes classes t, t + WIDE_THREADS, ...; 32 bytes of shared memory.
// Cost: nothing is kept between the passes: a row of 10,000 classes stays in the L1 cache, and its
// exponentials are recomputed, about five times per view. A term of the loss passes K/256 + 12 additions.
// Deterministic: each thread reads and overwrites only its own classes of the row, after every sum over the
// old row is complete.

extern "C" __global__ void __launch_bounds__(WIDE_THREADS, 3) pair_wide(Pair pair) {
    __shared__ float scratch[ROW_WARPS];
    const BlockTeam team = {scratch};
    const size_t sample = pair.index[blockIdx.x];
    float* row = pair.confidence + sample * pair.classes;
    if (pair.d_logits != nullptr) wide_loss(team, pair, row);
    if (updates(pair)) wide_confidence(team, pair, sample, row);
}

// Threads of the single block that sums up a step.
constexpr int STEP_THREADS = 1024;
constexpr int STEP_WARPS = STEP_THREADS / 32;

// Counters of a step: counters[0] = mean of loss_rows; counters[1] += that; counters[2] += rows whose argmax
// of the weak logits is the true class. `logits` f32 [2B,K], weak rows first, `labels` i32 [N], `index` i32
// [B], `loss_rows` f32 [B], `counters` f32 [3].
//
// One block of 32 warps: a warp takes rows w, w+32, ... One warp alone adds the losses in f64, as the CPU
// does: a small GPU has few f64 units, and the other warps work on their rows meanwhile. The order is fixed.
// Reads 4BK + 8B bytes. 128 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(STEP_THREADS)
    step_statistics(int batch, int classes, const float* logits, const int* labels, const int* index,
                    const float* loss_rows, float* counters) {
    __shared__ int counts[STEP_WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double sum = 0.0;
    if (warp == 0) {
        for (int b = lane; b < batch; b += 32) sum += (double)loss_rows[b];
        sum = warp_sum(sum);
    }
    int correct = 0;
    for (int b = warp; b < batch; b += STEP_WARPS) {
        const Argmax best = warp_argmax(logits + b * (size_t)classes, classes, lane);
        correct += lane == 0 && best.at == labels[index[b]] ? 1 : 0;
    }
    correct = block_sum<STEP_WARPS>(correct, counts);
    if (threadIdx.x == 0) {
        const float loss = (float)(sum / (double)batch);
        counters[LAST_LOSS] = loss;
        counters[LOSS] += loss;
        counters[CORRECT] += (float)correct;
    }
}

// Whether all of `values` f32 [len] are finite: counters[slot] = n >= 0 becomes n + 1 if they are, -(n + 1)
// if not; a negative one stays. This identifies the first bad step of an epoch without involving the host.
//
// One block of 32 warps reads 4 len bytes once, some ten thousand values: bound by latency. 128 bytes of
// shared memory.
extern "C" __global__ void __launch_bounds__(STEP_THREADS)
    count_finite_steps(int len, int slot, const float* values, float* counters) {
    __shared__ int counts[STEP_WARPS];
    int spoiled = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < len; i += STEP_THREADS)
        spoiled |= (__float_as_uint(values[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
    spoiled = block_sum<STEP_WARPS>(spoiled, counts);
    if (threadIdx.x != 0) return;
    const float steps = counters[slot];
    if (steps >= 0.0f) counters[slot] = spoiled == 0 ? steps + 1.0f : -(steps + 1.0f);
}

// counts[slot] += how many of `values` f32 [len] are infinite or NaN: after an epoch, over the network's
// parameters, the optimiser's state, the running statistics and the confidence rows.
//
// Blocks of 32 warps, at most two for each multiprocessor, which go over the values together. Reads 4 len
// bytes once: bound by memory. Sums of integers have no order, so the atomic addition is deterministic; a
// block that found nothing, which is the rule, adds nothing. 128 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(STEP_THREADS)
    count_not_finite(int len, int slot, const float* values, int* counts) {
    __shared__ int found[STEP_WARPS];
    int mine = 0;
#pragma unroll 4
    for (size_t i = blockIdx.x * STEP_THREADS + threadIdx.x; i < len; i += gridDim.x * STEP_THREADS)
        mine += (__float_as_uint(values[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
    const int all = block_sum<STEP_WARPS>(mine, found);
    if (threadIdx.x == 0 && all > 0) atomicAdd(counts + slot, all);
}

// Warps per block of confidence_statistics, each of which takes 32 rows at a time.
constexpr int CONFIDENCE_WARPS = 8;

// Sums over slices of the rows: sums f64 [blocks] of the rows' maxima, hits i32 [blocks] of rows whose argmax
// is the true class. `confidence` f32 [N,K], `labels` i32 [N]. `candidates` u8 [N,K] may be null; otherwise
// the maxima are over candidates only.
//
// Blocks of 8 warps; a warp takes 32 consecutive rows at a time, groups w, w + 8 * blocks, ...; lane r keeps
// the result of row r, so that the f64 units, 1/64 as fast as the f32 units on small GPUs, add once per 32
// rows. Reads 4NK + 4N bytes once: bound by memory. Groups are assigned to warps by number, so the order of
// all sums is fixed. 96 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(32 * CONFIDENCE_WARPS)
    confidence_statistics(int rows, int classes, const float* confidence, const u8* candidates,
                          const int* labels, double* sums, int* hits) {
    __shared__ double scratch[CONFIDENCE_WARPS];
    __shared__ int counts[CONFIDENCE_WARPS];
    const int lane = threadIdx.x % 32, warp = blockIdx.x * CONFIDENCE_WARPS + threadIdx.x / 32;
    double sum = 0.0;
    int hit = 0;
    for (int first = warp * 32; first < rows; first += gridDim.x * CONFIDENCE_WARPS * 32) {
        Argmax mine = {0.0f, -1};
        const int count = min(32, rows - first);
#pragma unroll 2
        for (int r = 0; r < count; ++r) {
            const size_t at = (first + r) * (size_t)classes;
            const Argmax best = candidates == nullptr
                                    ? warp_argmax(confidence + at, classes, lane)
                                    : warp_argmax_among(confidence + at, candidates + at, classes, lane);
            if (lane == r) mine = best;
        }
        sum += (double)mine.value;
        hit += lane < count && mine.at == labels[first + lane] ? 1 : 0;
    }
    sum = block_sum<CONFIDENCE_WARPS>(sum, scratch);
    hit = block_sum<CONFIDENCE_WARPS>(hit, counts);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        hits[blockIdx.x] = hit;
    }
}

// out f32 [2] = [sum of sums; sum of hits] / N, by one warp; partial sums are added in a fixed order.
extern "C" __global__ void __launch_bounds__(32)
    confidence_statistics_total(int blocks, int rows, const double* sums, const int* hits, float* out) {
    double sum = 0.0;
    int hit = 0;
    for (int i = threadIdx.x; i < blocks; i += 32) {
        sum += sums[i];
        hit += hits[i];
    }
    sum = warp_sum(sum);
    hit = warp_sum(hit);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum / (double)rows);
        out[1] = (float)((double)hit / (double)rows);
    }
}
