// The label refinery of SoLar (Wang et al., NeurIPS 2022) in one cooperative launch.
//
//   A = P^power (the paper's lambda), P = [queue; M] f32 [n,K] of the candidates' predicted probabilities, or
//   M alone while the queue is not full
//   b = 1/n;  rounds of  a_k = r_k / sum_j A_jk b_j,   b_j = (1/n) / sum_k A_jk a_k
//   result of row j: A_jk b_j a_k n
// The error sum a + sum b is checked every `check_every` rounds. NaN, or a result that is not finite,
// triggers a single relaxed attempt, in which zeros of P count as `relaxation` and the result is 0 there.
//
// Tensors: predictions M f32 [B,K], queue f32 [L,K] (null if L = 0), class_prior r f32 [K], all row-major;
//   pseudo_labels f32 [B,K], the rows of M; outcome f32 [OUTCOME_LEN]; barrier u32 [2], both 0 before the
//   first launch; partials f32 [2][blocks][K+1] of workspace.
// Launch: at most one block of THREADS threads per multiprocessor, all resident: they synchronise at a
//   barrier of their own once per round. Block i owns the rows i*m ... (i+1)*m of P, m = ceil(n / blocks).
//   `sinkhorn_resident` keeps the block's slice of A in shared memory for all rounds, with a column of ones
//   whose sum with b is sum b: (m + 2)(K + 1) + m + 512 floats, 86 KB of the 99 KB for 16,640 x 100 on 82
//   multiprocessors. `sinkhorn_streaming`, for larger problems, reads P twice per round instead. One barrier
//   per round: a block scales its rows by a, then computes its new A^T b and sum b in one pass and publishes
//   K + 1 partial sums. These alternate between two buffers, so a fast block never overwrites what a slow one
//   still reads.
// Cost: resident, P is read once from memory, 4nK bytes, the least possible, and a round costs two passes
//   over the slice and 4(K+1) bytes from every block to every block through L2: 2.7 MB in all for K = 100 and
//   82 blocks. 4nK FLOPs per round, 0.33 GFLOP in 50 rounds of 16,640 x 100: with A on the chip, the 52
//   barriers and the chains of additions set the time, not FLOPs or bytes.
// Deterministic: every block adds the same partial sums in the same order, so all of them compute the same a
//   and the same error and take the same decisions; sums within a block run over rows assigned by thread
//   number. The same GPU gives the same bits.
// Accuracy: sums in f32; a term passes at most ceil(m/g) + g + ceil(blocks/g) + g additions, g =
//   floor(512/(K+1)) but at least 1.
#include "block.cuh"

// Threads per block.
constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;
// The error before it is first checked.
constexpr float FIRST_ERROR = 1e6f;
// Positions in the outcome: rounds made, and 1 if the relaxed attempt was needed, else 0.
constexpr int OUTCOME_ROUNDS = 0;
constexpr int OUTCOME_RELAXED = 1;
// Length of the outcome.
constexpr int OUTCOME_LEN = 2;

// All blocks of the grid wait for each other; writes of any thread before the barrier are visible to all
// after it. state[0] counts arrivals and is 0 between barriers, state[1] counts barriers and is never reset:
// any later launch can use the same state, whatever its grid.
__device__ void grid_barrier(u32* state) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile u32* generation = state + 1;
        // Read before arriving: the last block to arrive may open the barrier immediately.
        const u32 before = *generation;
        __threadfence();
        if (atomicAdd(state, 1u) == gridDim.x - 1) {
            atomicExch(state, 0u);
            __threadfence();
            atomicAdd(state + 1, 1u);
        } else {
            while (*generation == before) {}
        }
        __threadfence();
    }
    __syncthreads();
}

