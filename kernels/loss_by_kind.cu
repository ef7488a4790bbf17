// Losses of one or two views by kind, disambiguation of confidence rows by rule from one view, and both for
// the same rows in one launch.
//
// The losses are those of loss_row.cuh and, for MSE and EXP, those below. A disambiguation takes p from the
// logits less the log-prior if there is one:
//   positive          PRODEN   c <- [c>0] p / sum
//   candidates        CC       c <- s p / sum                     SoLar as well
//   leveraged         LW       p / sum over s, and over the rest
//   activation value  CAVL     one-hot at the first candidate with the largest |z - 1| z
// The softmax over a subset of the classes is computed from log-probabilities over all classes, less the
// subset's largest: no sum underflows, and a NaN anywhere in the row stays visible.
//
// Tensors: in LossRows and ConfidenceRows below.
// Launch: grid B, a block per sample, of one warp for up to 128 classes, of eight warps for more than 896. 32
// bytes of shared memory.
// Cost: a launch reads the rows once from memory, 4 VK + 4 K (+ K candidates) per sample, and writes 4 VK (+
//   4 K), the least; passes after the first find them in the L1 cache. A loss costs about 60 operations per
//   class and view: 256 samples take a few microseconds of one chain of loads, exponentials and shuffles on
//   any GPU.
// Deterministic: sums run over threads in a fixed order.
// Source: PRODEN: Lv et al., "Progressive identification of true labels", ICML 2020; CC: Feng et al.,
//   "Provably consistent partial-label learning", NeurIPS 2020; SoLar: Wang et al., NeurIPS 2022; LW: Wen et
//   al., "Leveraged weighted loss", ICML 2021; CAVL: Zhang et al., ICLR 2022; MSE, EXP: Feng et al.,
//   "Learning with multiple complementary labels", ICML 2020.
#include "control.cuh"
#include "loss_row.cuh"

enum Rule { POSITIVE, CANDIDATES, LEVERAGED, ACTIVATION_VALUE };

// What a loss reads and writes.
struct LossRows {
    int classes, views, first;
    float beta;
    const float* logits;  // z f32 [R,K]: view v of sample b in row first + v B + b
    const int* index;  // i32 [B]: rows of target and candidates; null: row b
    const float* target;  // c f32 [N,K], or [B,K] without index
    const u8* candidates;  // s u8 [N,K], for the kinds that read it
    const float* control;  // null: the loss is written; otherwise multiplied by control[MIXUP] and added
    float* d_logits;  // dz f32 [R,K], the rows of logits
    float* loss_rows;  // f32 [B]
};

// A loss of loss_row.cuh; the structures below have the same interface.
template <LossKind KIND> struct Of {
    static __device__ __forceinline__ float row(const BlockTeam& team, int classes, const float* z,
                                                const float* c, const u8* s, float beta, float scale,
                                                float* d) {
        return row_loss<KIND>(team, classes, z, c, s, beta, scale, d);
    }
};

// MSE: 1 + P - 2 A + w (1 - A) with A = sum_{k in s} p_k, P = sum p^2, c candidates, w = 2 (c - 1) / (K - c);
// dz_k = 2 p_k (p_k - P) - (2 + w) p_k ([k in s] - A). 0 where all classes are candidates.
struct SquaredError {
    static __device__ __forceinline__ float row(const BlockTeam& team, int classes, const float* z,
                                                const float*, const u8* s, float, float scale, float* d) {
        const Normaliser n = normaliser(team, classes, [&](int k) { return z[k]; });
        float inside = 0.0f, outside = 0.0f, squares = 0.0f, candidates = 0.0f;
        for (int k = team.thread(); k < classes; k += team.threads()) {
            const float p = n.p(z[k]);
            squares += p * p;
            (s[k] != 0 ? inside : outside) += p;
            if (s[k] != 0) candidates += 1.0f;
        }
        inside = team.sum(inside), outside = team.sum(outside);
        squares = team.sum(squares), candidates = team.sum(candidates);
        const float others = (float)classes - candidates;
        // 0 for a finite row; a row that is not finite stays visible.
        const float factor = others == 0.0f ? 0.0f * inside : 1.0f;
        const float weight = others == 0.0f ? 0.0f : 2.0f * (candidates - 1.0f) / others;
        for (int k = team.thread(); k < classes; k += team.threads()) {
            const float p = n.p(z[k]), slope = s[k] != 0 ? -outside : inside;
            d[k] = factor * scale * p * (2.0f * (p - squares) + (2.0f + weight) * slope);
        }
        return factor * (1.0f + squares - 2.0f * inside + weight * outside);
    }
};

