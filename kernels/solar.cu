// The operations of SoLar (Wang et al., NeurIPS 2022) beside Sinkhorn: predictions masked by the candidates,
// the choice of reliable samples, the loss over chosen and other samples, and the count that the class prior
// is estimated from.
//
// Letters: B samples of K classes, weak and strong logits z^w, z^s, p = softmax(z), candidate row s,
// pseudo-labels Q, old confidence row c, class prior r, H(q, z) = -sum q ln softmax(z).
//
// Cost: all read their rows once from memory, the least possible; later passes over a row hit the L1 cache. A
//   batch of 256 rows of 100 classes is 100 KB: each is predicted to take a few microseconds, bound by
//   latency, not by bandwidth or arithmetic.
// Deterministic: no float atomics; sums run over threads in a fixed order, counts are integers.
#include "control.cuh"
#include "loss_row.cuh"

// Position of eta in the step's control block: the weight of the losses of the chosen samples; 0 chooses
// none.
constexpr int ETA = OWN;
// Position of rho: the share of a class's expected samples that is chosen.
constexpr int RHO = OWN + 1;

// M [B,K] = s softmax(z) of logits f32 [B,K] and the rows `index` i32 [B] of candidates u8 [N,K].
// Launch: grid B, a block per row as in loss_by_kind.cu; 32 bytes of shared memory. 8 K + K bytes per row, a
// dozen FLOPs per class.
extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 4)
    masked_softmax(int classes, const float* logits, const u8* candidates, const int* index, float* out) {
    __shared__ float scratch[ROW_WARPS];
    const BlockTeam team = {scratch};
    const size_t row = blockIdx.x, sample = index[row];
    const float* z = logits + row * classes;
    const u8* s = candidates + sample * classes;
    const Normaliser n = normaliser(team, classes, [&](int k) { return z[k]; });
    for (int k = team.thread(); k < classes; k += team.threads())
        out[row * classes + k] = s[k] != 0 ? n.p(z[k]) : 0.0f;
}

// Threads of the single block that chooses or counts.
constexpr int CHOICE_THREADS = 1024;
constexpr int CHOICE_WARPS = CHOICE_THREADS / 32;

// counts f32 [K] += the rows of x f32 [R,K] whose argmax is each class.
// Launch: one block, one row per warp at a time; K integers of dynamic shared memory, to which one lane adds
// per row. 4 R K bytes once.
extern "C" __global__ void __launch_bounds__(CHOICE_THREADS, 1)
    count_argmax(int rows, int classes, const float* x, float* counts) {
    extern __shared__ int histogram[];
    const int lane = threadIdx.x % 32;
    for (int k = threadIdx.x; k < classes; k += CHOICE_THREADS) histogram[k] = 0;
    __syncthreads();
    for (int row = threadIdx.x / 32; row < rows; row += CHOICE_WARPS) {
        const Argmax best = warp_argmax(x + row * (size_t)classes, classes, lane);
        if (lane == 0) atomicAdd(histogram + best.at, 1);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < classes; k += CHOICE_THREADS) counts[k] += (float)histogram[k];
}

// Calls store(slot, i) for each i < len that is wanted(i), with slots numbered in the order of i; returns
// their number. Called by a whole block of CHOICE_THREADS; `counts` holds CHOICE_WARPS integers. A thread
// evaluates i = thread, thread + CHOICE_THREADS, ...
template <typename Wanted, typename Store>
__device__ __forceinline__ int select(int len, int* counts, Wanted wanted, Store store) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int total = 0;
    for (int first = 0; first < len; first += CHOICE_THREADS) {
        const int i = first + threadIdx.x;
        const bool mine = i < len && wanted(i);
        const u32 of_warp = __ballot_sync(0xffffffffu, mine);
        if (lane == 0) counts[warp] = __popc(of_warp);
        __syncthreads();
        int before = total + __popc(of_warp & ((1u << lane) - 1));
        for (int w = 0; w < CHOICE_WARPS; ++w) {
            before += w < warp ? counts[w] : 0;
            total += counts[w];
        }
        if (mine) store(before, i);
        __syncthreads();
    }
    return total;
}

