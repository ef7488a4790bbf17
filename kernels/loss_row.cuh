// The losses of one row of logits z against a target row c and a candidate row s, with their gradients,
// computed by a warp or by a block.
//
// Letters: K classes, p = softmax(z), eps = 1e-9, sums over k.
//   consistency               sum_{c_k=0} -ln(|1-p_k|+eps)  +  sum_{c_k!=0} c_k ln c_k - c_k ln p_k
//   cross-entropy             -sum c_k ln p_k
//   leveraged, cross-entropy  sum_{k in s} -c_k ln p_k  +  beta sum_{k not in s} -c_k ln(|1-p_k|+eps)
//     these three: dz_k = p_k (g_k - sum_j p_j g_j) + p_k C - c_k over the classes that are pulled up (c_k !=
//     0, all, s), C the sum of their c_k; g_k = w_k sign(1-p_k) / (|1-p_k|+eps) of the classes that are
//     pushed down, 0 at p_k = 1, with w_k = 1 or beta c_k
//   leveraged, sigmoid        sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k psi(-z_k);
//                             psi(z) = 1 / (1 + e^z)
//   candidate sum             -ln sum_{k in s} p_k;  dz_k = p_k - [k in s] p_k / sum_s p
//
// Thread t of T takes classes t, t + T, ...: it touches only its own elements of every array. Nothing is kept
// between passes: a row lies in the L1 cache, and its exponentials are recomputed two or three times. A term
// passes K/T + 12 additions at most, in an order that T and K fix. The branches are those of the definition:
// 0 ln 0 = 0, but 0 times an infinite or NaN logarithm gives NaN.
#pragma once
#include "block.cuh"
#include "epsilon.cuh"

// A warp that processes a row.
struct WarpTeam {
    __device__ __forceinline__ int thread() const { return threadIdx.x % 32; }
    __device__ __forceinline__ int threads() const { return 32; }
    __device__ __forceinline__ float sum(float value) const { return warp_sum(value); }
    __device__ __forceinline__ float max(float value) const { return warp_max(value); }
};

// Most warps of a block that processes a row.
constexpr int ROW_WARPS = 8;

// A block of one to ROW_WARPS whole warps that processes a row; `scratch` holds ROW_WARPS values of shared
// memory.
struct BlockTeam {
    float* scratch;

    __device__ __forceinline__ int thread() const { return threadIdx.x; }
    __device__ __forceinline__ int threads() const { return blockDim.x; }

    template <typename Merge> __device__ __forceinline__ float merged(float value, Merge merge) const {
        const int warps = blockDim.x / 32;
        if (warps == 1) return value;
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
        __syncthreads();
        float total = scratch[0];
        for (int warp = 1; warp < warps; ++warp) total = merge(total, scratch[warp]);
        __syncthreads();
        return total;
    }

    __device__ __forceinline__ float sum(float value) const {
        return merged(warp_sum(value), [](float a, float b) { return a + b; });
    }

    __device__ __forceinline__ float max(float value) const {
        return merged(warp_max(value), [](float a, float b) { return fmaxf(a, b); });
    }
};

// Maximum of the values, and the sum of exp(value - maximum).
struct Normaliser {
    float most, sum, log_sum;

    __device__ __forceinline__ float log_p(float value) const { return (value - most) - log_sum; }
    __device__ __forceinline__ float p(float value) const { return expf(value - most) / sum; }
};

// Normaliser of value(k) over the classes k that are inside(k).
template <typename Team, typename Value, typename Inside>
__device__ __forceinline__ Normaliser normaliser(const Team& team, int classes, Value value, Inside inside) {
    float most = -infinity();
    for (int k = team.thread(); k < classes; k += team.threads())
        if (inside(k)) most = fmaxf(most, value(k));
    most = team.max(most);
    float sum = 0.0f;
    for (int k = team.thread(); k < classes; k += team.threads())
        if (inside(k)) sum += expf(value(k) - most);
    sum = team.sum(sum);
    return {most, sum, logf(sum)};
}