// EXP: e^(-A) with A = sum_{k in s} p_k;  dz_k = -e^(-A) p_k ([k in s] - A).
struct Exponential {
    static __device__ __forceinline__ float row(const BlockTeam& team, int classes, const float* z,
                                                const float*, const u8* s, float, float scale, float* d) {
        const Normaliser n = normaliser(team, classes, [&](int k) { return z[k]; });
        float inside = 0.0f, outside = 0.0f;
        for (int k = team.thread(); k < classes; k += team.threads())
            (s[k] != 0 ? inside : outside) += n.p(z[k]);
        inside = team.sum(inside), outside = team.sum(outside);
        const float loss = expf(-inside);
        for (int k = team.thread(); k < classes; k += team.threads())
            d[k] = scale * loss * n.p(z[k]) * (s[k] != 0 ? -outside : inside);
        return loss;
    }
};

template <typename Loss> __device__ __forceinline__ void loss(const LossRows& rows, const BlockTeam& team) {
    const int batch = gridDim.x, b = blockIdx.x, classes = rows.classes;
    const size_t sample = rows.index != nullptr ? rows.index[b] : b;
    const float weight = rows.control != nullptr ? rows.control[MIXUP] : 1.0f;
    const float scale = weight / (float)batch;
    float sum = 0.0f;
#pragma unroll 1
    for (int view = 0; view < rows.views; ++view) {
        const size_t at = (size_t)(rows.first + view * batch + b) * classes;
        float* d = rows.d_logits + at;
        if (weight == 0.0f) {
            // Not a product, because the logits may be anything.
            for (int k = team.thread(); k < classes; k += team.threads()) d[k] = 0.0f;
            continue;
        }
        sum += Loss::row(team, classes, rows.logits + at, rows.target + sample * classes,
                         rows.candidates + sample * classes, rows.beta, scale, d);
    }
    if (team.thread() != 0 || weight == 0.0f) return;
    rows.loss_rows[b] = rows.control != nullptr ? rows.loss_rows[b] + weight * sum : sum;
}

// What a disambiguation reads and writes.
struct ConfidenceRows {
    int classes;
    const float* logits;  // z f32 [B,K]
    const int* index;  // i32 [B], distinct: rows of candidates and confidence
    const float* log_prior;  // f32 [K]; may be null
    const u8* candidates;  // s u8 [N,K]
    const float* control;  // nothing is updated if control[UPDATE] is 0
    float* confidence;  // c f32 [N,K]
};

// row[k] = the softmax of log_p(k) over the classes that are inside(k); the others stay. inside(k) may read
// row[k].
template <typename LogP, typename Inside>
__device__ __forceinline__ void partial_softmax(const BlockTeam& team, int classes, float* row, LogP log_p,
                                                Inside inside) {
    const Normaliser n = normaliser(team, classes, log_p, inside);
    for (int k = team.thread(); k < classes; k += team.threads())
        if (inside(k)) row[k] = n.p(log_p(k));
}

// The first class with the largest value(k) among those inside(k), computed by one warp, in every lane; -1 if
// none is inside. A NaN is never larger, and nothing is larger than a NaN of the first class inside.
template <typename Value, typename Inside>
__device__ __forceinline__ int warp_argmax_inside(int classes, Value value, Inside inside) {
    const int lane = threadIdx.x % 32, none = 0x7fffffff;
    int first = none;
    for (int k = lane; k < classes && first == none; k += 32)
        if (inside(k)) first = k;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        first = min(first, __shfl_xor_sync(0xffffffffu, first, distance));
    if (first == none) return -1;
    Argmax best = {value(first), first};
    for (int k = lane; k < classes; k += 32)
        if (inside(k) && value(k) > best.value) best = {value(k), k};
    return warp_argmax(best).at;
}

