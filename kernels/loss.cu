// The pair loss of CORR with its gradient, the renewal of confidence rows, and the counters of both.
//
// Letters as in RECORDS (Hong et al., ICLR 2023) and CORR: B samples of K classes, views v = w (weak), s (strong), logits z^v,
// p^v = softmax(z^v), confidence row c, candidate row s, log-prior ln(pi + eps), eps = 1e-9.
//
//   loss of a sample  sum over v of { sum_{k: c_k=0} -ln(|1-p_k|+eps)  +  sum_{k: c_k!=0} c_k ln c_k - c_k ln p_k }
//   gradient          dz_k = (p_k (g_k - sum_j p_j g_j) + p_k C - c_k) / B,
//                     g_k = [c_k=0] sign(1-p_k) / (|1-p_k|+eps), 0 at p_k = 1;  C = sum c
//   renewal, CORR     r = sqrt([c>0] p^w p^s);                          c' = r / (sum r + eps)
//   renewal, debiased q^v = softmax(z^v - ln(pi+eps)); r = s q^w q^s;  r /= sum r + eps;  r = sqrt r;  c' = r / (sum r + eps)
#include "control.cuh"
#include "loss_row.cuh"

// What a launch of the pair kernels reads and writes. Every row of `confidence` that `index` names belongs to one sample.
struct Pair {
    const float* logits;      // z f32 [2B,K], weak rows first
    const int* index;         // i32 [B], distinct
    float* confidence;        // c f32 [N,K]: rows `index` are read, and overwritten by a renewal
    float* d_logits;          // dz f32 [2B,K]; null: no loss is asked for
    float* loss_rows;         // f32 [B]
    const float* control;     // f32, see primitive::control; null: no renewal is asked for
    const u8* candidates;     // s u8 [N,K], read by the debiased renewal
    const float* log_prior;   // ln(pi+eps) f32 [K], read by the debiased renewal; may be null
    int batch, classes;       // B, K
    int debiased;             // which renewal
};

// The same as a kernel's parameters.
#define PAIR_PARAMETERS                                                                                               \
    const float *logits, const int *index, float *confidence, float *d_logits, float *loss_rows, const float *control, \
        const u8 *candidates, const float *log_prior, int batch, int classes, int debiased
#define PAIR_ARGUMENTS \
    { logits, index, confidence, d_logits, loss_rows, control, candidates, log_prior, batch, classes, debiased }

// Softmax of the values of a warp's registers; lanes beyond the row hold -inf and get 0.
template <int N>
__device__ __forceinline__ void warp_softmax(const float (&z)[N], float (&p)[N], float& most, float& log_sum) {
    most = -infinity();
#pragma unroll
    for (int i = 0; i < N; ++i) most = fmaxf(most, z[i]);
    most = warp_max(most);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        p[i] = expf(z[i] - most);
        sum += p[i];
    }
    sum = warp_sum(sum);
    log_sum = logf(sum);
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] /= sum;
}

// Loss, renewal or both for rows of at most 32 N classes.
//
// One warp a sample, class k in register k/32 of lane k%32; blocks of two warps, ceil(B/2) of them; no shared memory.
// Doing both at once reads the logits and the row once: 12 BK + 4 BK (+ BK candidates) bytes in, 8 BK + 4 BK + 4 B out, which is
// the least possible. About 120 BK operations, 8 logarithms, exponentials, divisions and roots among them a class: a batch of
// 256 fills a third of a large GPU's warp slots once, so the time is that of one row's chain of loads and shuffles.
// The loss of a row is summed in f32: at most N + 5 additions lie on the way of a term, an error below (N + 5) 2^-24 of the
// sum of the terms' sizes, about what storing the row as f32 rounds away, without the slow f64 units.
// The old row is in registers before the new one is stored, so the loss reads the old. Sums are over lanes in a fixed order.
template <int N> __device__ __forceinline__ void pair_rows(const Pair& pair) {
    const int lane = threadIdx.x % 32, batch = pair.batch, classes = pair.classes;
    const int b = blockIdx.x * 2 + threadIdx.x / 32;
    if (b >= batch) return;
    const long long sample = pair.index[b];
    float* row = pair.confidence + sample * classes;
    const bool loss_wanted = pair.d_logits != nullptr;
    const bool renew = pair.control != nullptr && pair.control[UPDATE] != 0.0f;
    const bool debiased = pair.debiased != 0;

    float z[2][N], c[N], r[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int k = lane + 32 * i;
        const bool inside = k < classes;
        c[i] = inside ? row[k] : 0.0f;
#pragma unroll
        for (int view = 0; view < 2; ++view)
            z[view][i] = inside ? pair.logits[(view * batch + b) * (long long)classes + k] : -infinity();
        r[i] = 1.0f;
    }

    float loss = 0.0f, total = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) total += c[i];
    total = warp_sum(total);
