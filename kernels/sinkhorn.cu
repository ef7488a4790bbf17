// The label refinery of SoLar (Wang et al., NeurIPS 2022) in one cooperative launch.
//
//   A = P^lambda, P = [queue; M] f32 [n,K] of predicted candidates' probabilities, or M alone while the queue is not full
//   b = 1/n;  rounds of  a_k = r_k / sum_j A_jk b_j,   b_j = (1/n) / sum_k A_jk a_k;   result of row j: A_jk b_j a_k n
// The error sum a + sum b is looked at every so many rounds; NaN, or a result that is not finite, starts one relaxed attempt, where
// zeros of P count as `relaxation` and the result is 0 there.
//
// Tensors  predictions M f32 [B,K], queue f32 [L,K] (null if L = 0), class_prior r f32 [K], all row-major;
//          refined f32 [B,K], the rows of M; outcome f32 [2] = rounds made, whether relaxed;
//          barrier u32 [2], both 0 before the first launch; partials f32 [2][blocks][K+1] of workspace.
// Grid     at most one block of 512 threads a multiprocessor, all resident: they meet at a barrier of their own once a round.
//          Block i owns the rows i*m ... (i+1)*m of P, m = ceil(n / blocks).
// Memory   `sinkhorn_resident` keeps the block's slice of A in shared memory for all rounds, with a column of ones whose sum with b is
//          sum b: (m + 2)(K + 1) + m + 512 floats, 86 KB of the 99 KB for 16,640 x 100 on 82 multiprocessors. P is then read once from
//          memory, 4nK bytes, the least possible, and a round costs two passes over the slice and 4(K+1) bytes from every block to
//          every block through L2: 2.7 MB in all for K = 100 and 82 blocks. `sinkhorn_streaming`, for what does not fit, reads P twice
//          a round instead.
// Work     4nK FLOPs a round, 0.33 GFLOP in 50 rounds of 16,640 x 100: with A on the chip, the 52 barriers and the chains of additions
//          set the time, not FLOPs or bytes.
// One barrier a round: a block scales its rows by a, then sums its new A b and b at once, and hands K + 1 partial sums to all;
// the partial sums have two buffers in turn, so a fast block never overwrites what a slow one still reads.
// Bits     every block adds the same partial sums in the same order, so all of them compute the same a, the same error and take the
//          same decisions; sums within a block are over rows cut by thread number. The same GPU gives the same bits.
// Accuracy sums in f32: a term passes at most ceil(m/g) + g + ceil(blocks/g) + g additions, g = floor(512/(K+1)) but at least 1.
#include "block.cuh"

#define THREADS 512
#define WARPS 16
#define FIRST_ERROR 1e6f

// All blocks of the grid wait for each other; what any thread wrote before is seen by all after it. state[0] counts arrivals and is 0
// between barriers, state[1] counts barriers and is never reset: any later launch may use the same state, whatever its grid.
__device__ void grid_barrier(u32* state) {
    __syncthreads();
    if (threadIdx.x == 0) {
        volatile u32* generation = state + 1;
        // Read before arriving: the last to arrive may open the barrier at once.
        const u32 before = *generation;
        __threadfence();
        if (atomicAdd(state, 1u) == gridDim.x - 1) {
            atomicExch(state, 0u);
            __threadfence();
            atomicAdd(state + 1, 1u);
        } else {
            while (*generation == before) {
            }
        }
        __threadfence();
    }
    __syncthreads();
}

// store(k, sum over rows j of term(j, k)) for k < width. For narrow matrices several threads share a column: thread (g, k) adds rows
// g, g + groups, ..., then one thread a column adds the groups in order. `scratch` holds THREADS floats.
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

// The slice of A that a block owns.
struct Slice {
    const float* queue;
    const float* predictions;
    int queue_rows, classes;
    int first, count;    // rows of [queue; M], counted from the queue's first whether it takes part or not
    float power, relaxation;
    bool relaxed;

    __device__ __forceinline__ const float* row(int j) const {
        const int at = first + j;
        return at < queue_rows ? queue + at * (long long)classes : predictions + (at - queue_rows) * (long long)classes;
    }

    __device__ __forceinline__ float powered(float value) const {
        if (relaxed && value == 0.0f) value = relaxation;
        return power == 3.0f ? value * value * value : powf(value, power);
    }
};

#define SINKHORN_PARAMETERS                                                                                                  \
    const float *predictions, const float *queue, const float *class_prior, u32 *barrier, float *partials, float *refined, \
        float *outcome, int batch, int queue_rows, int classes, int rounds, int check_every, int slice_rows, float power,  \
        float tolerance, float relaxation
#define SINKHORN_ARGUMENTS                                                                                            \
    predictions, queue, class_prior, barrier, partials, refined, outcome, batch, queue_rows, classes, rounds, \
        check_every, slice_rows, power, tolerance, relaxation