// The choice: for each class j, of the n_j rows whose argmax of Q is j, the max(1, min(ceil(B r_j rho), n_j))
// with the least loss -sum Q ln p^w, of equals the earlier, NaN last; and each row with sum Q p^w >
// threshold. None if control[ETA] is 0.
//
// logits z^w, pseudo_labels Q f32 [B,K], class_prior r f32 [K], permutations i32 [steps,B], step i32 [1];
// chosen i32 [B], 1 or 0; rows i32 [B], the chosen ones ascending, then -1; partners i32 [B]: entries of the
// step's permutation below n, in its order, as positions in `rows`, then -1; count n i32 [1], which is added
// to total i32 [1].
//
// Launch: one block. First one warp per row finds class and loss, then one thread per row counts the rows of
// its class that precede it: B^2 comparisons in shared memory, 64 per thread for 256 rows. 8 B bytes of
// dynamic shared memory and 128 static. Losses are sums in f32: a term passes K/32 + 5 additions. Rows with
// equal bits have equal losses, so the earlier one wins on every device. One function, because
// its three phases share the losses and classes in shared memory.
extern "C" __global__ void __launch_bounds__(CHOICE_THREADS, 1)
    choose_samples(int batch, int classes, int steps, float threshold, const float* logits,
                   const float* pseudo_labels, const float* class_prior, const float* control,
                   const int* permutations, const int* step, int* chosen, int* rows, int* partners,
                   int* count, int* total) {
    extern __shared__ float losses[];  // [B]
    int* classes_of =
        reinterpret_cast<int*>(losses + batch);  // [B]: twice the class, plus 1 where sum Q p > threshold
    __shared__ int counts[CHOICE_WARPS];
    const int lane = threadIdx.x % 32;
    const bool any = control[ETA] != 0.0f;
    if (any) {
        for (int b = threadIdx.x / 32; b < batch; b += CHOICE_WARPS) {
            const float* z = logits + b * (size_t)classes;
            const float* q = pseudo_labels + b * (size_t)classes;
            const Normaliser n = normaliser(WarpTeam(), classes, [&](int k) { return z[k]; });
            float log_sum = 0.0f, sum = 0.0f;
            for (int k = lane; k < classes; k += 32) {
                log_sum += __fmul_rn(q[k], n.log_p(z[k]));
                sum += __fmul_rn(q[k], n.p(z[k]));
            }
            log_sum = warp_sum(log_sum);
            sum = warp_sum(sum);
            const Argmax best = warp_argmax(q, classes, lane);
            if (lane == 0) {
                losses[b] = fminf(-log_sum, infinity());
                classes_of[b] = 2 * best.at + (sum > threshold ? 1 : 0);
            }
        }
    }
    __syncthreads();

    const auto is_chosen = [&](int b) {
        if (!any) return false;
        if (classes_of[b] % 2 != 0) return true;
        const int own = classes_of[b] / 2;
        const float loss = losses[b];
        int rank = 0;
        for (int other = 0; other < batch; ++other) {
            const bool before = losses[other] < loss || (losses[other] == loss && other < b);
            rank += before && classes_of[other] / 2 == own ? 1 : 0;
        }
        // Both products in f32, each rounded, as in the reference; a NaN or a negative number selects only
        // the first row.
        const float wanted = ceilf(__fmul_rn(__fmul_rn((float)batch, class_prior[own]), control[RHO]));
        return rank == 0 || (float)rank < wanted;
    };
    const int found = select(
        batch, counts,
        [&](int b) {
            const bool mine = is_chosen(b);
            chosen[b] = mine ? 1 : 0;
            return mine;
        },
        [&](int slot, int b) { rows[slot] = b; });
    const int* permutation = permutations + (size_t)bounded_step(step, steps) * batch;
    const int paired = select(
        batch, counts, [&](int i) { return permutation[i] >= 0 && permutation[i] < found; },
        [&](int slot, int i) { partners[slot] = rows[permutation[i]]; });
    for (int b = threadIdx.x; b < batch; b += CHOICE_THREADS) {
        if (b >= found) rows[b] = -1;
        if (b >= paired) partners[b] = -1;
    }
    if (threadIdx.x == 0) {
        *count = found;
        *total += found;
    }
}

// The loss: with A the n chosen rows, U the others, eta = control[ETA],
//   eta (mean_A H(Q, z^w) + mean_A H(Q, z^s) + mean over the first n mixed rows of H(Q', z')) + (1 - eta)
//   mean_U H(c, z^w),
// where an empty mean is 0; mean H(c, z^w) if A is empty. dz = weight (p sum q - q), 0 in rows that do not
// contribute.
//
// weak, strong, mixed z', pseudo_labels Q, mixed_target Q' f32 [B,K], the mixed ones null if there are none;
// confidence c f32 [N,K], rows `index` i32 [B]; chosen i32 [B], count i32 [1]; d_weak, d_strong, d_mixed f32
// [B,K]; loss_rows f32 [B], whose sum divided by B is the loss.
// Launch: grid B, a block per row as in loss_by_kind.cu; 32 bytes of shared memory. At most 36 K bytes per
// chosen row.
extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 4)
    solar_loss(int classes, const float* weak, const float* strong, const float* pseudo_labels,
               const float* mixed, const float* mixed_target, const float* confidence, const int* index,
               const int* chosen, const int* count, const float* control, float* d_weak, float* d_strong,
               float* d_mixed, float* loss_rows) {
    __shared__ float scratch[ROW_WARPS];
    const BlockTeam team = {scratch};
    const int batch = gridDim.x, b = blockIdx.x, found = *count;
    const float eta = control[ETA];
    const float inside = found == 0 ? 0.0f : eta / (float)found;
    const float outside = found == 0 ? 1.0f / (float)batch : (1.0f - eta) / (float)max(batch - found, 1);
    const bool is_chosen = chosen[b] != 0;
    const size_t row = b * (size_t)classes;

    const auto term = [&](float weight, const float* logits, const float* target, float* d) {
        return weight *
               row_loss<CROSS_ENTROPY>(team, classes, logits + row, target, nullptr, 0.0f, weight, d + row);
    };
    const auto none = [&](float* d) {
        for (int k = team.thread(); k < classes; k += team.threads()) d[row + k] = 0.0f;
    };
    float sum = is_chosen ? term(inside, weak, pseudo_labels + row, d_weak)
                          : term(outside, weak, confidence + index[b] * (size_t)classes, d_weak);
    if (is_chosen)
        sum += term(inside, strong, pseudo_labels + row, d_strong);
    else
        none(d_strong);
    if (mixed != nullptr) {
        if (b < found)
            sum += term(inside, mixed, mixed_target + row, d_mixed);
        else
            none(d_mixed);
    }
    if (team.thread() == 0) loss_rows[b] = sum * (float)batch;
}