#pragma unroll
    for (int view = 0; view < 2; ++view) {
        float p[N], most, log_sum;
        if (loss_wanted || !debiased) {
            warp_softmax<N>(z[view], p, most, log_sum);
            if (renew && !debiased) {
#pragma unroll
                for (int i = 0; i < N; ++i) r[i] *= p[i];
            }
        }
        if (loss_wanted) {
            float g[N], weighted = 0.0f;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                g[i] = 0.0f;
                if (lane + 32 * i < classes) {
                    const Part part = class_part<CONSISTENCY>(c[i], false, 0.0f, p[i], (z[view][i] - most) - log_sum);
                    loss += part.loss;
                    g[i] = part.g;
                    weighted += p[i] * part.g;
                }
            }
            weighted = warp_sum(weighted);
            const float scale = 1.0f / (float)batch;
            float* d = pair.d_logits + (view * batch + b) * (long long)classes;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const int k = lane + 32 * i;
                if (k < classes) d[k] = scale * (p[i] * (g[i] - weighted) + p[i] * total - c[i]);
            }
        }
        if (renew && debiased) {
            if (pair.log_prior != nullptr) {
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const int k = lane + 32 * i;
                    if (k < classes) z[view][i] -= pair.log_prior[k];
                }
            }
            warp_softmax<N>(z[view], p, most, log_sum);
#pragma unroll
            for (int i = 0; i < N; ++i) r[i] *= p[i];
        }
    }
    if (loss_wanted) {
        loss = warp_sum(loss);
        if (lane == 0) pair.loss_rows[b] = loss;
    }
    if (!renew) return;

    float sum = 0.0f;
    if (debiased) {
        const u8* candidates = pair.candidates + sample * classes;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int k = lane + 32 * i;
            const bool candidate = k < classes && candidates[k] != 0;
            r[i] = candidate ? r[i] : 0.0f;
            sum += r[i];
        }
        sum = warp_sum(sum) + EPSILON;
#pragma unroll
        for (int i = 0; i < N; ++i) r[i] /= sum;
        sum = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        r[i] = debiased || c[i] > 0.0f ? sqrtf(r[i]) : 0.0f;
        sum += r[i];
    }
    sum = warp_sum(sum) + EPSILON;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int k = lane + 32 * i;
        if (k < classes) row[k] = r[i] / sum;
    }
}