// `slice_rows` >= m for every n that can be: how much shared memory is set aside.
template <bool RESIDENT> __device__ __forceinline__ void sinkhorn(SINKHORN_PARAMETERS) {
    extern __shared__ float shared[];
    const int width = classes + 1;
    float* a = shared;                      // [K]
    float* sums = a + classes;              // [K+1]: A^T b, sum b
    float* scratch = sums + width;          // [THREADS]
    float* b = scratch + THREADS;           // [slice_rows]
    float* powers = b + slice_rows;         // [slice_rows][K+1] if resident: A and the ones
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    // The queue takes part once its last row is filled; every block looks for itself.
    bool filled = false;
    if (queue_rows > 0) {
        const float* last = queue + (queue_rows - 1) * (long long)classes;
        for (int k = lane; k < classes; k += 32) filled = filled || last[k] != 0.0f;
        filled = __any_sync(0xffffffffu, filled) != 0;
    }
    const int start = filled ? 0 : queue_rows;
    const int n = queue_rows + batch - start;
    const int share = ceiling_divide(n, (int)gridDim.x);
    const float inverse = 1.0f / (float)n;

    Slice slice;
    slice.queue = queue, slice.predictions = predictions;
    slice.queue_rows = queue_rows, slice.classes = classes;
    slice.first = start + min((int)blockIdx.x * share, n);
    slice.count = min(share, queue_rows + batch - slice.first);
    slice.power = power, slice.relaxation = relaxation, slice.relaxed = false;

    // As many lanes a row as keep three or four products each, so that rows of 10 classes do not idle most of a warp.
    int lanes = 1;
    while (lanes < 32 && lanes * 4 < classes) lanes *= 2;
    const int team = threadIdx.x / lanes, place = threadIdx.x % lanes, teams = THREADS / lanes;

    const auto value = [&](int j, int k) {
        if (RESIDENT) return powers[j * width + k];
        return k < classes ? slice.powered(slice.row(j)[k]) : 1.0f;
    };

    int made = 0, buffer = 0;
    while (true) {
        if (RESIDENT) {
            for (int i = threadIdx.x; i < slice.count * width; i += THREADS) {
                const int j = i / width, k = i - j * width;
                powers[i] = k < classes ? slice.powered(slice.row(j)[k]) : 1.0f;
            }
        }
        for (int j = threadIdx.x; j < slice.count; j += THREADS) b[j] = inverse;
        __syncthreads();

        bool failed = false;
        float error = FIRST_ERROR;
        for (int round = 0;; ++round) {
            float* mine = partials + (buffer * gridDim.x + blockIdx.x) * width;
            sum_columns(
                slice.count, width, scratch, [&](int j, int k) { return value(j, k) * b[j]; },
                [&](int k, float sum) { mine[k] = sum; });
            grid_barrier(barrier);
            const float* all = partials + buffer * gridDim.x * width;
            sum_columns(
                gridDim.x, width, scratch, [&](int j, int k) { return all[j * width + k]; },
                [&](int k, float sum) { sums[k] = sum; });
            __syncthreads();
            buffer ^= 1;

            if (round > 0 && round % check_every == 0) {
                // Every warp adds all of a in the same order.
                float total = 0.0f;
                for (int k = lane; k < classes; k += 32) total += a[k];
                error = sums[classes] + warp_sum(total);
                failed = error != error;
            }
            if (failed || round == rounds || error < tolerance) break;
            ++made;
            // The error must be read before a is written anew.
            __syncthreads();
            for (int k = threadIdx.x; k < classes; k += THREADS) a[k] = class_prior[k] / sums[k];
            __syncthreads();
            for (int row = 0; row < slice.count; row += teams) {
                const int j = row + team;
                float sum = 0.0f;
                if (j < slice.count) {
#pragma unroll 4
                    for (int k = place; k < classes; k += lanes) sum += value(j, k) * a[k];
                }
                for (int distance = lanes / 2; distance > 0; distance /= 2)
                    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
                if (j < slice.count && place == 0) b[j] = inverse / sum;
            }
            __syncthreads();
        }
        if (slice.relaxed) break;

        if (!failed) {
            bool wrong = false;
            for (int i = threadIdx.x; i < slice.count * classes; i += THREADS) {
                const int j = i / classes, k = i - j * classes;
                const float result = value(j, k) * b[j] * a[k] * (float)n;
                wrong = wrong || !(fabsf(result) < infinity());
            }
            wrong = __any_sync(0xffffffffu, wrong) != 0;
            if (lane == 0) scratch[warp] = wrong ? 1.0f : 0.0f;
            __syncthreads();
            if (threadIdx.x == 0) {
                float some = 0.0f;
                for (int i = 0; i < WARPS; ++i) some += scratch[i];
                partials[(buffer * gridDim.x + blockIdx.x) * width] = some;
            }
            grid_barrier(barrier);
            const float* all = partials + buffer * gridDim.x * width;
            bool any = false;
            for (int i = lane; i < gridDim.x; i += 32) any = any || all[i * width] > 0.0f;
            failed = __any_sync(0xffffffffu, any) != 0;
            buffer ^= 1;
        }
        if (!failed) break;
        slice.relaxed = true;
        __syncthreads();
    }

    for (int i = threadIdx.x; i < slice.count * classes; i += THREADS) {
        const int j = i / classes, k = i - j * classes, at = slice.first + j - queue_rows;
        if (at < 0) continue;
        // A product, not a choice: a NaN shows also where the prediction is 0.
        const float mask = slice.relaxed && predictions[at * (long long)classes + k] == 0.0f ? 0.0f : 1.0f;
        refined[at * (long long)classes + k] = value(j, k) * b[j] * a[k] * (float)n * mask;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        outcome[0] = (float)made;
        outcome[1] = slice.relaxed ? 1.0f : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(512, 1) sinkhorn_resident(SINKHORN_PARAMETERS) {
    sinkhorn<true>(SINKHORN_ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(512, 1) sinkhorn_streaming(SINKHORN_PARAMETERS) {
    sinkhorn<false>(SINKHORN_ARGUMENTS);
}
