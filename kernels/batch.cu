// The input of a step beside augmentation: its samples, normalised images, stored rows, and mixup.
//
// `step` i32 [1] lies in device memory and counts from 0; only `advance_step` changes it, so a recorded step
// is replayed without the host. The CPU refuses a step beyond the uploaded ones. A kernel cannot: it reads
// the data of the last step instead (of step 0 if negative) and stores nothing, so that it stays inside the
// buffers and the samples of a batch stay distinct.
//
// Cost: all are copies with little or no arithmetic, bound by memory: each byte is moved once.
// Deterministic: no sums, so nothing depends on an order.
// Source: mixup is Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; applied to pairs of
//   views as in RECORDS.
#include "normalisation.cuh"

// Most threads per block.
constexpr int THREADS = 256;

// index [B] = order [step B + b], all i32; `order` holds `steps` whole batches.
// Launch: B threads in blocks of 256. 8 B bytes.
extern "C" __global__ void select_batch(int batch, int steps, const int* __restrict__ order,
                                        const int* __restrict__ step, int* __restrict__ index) {
    const int b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b < batch) index[b] = order[bounded_step(step, steps) * batch + b];
}

// step += 1, and 0 if that is `modulus` or more; a modulus of 0 means none. One thread.
extern "C" __global__ void advance_step(int modulus, int* step) {
    const int next = *step + 1;
    *step = modulus > 0 && next >= modulus ? 0 : next;
}

// x [B, P, 3] = (v/255 - mean)/std of images u8 [N, P, 3] from step B, with the last image repeated past the
// end; three roundings to f32, then one to the activations' type. normalisation f32 [6].
// Launch: blocks of 256 threads, one per image or, with fewer blocks, several images in turn, so that each
// block builds the table of 768 values (3 KB of shared memory) once. 9 P (bf16) or 15 P (f32) bytes per
// image: loads of 64 or 32 bits, stores of 128, where 3 P is a multiple of 8 (bf16, f16) or 4.
template <typename T>
__device__ __forceinline__ void normalise_images(int batch, int pixels, int count,
                                                 const u8* __restrict__ images, const int* __restrict__ step,
                                                 const float* __restrict__ normalisation, T* __restrict__ x) {
    __shared__ float table[NORMALISATION_LEN];
    make_normalisation_table(normalisation, table);
    __syncthreads();
    const int len = 3 * pixels;
    const size_t first = (size_t)max(*step, 0) * batch;
    for (int b = blockIdx.x; b < batch; b += gridDim.x) {
        const size_t image = min(first + b, (size_t)(count - 1));
        normalise(images + image * len, len, table, x + (size_t)b * len);
    }
}

#define NORMALISE_IMAGES(NAME, T)                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                         \
        NAME(int batch, int pixels, int count, const u8* images, const int* step, \
             const float* normalisation, T* x) {                                  \
        normalise_images(batch, pixels, count, images, step, normalisation, x);   \
    }

NORMALISE_IMAGES(normalise_images_bf16, bf16)
NORMALISE_IMAGES(normalise_images_f16, f16)
NORMALISE_IMAGES(normalise_images_f32, float)

// store [M, K] from row step B = rows [B, K], f32. The store holds `steps` times B rows; a step beyond them
// stores nothing.
// Launch: B K threads in blocks of 256. 8 B K bytes; rows have any length and alignment, so each thread
//   copies one value; a warp's addresses are contiguous.
extern "C" __global__ void store_rows(int len, int steps, const float* __restrict__ rows,
                                      const int* __restrict__ step, float* __restrict__ store) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int now = *step;
    if (i < len && now >= 0 && now < steps) store[(size_t)now * len + i] = rows[i];
}

