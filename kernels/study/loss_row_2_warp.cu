// The loss of a row, rung 2 of 3: one warp per row.
//
//   p = softmax(z);   loss -sum_k c_k ln p_k;   dz_k = (p_k sum_j c_j - c_k) / rows;
//   disambiguation c_k <- p_k / (sum of p_j where c_j > 0) where c_k > 0
//
// as in rung 1, which explains it. logits z, confidence c and d_logits f32 [rows, classes], loss_rows f32
// [rows].
//
// What this rung changes: the 32 lanes of a warp share a row, lane l takes classes l, l + 32, ...
//
//              class  0    1    2   ...  31                one load of a warp: 128 bytes in a row, 4 sectors,
//                   [ l0 ][ l1 ][ l2 ] ... [ l31 ]         all of it used
//
// Each lane then has the maximum and the sums of its own classes. Merging the 32 lanes needs no memory: a
// shuffle gives a lane the register of another lane. In each of five steps every lane adds the value of the
// lane at a distance of 16, 8, 4, 2, 1, and at the end all of them have the whole sum:
//
//   lanes        0   1   2   3   4   5   6   7      (eight of them)
//   distance 4   0+4 1+5 2+6 3+7 4+0 5+1 6+2 7+3
//   distance 2   0+4+2+6 ...
//   distance 1   0+4+2+6+1+5+3+7 ...                everywhere
//
// Launch: blocks of 128 threads, one row per warp: ceil(rows / 4) of them, for both kernels, the loss first.
//
// What limits it: the number of memory accesses. Every pass reads the row again, z six times and c five times
// in total. A row stays in the cache between the passes of one launch, but the second launch reads it from
// DRAM again.

__device__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

#define MINUS_INFINITY __int_as_float(0xff800000)

extern "C" __global__ void __launch_bounds__(128)
    loss_2_warp(const float* logits, const float* confidence, float* d_logits, float* loss_rows, int rows,
                int classes) {
    const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;  // whole warps, so that no shuffle misses a lane
    const float* z = logits + row * classes;
    const float* c = confidence + row * classes;

    float most = MINUS_INFINITY;
    for (int k = lane; k < classes; k += 32) most = fmaxf(most, z[k]);
    most = warp_max(most);

    float sum = 0.0f, believed = 0.0f;
    for (int k = lane; k < classes; k += 32) {
        sum += expf(z[k] - most);
        believed += c[k];
    }
    sum = warp_sum(sum);
    believed = warp_sum(believed);

    const float log_sum = logf(sum);
    float loss = 0.0f;
    for (int k = lane; k < classes; k += 32) {
        loss -= c[k] * ((z[k] - most) - log_sum);
        d_logits[row * classes + k] = (expf(z[k] - most) / sum * believed - c[k]) / rows;
    }
    loss = warp_sum(loss);
    if (lane == 0) loss_rows[row] = loss;
}

extern "C" __global__ void __launch_bounds__(128)
    disambiguate_2_warp(const float* logits, float* confidence, int rows, int classes) {
    const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const float* z = logits + row * classes;
    float* c = confidence + row * classes;

    float most = MINUS_INFINITY;
    for (int k = lane; k < classes; k += 32)
        if (c[k] > 0.0f) most = fmaxf(most, z[k]);
    most = warp_max(most);

    float sum = 0.0f;
    for (int k = lane; k < classes; k += 32)
        if (c[k] > 0.0f) sum += expf(z[k] - most);
    sum = warp_sum(sum);

    for (int k = lane; k < classes; k += 32) c[k] = c[k] > 0.0f ? expf(z[k] - most) / sum : 0.0f;
}
