// What a batch that is divided between several GPUs needs beside their exchanges: a GPU's own rows, the rows
// of all in their places, and sums in the order of the ranks.
//
// A batch of `count` rows is cut into neighbours: GPU r of R has rows b_r = ceil(r count / R) to b_(r+1) - 1
// of every group, and row j is that of GPU floor(j R / count).
//
// Cost: copies and one addition a value, bound by memory: each byte is moved once.
// Source: a sum over GPUs is a reduce-scatter and an all-gather (Rabenseifner, 2004), the sum in a fixed order.
// Deterministic: sums are taken in the order of the ranks, whatever arrives first.
#include "common.cuh"

// Threads per block.
constexpr int THREADS = 256;

// out [G, b, W] = rows `first` to first + b - 1 of each group of x [G, count, W], in words of 32 bits; b is
// `rows`.
// Launch: G b W threads in blocks of 256; a warp's addresses are contiguous within a group. 8 G b W bytes.
extern "C" __global__ void __launch_bounds__(THREADS)
    own_rows(int groups, int count, int first, int rows, int words, const u32* __restrict__ x,
             u32* __restrict__ out) {
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t len = (size_t)rows * words;
    if (i >= groups * len) return;
    const size_t group = i / len;
    out[i] = x[((group * count) + first) * words + (i - group * len)];
}

// out [1] = how many of the rows `first` to first + rows - 1 are among the first count[0], i32. One thread.
extern "C" __global__ void own_count(int first, int rows, const int* __restrict__ count,
                                     int* __restrict__ out) {
    *out = min(max(*count - first, 0), rows);
}

// out [G, count, L] f32 = the rows that R GPUs have sent, those of each [G, b_r, L], one GPU's after the
// other's in `gathered`.
// Launch: G count L threads in blocks of 256; a warp's addresses are contiguous but where it crosses from one
//   GPU's rows to another's. 8 G count L bytes.
extern "C" __global__ void __launch_bounds__(THREADS)
    place_rows(int groups, int count, int len, int ranks, const float* __restrict__ gathered,
               float* __restrict__ out) {
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (size_t)groups * count * len) return;
    const size_t all = i / len, group = all / count, row = all - group * count;
    const size_t rank = row * ranks / count;
    const size_t begin = (rank * count + ranks - 1) / ranks;
    const size_t end = ((rank + 1) * count + ranks - 1) / ranks;
    const size_t from = groups * begin + group * (end - begin) + (row - begin);
    out[i] = gathered[from * len + (i - all * len)];
}

// values [L] f32 = the sum over R GPUs, in the order of their ranks, of this GPU's values, as number `rank`,
// and of those of the others in `received` [R, stride], where this GPU's own place is not read.
// Launch: L threads in blocks of 256. 4 L (R + 1) bytes, L (R - 1) FLOPs.
extern "C" __global__ void __launch_bounds__(THREADS)
    add_parts(int len, int stride, int rank, int ranks, const float* __restrict__ received,
              float* __restrict__ values) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= len) return;
    const float own = values[i];
    float sum = rank == 0 ? own : received[i];
    for (int r = 1; r < ranks; ++r) sum += r == rank ? own : received[(size_t)r * stride + i];
    values[i] = sum;
}
