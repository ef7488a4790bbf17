// The fully connected layer and its gradients, f32.
//
//   Y = X W^T + b        dX = dY W        dW = dY^T X        db = sum over the rows of dY
//
// Tensors: X [R][D], parameters = [W [K][D]; b [K]], Y and dY [R][K], dX [R][D], d_parameters = [dW; db]. Any
//   R, D and K; only the buffers' starts are aligned, so each lane reads four bytes, a warp 32 neighbours.
// Launch: all three products have the form C [m][n] = sum_k A [m][k] B [k][n], in tiles of 32 x 32. A block
//   of 256 threads keeps 32 k of A and B in shared memory while the next 32 are loaded into registers; a
//   thread sums 2 x 2 elements. db is an extra column of dW: the product of dY^T with a column of ones.
//   Shared memory 2 x 32 x 34 floats = 8.5 KB; below 50 registers per thread, so five blocks per
//   multiprocessor. A pitch of 34 keeps pairs 8-byte aligned, and transposing stores have two-way instead of
//   32-way bank conflicts.
// Cost: 2 R D K FLOPs each; traffic from L2: each operand once for every 32 lines of the other. Forward of
//   512 x 512 x 100: 64 blocks, 52 MFLOP, 1.5 MB at least and 7.5 MB from L2, small compared with a
//   convolution, so tensor cores, which would lose precision, are not used.
// Deterministic: one thread sums an element over k in order; if dW's rows are split over blockIdx.z,
//   linear_sum adds the parts in order.
#include "common.cuh"

// Rows and columns of a tile.
constexpr int TILE = 32;
// Threads per block.
constexpr int THREADS = 256;
// Distance in floats between rows of a tile in shared memory.
constexpr int PITCH = TILE + 2;
// Elements of a shared tile that each thread loads.
constexpr int SHARE = TILE * TILE / THREADS;

// A matrix [rows][columns] as an operand, element (i, k) at i * along + k or, transposed, at k * along + i.
template <bool TRANSPOSED, bool ONES> struct Operand {
    const float* values;
    // Distance in elements between rows in memory.
    int along;
    // Extent of i; with ONES, i = size is a line of ones.
    int size;

    __device__ __forceinline__ float at(int i, int k, int k_end) const {
        if (k >= k_end) return 0.0f;
        if (i < size) return TRANSPOSED ? values[(size_t)k * along + i] : values[(size_t)i * along + k];
        return ONES && i == size ? 1.0f : 0.0f;
    }

    // Loads a thread's share of the tile of lines i0.. and k0..; lanes run along memory.
    __device__ __forceinline__ void load(int i0, int k0, int k_end, float (&share)[SHARE]) const {
        const int lane = threadIdx.x % TILE;
#pragma unroll
        for (int j = 0; j < SHARE; ++j) {
            const int other = threadIdx.x / TILE + j * (THREADS / TILE);
            share[j] = TRANSPOSED ? at(i0 + lane, k0 + other, k_end) : at(i0 + other, k0 + lane, k_end);
        }
    }

    static __device__ __forceinline__ void store(const float (&share)[SHARE], float (*tile)[PITCH]) {
        const int lane = threadIdx.x % TILE;
#pragma unroll
        for (int j = 0; j < SHARE; ++j) {
            const int other = threadIdx.x / TILE + j * (THREADS / TILE);
            if (TRANSPOSED)
                tile[other][lane] = share[j];
            else
                tile[lane][other] = share[j];
        }
    }
};