// Calls store(k, sum over rows j of term(j, k)) for k < width. For narrow matrices several threads share a
// column: thread (g, k) adds rows g, g + groups, ..., then one thread per column adds the groups in order.
// `scratch` holds THREADS floats.
template <typename Term, typename Store>
__device__ __forceinline__ void sum_columns(int rows, int width, float* scratch, Term term, Store store) {
    const int groups = THREADS / width;
    if (groups <= 1) {
        for (int k = threadIdx.x; k < width; k += THREADS) {
            float sum = 0.0f;
#pragma unroll 8
            for (int j = 0; j < rows; ++j) sum += term(j, k);
            store(k, sum);
        }
        return;
    }
    const int group = threadIdx.x / width, k = threadIdx.x % width;
    if (group < groups) {
        float sum = 0.0f;
#pragma unroll 8
        for (int j = group; j < rows; j += groups) sum += term(j, k);
        scratch[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x < width) {
        float sum = 0.0f;
#pragma unroll 4
        for (int i = 0; i < groups; ++i) sum += scratch[i * width + threadIdx.x];
        store(threadIdx.x, sum);
    }
}

// The parameters of a launch, as above. `slice_rows` is at least m for every possible n; it determines the
// shared memory.
struct Sinkhorn {
    int batch, queue_rows, classes, rounds, check_every, slice_rows;
    float power, tolerance, relaxation;
    const float* predictions;
    const float* queue;
    const float* class_prior;
    u32* barrier;
    float* partials;
    float* pseudo_labels;
    float* outcome;
};

// Whether the queue takes part, that is whether its last row is filled. Every warp tests this on its own.
__device__ __forceinline__ bool queue_is_filled(const Sinkhorn& given) {
    if (given.queue_rows == 0) return false;
    const float* last = given.queue + (given.queue_rows - 1) * (size_t)given.classes;
    bool filled = false;
    for (int k = threadIdx.x % 32; k < given.classes; k += 32) filled = filled || last[k] != 0.0f;
    return __any_sync(0xffffffffu, filled) != 0;
}

// A block's slice of A, and its part of the iteration.
template <bool RESIDENT> struct Block {
    const Sinkhorn& given;
    int classes, width;  // K, K + 1
    int n;  // rows of P
    float inverse;  // 1/n
    int first, count;  // the slice in [queue; M], always counted from the queue's first row
    int lanes;  // lanes per row when rows are scaled; team and lane of this thread
    int team, lane;
    bool relaxed = false;
    int buffer = 0;  // which of the two buffers of partial sums is next
    // Shared memory.
    float* a;  // [K]
    float* sums;  // [K+1]: A^T b, sum b
    float* scratch;  // [THREADS]
    float* b;  // [slice_rows]
    float* powers;  // [slice_rows][K+1] if resident: A and the ones

    __device__ __forceinline__ Block(const Sinkhorn& given, float* shared) : given(given) {
        classes = given.classes, width = classes + 1;
        const int start = queue_is_filled(given) ? 0 : given.queue_rows, end = given.queue_rows + given.batch;
        n = end - start, inverse = 1.0f / (float)n;
        // As many lanes per row as have three or four products each, so that rows of 10 classes do not idle
        // most of a warp.
        for (lanes = 1; lanes < 32 && lanes * 4 < classes;) lanes *= 2;
        team = threadIdx.x / lanes, lane = threadIdx.x % lanes;
        const int share = ceiling_divide(n, (int)gridDim.x);
        first = start + min((int)blockIdx.x * share, n);
        count = min(share, end - first);
        a = shared, sums = a + classes, scratch = sums + width, b = scratch + THREADS,
        powers = b + given.slice_rows;
    }

    __device__ __forceinline__ float power(int j, int k) const {
        const int at = first + j;
        const float* row = at < given.queue_rows
                               ? given.queue + at * (size_t)classes
                               : given.predictions + (at - given.queue_rows) * (size_t)classes;
        float value = row[k];
        if (relaxed && value == 0.0f) value = given.relaxation;
        return given.power == 3.0f ? value * value * value : powf(value, given.power);
    }

    // A_jk, and 1 in the last column.
    __device__ __forceinline__ float value(int j, int k) const {
        if (RESIDENT) return powers[j * width + k];
        return k < classes ? power(j, k) : 1.0f;
    }

    __device__ __forceinline__ float result(int j, int k) const {
        return value(j, k) * b[j] * a[k] * (float)n;
    }

    // Stores A in shared memory if resident; b = 1/n.
    __device__ __forceinline__ void start() {
        if (RESIDENT) {
            for (int i = threadIdx.x; i < count * width; i += THREADS) {
                const int j = i / width, k = i - j * width;
                powers[i] = k < classes ? power(j, k) : 1.0f;
            }
        }
        for (int j = threadIdx.x; j < count; j += THREADS) b[j] = inverse;
        __syncthreads();
    }

    // The partial sums of a block; those of the next block follow.
    __device__ __forceinline__ float* partials(int block) const {
        return given.partials + (buffer * gridDim.x + block) * width;
    }

    // Computes sums = A^T b and sum b over all blocks.
    __device__ __forceinline__ void exchange() {
        float* mine = partials(blockIdx.x);
        sum_columns(
            count, width, scratch, [&](int j, int k) { return value(j, k) * b[j]; },
            [&](int k, float sum) { mine[k] = sum; });
        grid_barrier(given.barrier);
        const float* all = partials(0);
        sum_columns(
            gridDim.x, width, scratch, [&](int j, int k) { return all[j * width + k]; },
            [&](int k, float sum) { sums[k] = sum; });
        __syncthreads();
        buffer ^= 1;
    }

    // sum a + sum b. Every warp adds all of a in the same order.
    __device__ __forceinline__ float error() const {
        float total = 0.0f;
        for (int k = threadIdx.x % 32; k < classes; k += 32) total += a[k];
        return sums[classes] + warp_sum(total);
    }

    // a = r / A^T b
    __device__ __forceinline__ void scale_columns() {
        // The error must be read before a is overwritten.
        __syncthreads();
        for (int k = threadIdx.x; k < classes; k += THREADS) a[k] = given.class_prior[k] / sums[k];
        __syncthreads();
    }

    // b = (1/n) / A a
    __device__ __forceinline__ void scale_rows() {
        const int teams = THREADS / lanes;
        for (int row = 0; row < count; row += teams) {
            const int j = row + team;
            float sum = 0.0f;
            if (j < count) {
#pragma unroll 4
                for (int k = lane; k < classes; k += lanes) sum += value(j, k) * a[k];
            }
            for (int distance = lanes / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, distance);
            if (j < count && lane == 0) b[j] = inverse / sum;
        }
        __syncthreads();
    }

    // Iterates until the error is below the tolerance or all rounds are made; returns whether the error
    // stayed a number.
    __device__ __forceinline__ bool iterate(int& made) {
        float latest = FIRST_ERROR;
        for (int round = 0;; ++round) {
            exchange();
            if (round > 0 && round % given.check_every == 0) latest = error();
            const bool failed = latest != latest;
            if (failed || round == given.rounds || latest < given.tolerance) return !failed;
            ++made;
            scale_columns();
            scale_rows();
        }
    }

    // Whether a result of any block is not finite.
    __device__ __forceinline__ bool is_infeasible() {
        bool wrong = false;
        for (int i = threadIdx.x; i < count * classes; i += THREADS) {
            const int j = i / classes, k = i - j * classes;
            wrong = wrong || !(fabsf(result(j, k)) < infinity());
        }
        wrong = __any_sync(0xffffffffu, wrong) != 0;
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = wrong ? 1.0f : 0.0f;
        __syncthreads();
        if (threadIdx.x == 0) {
            float some = 0.0f;
            for (int i = 0; i < WARPS; ++i) some += scratch[i];
            *partials(blockIdx.x) = some;
        }
        grid_barrier(given.barrier);
        const float* all = partials(0);
        bool any = false;
        for (int i = threadIdx.x % 32; i < gridDim.x; i += 32) any = any || all[i * width] > 0.0f;
        buffer ^= 1;
        return __any_sync(0xffffffffu, any) != 0;
    }

    // Stores the results of the slice's rows of M.
    __device__ __forceinline__ void store() const {
        for (int i = threadIdx.x; i < count * classes; i += THREADS) {
            const int j = i / classes, k = i - j * classes, row = first + j - given.queue_rows;
            if (row < 0) continue;
            const size_t at = row * (size_t)classes + k;
            // A product instead of a branch, so that a NaN stays visible even where the prediction is 0.
            const float mask = relaxed && given.predictions[at] == 0.0f ? 0.0f : 1.0f;
            given.pseudo_labels[at] = result(j, k) * mask;
        }
    }
};

template <bool RESIDENT> __device__ __forceinline__ void sinkhorn(const Sinkhorn& given) {
    extern __shared__ float shared[];
    Block<RESIDENT> block(given, shared);
    int made = 0;
    while (true) {
        block.start();
        const bool converges = block.iterate(made);
        if (block.relaxed || (converges && !block.is_infeasible())) break;
        block.relaxed = true;
        __syncthreads();
    }
    block.store();
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        given.outcome[OUTCOME_ROUNDS] = (float)made;
        given.outcome[OUTCOME_RELAXED] = block.relaxed ? 1.0f : 0.0f;
    }
}

#define SINKHORN(NAME, RESIDENT)                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) NAME(Sinkhorn given) { \
        sinkhorn<RESIDENT>(given);                                                  \
    }

SINKHORN(sinkhorn_resident, true)
SINKHORN(sinkhorn_streaming, false)