extern "C" __global__ void __launch_bounds__(64) pair_32(PAIR_PARAMETERS) { pair_rows<1>(PAIR_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(64) pair_64(PAIR_PARAMETERS) { pair_rows<2>(PAIR_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(64) pair_128(PAIR_PARAMETERS) { pair_rows<4>(PAIR_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(64) pair_256(PAIR_PARAMETERS) { pair_rows<8>(PAIR_ARGUMENTS); }

// The same for any number of classes: one block of 256 threads a sample, thread t takes classes t, t+256, ...
//
// Nothing is kept between the passes: a row of 10,000 classes stays in the L1 cache and its exponentials are computed anew,
// about five times a view. 32 bytes of shared memory. A term of the loss passes K/256 + 12 additions.
// Each thread reads and overwrites its own classes of the row only, after every sum over the old row is made.
extern "C" __global__ void __launch_bounds__(256, 3) pair_wide(PAIR_PARAMETERS) {
    __shared__ float scratch[ROW_WARPS];
    const BlockTeam team = {scratch};
    const int b = blockIdx.x, step = team.threads();
    const long long sample = index[b];
    float* row = confidence + sample * classes;
    const float* weak = logits + b * (long long)classes;
    const long long views = batch * (long long)classes;
    const float* strong = weak + views;
    const bool renew = control != nullptr && control[UPDATE] != 0.0f;

    if (d_logits != nullptr) {
        float* d = d_logits + b * (long long)classes;
        float loss = 0.0f;
#pragma unroll 1
        for (int view = 0; view < 2; ++view)
            loss += row_loss<CONSISTENCY>(team, classes, weak + view * views, row, nullptr, 0.0f, 1.0f / (float)batch,
                                          d + view * views);
        if (threadIdx.x == 0) loss_rows[b] = loss;
    }
    if (!renew) return;

    const float* shift = debiased ? log_prior : nullptr;
    const u8* candidate = candidates + sample * classes;
    const auto shifted = [&](const float* z, int k) { return shift == nullptr ? z[k] : z[k] - shift[k]; };
    const Normaliser w = normaliser(team, classes, [&](int k) { return shifted(weak, k); });
    const Normaliser s = normaliser(team, classes, [&](int k) { return shifted(strong, k); });
    const auto product = [&](int k) { return w.p(shifted(weak, k)) * s.p(shifted(strong, k)); };
    float total = 0.0f, sum = 0.0f;
    if (debiased) {
        for (int k = threadIdx.x; k < classes; k += step) total += candidate[k] != 0 ? product(k) : 0.0f;
        total = team.sum(total) + EPSILON;
    }
    const auto renewed = [&](int k) {
        if (debiased) return sqrtf((candidate[k] != 0 ? product(k) : 0.0f) / total);
        return row[k] > 0.0f ? sqrtf(product(k)) : 0.0f;
    };
    for (int k = threadIdx.x; k < classes; k += step) sum += renewed(k);
    sum = team.sum(sum) + EPSILON;
    for (int k = threadIdx.x; k < classes; k += step) row[k] = renewed(k) / sum;
}

#define STATISTICS_WARPS 32

// Counters of a step: counters[0] = mean of loss_rows; counters[1] += that; counters[2] += rows whose largest weak logit is the
// true class. `logits` f32 [2B,K], weak rows first, `labels` i32 [N], `index` i32 [B], `loss_rows` f32 [B], `counters` f32 [3].
//
// One block of 32 warps: a warp takes rows w, w+32, ... The losses are added in f64, as the CPU does, by one warp alone: a small GPU
// has few f64 units, and the other warps are at their rows meanwhile. The order is fixed. Reads 4BK + 8B bytes. 128 bytes of shared
// memory.
extern "C" __global__ void __launch_bounds__(1024) step_statistics(const float* logits, const int* labels, const int* index,
                                                                  const float* loss_rows, float* counters, int batch,
                                                                  int classes) {
    __shared__ int counts[STATISTICS_WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double sum = 0.0;
    if (warp == 0) {
        for (int b = lane; b < batch; b += 32) sum += (double)loss_rows[b];
        sum = warp_sum(sum);
    }
    int correct = 0;
    for (int b = warp; b < batch; b += STATISTICS_WARPS) {
        const Largest best = warp_first_largest(logits + b * (long long)classes, classes, lane);
        correct += lane == 0 && best.at == labels[index[b]] ? 1 : 0;
    }
    correct = block_sum<STATISTICS_WARPS>(correct, counts);
    if (threadIdx.x == 0) {
        const float loss = (float)(sum / (double)batch);
        counters[0] = loss;
        counters[1] += loss;
        counters[2] += (float)correct;
    }
}

// Whether all of `values` f32 [len] are finite: counters[slot] = n >= 0 becomes n + 1 if they are, -(n + 1) if not; a negative one
// stays. So the first step of an epoch that went wrong is known without a word to the host.
//
// One block of 32 warps reads 4 len bytes once, some ten thousand values: bound by latency. 128 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(1024) count_finite_steps(const float* values, float* counters, int len, int slot) {
    __shared__ int counts[STATISTICS_WARPS];
    int spoiled = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < len; i += 1024)
        spoiled |= (__float_as_uint(values[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
    spoiled = block_sum<STATISTICS_WARPS>(spoiled, counts);
    if (threadIdx.x != 0) return;
    const float steps = counters[slot];
    if (steps >= 0.0f) counters[slot] = spoiled == 0 ? steps + 1.0f : -(steps + 1.0f);
}

// Sums of a slice of the rows: sums f64 [blocks] of the rows' first maxima, hits i32 [blocks] of rows whose first maximum is the
// true class. `confidence` f32 [N,K], `labels` i32 [N]. `candidates` u8 [N,K] may be null; where it is not, maxima are among them.
//
// Blocks of 8 warps; a warp takes 32 consecutive rows at a time, groups w, w + 8 * blocks, ...; lane r keeps the figures of row r,
// so that the f64 units, 1/64 as fast as the f32 ones on small GPUs, add once in 32 rows. Reads 4NK + 4N bytes once: bound by
// memory. Groups belong to warps by number, so the order of all sums is fixed. 96 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(256) confidence_statistics(const float* confidence, const u8* candidates,
                                                                       const int* labels, double* sums, int* hits, int rows,
                                                                       int classes) {
    __shared__ double scratch[8];
    __shared__ int counts[8];
    const int lane = threadIdx.x % 32, warp = blockIdx.x * 8 + threadIdx.x / 32;
    double sum = 0.0;
    int hit = 0;
    for (int first = warp * 32; first < rows; first += gridDim.x * 8 * 32) {
        Largest mine = {0.0f, -1};
        const int count = min(32, rows - first);
#pragma unroll 2
        for (int r = 0; r < count; ++r) {
            const long long at = (first + r) * (long long)classes;
            const Largest best = candidates == nullptr
                                     ? warp_first_largest(confidence + at, classes, lane)
                                     : warp_first_largest_of(confidence + at, candidates + at, classes, lane);
            if (lane == r) mine = best;
        }
        sum += (double)mine.value;
        hit += lane < count && mine.at == labels[first + lane] ? 1 : 0;
    }
    sum = block_sum<8>(sum, scratch);
    hit = block_sum<8>(hit, counts);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        hits[blockIdx.x] = hit;
    }
}

// out f32 [2] = [sum of sums; sum of hits] / N, by one warp; partial sums are added in a fixed order.
extern "C" __global__ void __launch_bounds__(32) confidence_statistics_total(const double* sums, const int* hits, float* out,
                                                                            int blocks, int rows) {
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