// Computes two rows and two columns of sums over k_begin..k_end: rows m0 + 2 (thread / 16) and the next,
// columns likewise from thread % 16.
template <typename A, typename B>
__device__ __forceinline__ void product(const A& a, const B& b, int m0, int n0, int k_begin, int k_end,
                                        float (&sums)[2][2]) {
    __shared__ __align__(16) float a_tile[TILE][PITCH];
    __shared__ __align__(16) float b_tile[TILE][PITCH];
    const int row = threadIdx.x / 16 * 2, column = threadIdx.x % 16 * 2;
    float a_next[SHARE], b_next[SHARE];
    a.load(m0, k_begin, k_end, a_next);
    b.load(n0, k_begin, k_end, b_next);
    for (int k0 = k_begin; k0 < k_end; k0 += TILE) {
        A::store(a_next, a_tile);
        B::store(b_next, b_tile);
        __syncthreads();
        // Past the end the loads give zeros without touching memory.
        a.load(m0, k0 + TILE, k_end, a_next);
        b.load(n0, k0 + TILE, k_end, b_next);
#pragma unroll
        for (int k = 0; k < TILE; ++k) {
            const float2 left = *reinterpret_cast<const float2*>(&a_tile[k][row]);
            const float2 right = *reinterpret_cast<const float2*>(&b_tile[k][column]);
            sums[0][0] += left.x * right.x;
            sums[0][1] += left.x * right.y;
            sums[1][0] += left.y * right.x;
            sums[1][1] += left.y * right.y;
        }
        __syncthreads();
    }
}

// Y = X W^T + b. Grid: ceil(K / 32) x ceil(R / 32).
extern "C" __global__ void __launch_bounds__(THREADS)
    linear(int rows, int inputs, int outputs, const float* __restrict__ x,
           const float* __restrict__ parameters, float* __restrict__ y) {
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const Operand<false, false> a = {x, inputs, rows}, b = {parameters, inputs, outputs};
    float sums[2][2] = {};
    product(a, b, m0, n0, 0, inputs, sums);
    const float* bias = parameters + (size_t)outputs * inputs;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = m0 + threadIdx.x / 16 * 2 + i / 2, column = n0 + threadIdx.x % 16 * 2 + i % 2;
        if (row < rows && column < outputs)
            y[(size_t)row * outputs + column] = sums[i / 2][i % 2] + bias[column];
    }
}

// dX = dY W. Grid: ceil(D / 32) x ceil(R / 32).
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_input_gradient(int rows, int inputs, int outputs, const float* __restrict__ dy,
                          const float* __restrict__ parameters, float* __restrict__ dx) {
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const Operand<false, false> a = {dy, outputs, rows};
    const Operand<true, false> b = {parameters, inputs, inputs};
    float sums[2][2] = {};
    product(a, b, m0, n0, 0, outputs, sums);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = m0 + threadIdx.x / 16 * 2 + i / 2, column = n0 + threadIdx.x % 16 * 2 + i % 2;
        if (row < rows && column < inputs) dx[(size_t)row * inputs + column] = sums[i / 2][i % 2];
    }
}

// [dW; db] over rows z * part_rows..; part z is stored at to + z (K D + K). Grid: ceil((D + 1) / 32) x ceil(K
// / 32) x parts.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_parameter_gradient(int rows, int inputs, int outputs, int part_rows, const float* __restrict__ x,
                              const float* __restrict__ dy, float* __restrict__ to) {
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const Operand<true, false> a = {dy, outputs, outputs};
    const Operand<true, true> b = {x, inputs, inputs};
    const int first = blockIdx.z * part_rows;
    float sums[2][2] = {};
    product(a, b, m0, n0, first, min(rows, first + part_rows), sums);
    float* part = to + (size_t)blockIdx.z * outputs * (inputs + 1);
    float* bias = part + (size_t)outputs * inputs;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = m0 + threadIdx.x / 16 * 2 + i / 2, column = n0 + threadIdx.x % 16 * 2 + i % 2;
        if (row < outputs && column < inputs) part[(size_t)row * inputs + column] = sums[i / 2][i % 2];
        if (row < outputs && column == inputs) bias[row] = sums[i / 2][i % 2];
    }
}

// to [len] = sum over the parts of partials [parts][len], in order. Grid: ceil(len / 256); block: 256.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_sum(int len, int parts, const float* __restrict__ partials, float* __restrict__ to) {
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (index >= len) return;
    float sum = 0.0f;
#pragma unroll 4
    for (int part = 0; part < parts; ++part) sum += partials[(size_t)part * len + index];
    to[index] = sum;
}