template <typename Team, typename Value>
__device__ __forceinline__ Normaliser normaliser(const Team& team, int classes, Value value) {
    return normaliser(team, classes, value, [](int) { return true; });
}

enum LossKind { CONSISTENCY, CROSS_ENTROPY, LEVERAGED_SIGMOID, LEVERAGED_CROSS_ENTROPY, CANDIDATE_SUM };

// The part of one class: its loss, g, and the weight that pulls it up.
struct Part {
    float loss, g, pull;
};

// -ln(|1-p|+eps) and its derivative by p.
__device__ __forceinline__ Part negative(float p) {
    const float rest = 1.0f - p;
    const float distance = fabsf(rest) + EPSILON;
    return {-logf(distance), rest == 0.0f ? 0.0f : copysignf(1.0f, rest) / distance, 0.0f};
}

template <LossKind KIND>
__device__ __forceinline__ Part class_part(float c, bool candidate, float beta, float p, float log_p) {
    if (KIND == CONSISTENCY) {
        if (c != 0.0f) return {c * logf(c) - c * log_p, 0.0f, c};
        const Part part = negative(p);
        return {c * log_p + part.loss, part.g, c};
    }
    if (KIND == LEVERAGED_CROSS_ENTROPY && !candidate) {
        const Part part = negative(p);
        return {beta * c * part.loss, beta * c * part.g, 0.0f};
    }
    return {-(c * log_p), 0.0f, c};
}

// Returns the loss in every thread; d receives its gradient times `scale`. `c` and `s` are read only by the
// kinds that need them.
template <LossKind KIND, typename Team>
__device__ __forceinline__ float row_loss(const Team& team, int classes, const float* z, const float* c,
                                          const u8* s, float beta, float scale, float* d) {
    const int first = team.thread(), step = team.threads();
    float loss = 0.0f;
    if (KIND == LEVERAGED_SIGMOID) {
        for (int k = first; k < classes; k += step) {
            const float sigmoid = 1.0f / (1.0f + expf(-z[k])), other = 1.0f / (1.0f + expf(z[k]));
            const bool candidate = s[k] != 0;
            const float slope = candidate ? -c[k] : beta * c[k];
            loss += candidate ? c[k] * other : slope * sigmoid;
            d[k] = scale * slope * sigmoid * other;
        }
        return team.sum(loss);
    }
    const Normaliser n = normaliser(team, classes, [&](int k) { return z[k]; });
    if (KIND == CANDIDATE_SUM) {
        const Normaliser inside =
            normaliser(team, classes, [&](int k) { return n.log_p(z[k]); }, [&](int k) { return s[k] != 0; });
        const float log_sum = inside.most + inside.log_sum;
        for (int k = first; k < classes; k += step)
            d[k] = scale * (n.p(z[k]) - (s[k] != 0 ? expf(n.log_p(z[k]) - log_sum) : 0.0f));
        return -log_sum;
    }
    const auto candidate = [&](int k) { return KIND == LEVERAGED_CROSS_ENTROPY && s[k] != 0; };
    float weighted = 0.0f, total = 0.0f;
    for (int k = first; k < classes; k += step) {
        const float p = n.p(z[k]);
        const Part part = class_part<KIND>(c[k], candidate(k), beta, p, n.log_p(z[k]));
        loss += part.loss;
        weighted += p * part.g;
        total += part.pull;
    }
    // Cross-entropy pushes no class down.
    if (KIND != CROSS_ENTROPY) weighted = team.sum(weighted);
    total = team.sum(total);
    for (int k = first; k < classes; k += step) {
        const float p = n.p(z[k]);
        const Part part = class_part<KIND>(c[k], candidate(k), beta, p, 0.0f);
        d[k] = scale * (p * (part.g - weighted) + p * total - part.pull);
    }
    return team.sum(loss);
}