template <Rule RULE>
__device__ __forceinline__ void disambiguate(const ConfidenceRows& rows, const BlockTeam& team) {
    if (rows.control[UPDATE] == 0.0f) return;
    const int b = blockIdx.x, classes = rows.classes, step = team.threads();
    const size_t sample = rows.index[b];
    const float* logits = rows.logits + b * (size_t)classes;
    const float* prior = rows.log_prior;
    const u8* candidates = rows.candidates + sample * classes;
    float* row = rows.confidence + sample * classes;
    const auto z = [&](int k) { return prior != nullptr ? logits[k] - prior[k] : logits[k]; };
    const auto candidate = [&](int k) { return candidates[k] != 0; };
    if (RULE == ACTIVATION_VALUE) {
        // Every warp searches on its own, so none waits for another.
        const auto value = [&](int k) { return fabsf(z(k) - 1.0f) * z(k); };
        const int best = warp_argmax_inside(classes, value, candidate);
        for (int k = team.thread(); k < classes; k += step) row[k] = k == best ? 1.0f : 0.0f;
        return;
    }
    const Normaliser n = normaliser(team, classes, z);
    const auto log_p = [&](int k) { return n.log_p(z(k)); };
    if (RULE == POSITIVE) partial_softmax(team, classes, row, log_p, [&](int k) { return row[k] > 0.0f; });
    if (RULE == CANDIDATES || RULE == LEVERAGED) partial_softmax(team, classes, row, log_p, candidate);
    if (RULE == LEVERAGED) partial_softmax(team, classes, row, log_p, [&](int k) { return !candidate(k); });
    if (RULE == CANDIDATES)
        for (int k = team.thread(); k < classes; k += step)
            if (!candidate(k)) row[k] = 0.0f;
}

// Blocks per multiprocessor: bounds registers to 64.
constexpr int BLOCKS = 4;

#define LOSS(NAME, OF)                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, BLOCKS) NAME(LossRows rows) { \
        __shared__ float scratch[ROW_WARPS];                                                   \
        loss<OF>(rows, {scratch});                                                             \
    }

LOSS(loss_consistency, Of<CONSISTENCY>)
LOSS(loss_cross_entropy, Of<CROSS_ENTROPY>)
LOSS(loss_leveraged_sigmoid, Of<LEVERAGED_SIGMOID>)
LOSS(loss_leveraged_cross_entropy, Of<LEVERAGED_CROSS_ENTROPY>)
LOSS(loss_candidate_sum, Of<CANDIDATE_SUM>)
LOSS(loss_exponential, Exponential)
LOSS(loss_squared_error, SquaredError)

#define DISAMBIGUATE(NAME, RULE)                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, BLOCKS) NAME(ConfidenceRows rows) { \
        __shared__ float scratch[ROW_WARPS];                                                         \
        disambiguate<RULE>(rows, {scratch});                                                         \
    }

DISAMBIGUATE(disambiguate_positive, POSITIVE)
DISAMBIGUATE(disambiguate_candidates, CANDIDATES)
DISAMBIGUATE(disambiguate_leveraged, LEVERAGED)
DISAMBIGUATE(disambiguate_activation_value, ACTIVATION_VALUE)

// The loss of one view against the old confidence rows, then their disambiguation: a thread reads and
// overwrites its own classes only, so the loss has read them all before the first is written.
template <LossKind KIND, Rule RULE>
__device__ __forceinline__ void loss_and_disambiguate(const ConfidenceRows& rows, float beta, float* d_logits,
                                                      float* loss_rows, const BlockTeam& team) {
    loss<Of<KIND>>({rows.classes, 1, 0, beta, rows.logits, rows.index, rows.confidence, rows.candidates,
                    nullptr, d_logits, loss_rows},
                   team);
    disambiguate<RULE>(rows, team);
}

#define LOSS_AND_DISAMBIGUATE(NAME, KIND, RULE)                                        \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, BLOCKS)               \
        NAME(ConfidenceRows rows, float beta, float* d_logits, float* loss_rows) {     \
        __shared__ float scratch[ROW_WARPS];                                           \
        loss_and_disambiguate<KIND, RULE>(rows, beta, d_logits, loss_rows, {scratch}); \
    }

LOSS_AND_DISAMBIGUATE(cross_entropy_disambiguate_positive, CROSS_ENTROPY, POSITIVE)
LOSS_AND_DISAMBIGUATE(cross_entropy_disambiguate_activation_value, CROSS_ENTROPY, ACTIVATION_VALUE)
LOSS_AND_DISAMBIGUATE(leveraged_sigmoid_disambiguate, LEVERAGED_SIGMOID, LEVERAGED)
LOSS_AND_DISAMBIGUATE(leveraged_cross_entropy_disambiguate, LEVERAGED_CROSS_ENTROPY, LEVERAGED)
LOSS_AND_DISAMBIGUATE(candidate_sum_disambiguate, CANDIDATE_SUM, CANDIDATES)