// Mixes one row: to = weight own + (1 - weight) other. Four roundings in f32 (1 - weight, both products, the
// sum; never contracted), so f32 has the CPU's bits; bf16 is widened exactly and rounded once. The threads of
// all blocks with the same blockIdx.x share a row: grid.y parts of a row. Loads and stores of 128 bits where
// a row is a multiple of them.
template <typename T>
__device__ __forceinline__ void mix_rows(int len, float weight, const T* __restrict__ own,
                                         const T* __restrict__ other, T* __restrict__ to) {
    const int LEN = Vector<T>::LEN;
    const float rest = __fsub_rn(1.0f, weight);
    const int thread = blockIdx.y * blockDim.x + threadIdx.x, threads = gridDim.y * blockDim.x;
    if (len % LEN != 0) {
        for (int i = thread; i < len; i += threads) {
            to[i] = from_float<T>(
                __fadd_rn(__fmul_rn(weight, to_float(own[i])), __fmul_rn(rest, to_float(other[i]))));
        }
        return;
    }
    for (int i = thread * LEN; i < len; i += threads * LEN) {
        float a[LEN], b[LEN];
        Vector<T>::load(own + i, a);
        Vector<T>::load(other + i, b);
#pragma unroll
        for (int j = 0; j < LEN; ++j) a[j] = __fadd_rn(__fmul_rn(weight, a[j]), __fmul_rn(rest, b[j]));
        Vector<T>::store(to + i, a);
    }
}

// out [R, len]: row r of a group of B becomes w x_r + (1 - w) x_p, where `permutations` i32 [steps, B] names
// the row p of its group and weights f32 [steps] holds w, both at the step. x [R, len]; or, with `index` i32
// [B] and R = B, rows of x [N, len]: row r is then index[r]. Four roundings in f32 (1 - w, both products, the
// sum; never contracted), so f32 has the CPU's bits; bf16 is read as it is and rounded once.
// Launch: grid (R, parts of a row), 32 to 256 threads. Row r is read for itself and for the row that it is
// mixed into: R len values read twice, the second time from L2 where they fit, and written once. Loads and
// stores of 128 bits where a row is a multiple of them.
template <typename T>
__device__ __forceinline__ void mixup(int batch, int len, int steps, const float* __restrict__ weights,
                                      const int* __restrict__ permutations, const int* __restrict__ step,
                                      const int* __restrict__ index, const T* __restrict__ x,
                                      T* __restrict__ out) {
    const int now = bounded_step(step, steps);
    const float weight = weights[now];
    const int row = blockIdx.x, group = row / batch * batch;
    int self = row, partner = group + permutations[now * batch + row - group];
    if (index != nullptr) {
        self = index[self];
        partner = index[partner];
    }
    mix_rows(len, weight, x + (size_t)self * len, x + (size_t)partner * len, out + (size_t)row * len);
}

#define MIXUP(NAME, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                   \
        NAME(int batch, int len, int steps, const float* weights, const int* permutations, const int* step, \
             const int* index, const T* x, T* out) {                                                        \
        mixup(batch, len, steps, weights, permutations, step, index, x, out);                               \
    }

MIXUP(mixup_bf16, bf16)
MIXUP(mixup_f16, f16)
MIXUP(mixup_f32, float)

// out [B, len]: row i < count becomes w x_r + (1 - w) x_p, r = rows[i], p = partners[i], both i32 [B]; the
// other rows are 0. w = weights f32 [steps] at the step; count i32 [1]; x [B, len]. Launch as mixup's with R
// = B. 2 n len values read, the rows of partners from L2 where they fit, and B len written.
template <typename T>
__device__ __forceinline__ void mixup_chosen(int len, int steps, const float* __restrict__ weights,
                                             const int* __restrict__ step, const int* __restrict__ rows,
                                             const int* __restrict__ partners, const int* __restrict__ count,
                                             const T* __restrict__ x, T* __restrict__ out) {
    const int i = blockIdx.x;
    T* to = out + (size_t)i * len;
    if (i < *count) {
        const T* own = x + (size_t)rows[i] * len;
        mix_rows(len, weights[bounded_step(step, steps)], own, x + (size_t)partners[i] * len, to);
        return;
    }
    const int threads = gridDim.y * blockDim.x;
    for (int j = blockIdx.y * blockDim.x + threadIdx.x; j < len; j += threads) to[j] = from_float<T>(0.0f);
}

#define MIXUP_CHOSEN(NAME, T)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                \
        NAME(int len, int steps, const float* weights, const int* step, const int* rows, \
             const int* partners, const int* count, const T* x, T* out) {                \
        mixup_chosen(len, steps, weights, step, rows, partners, count, x, out);          \
    }

MIXUP_CHOSEN(mixup_chosen_bf16, bf16)
MIXUP_CHOSEN(mixup_chosen_f16, f16)
MIXUP_CHOSEN(mixup_chosen_f32, float)
