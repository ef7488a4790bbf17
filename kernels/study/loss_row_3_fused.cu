// The loss of a row, rung 3 of 3: one pass in registers, with the disambiguation in the same launch.
//
//   p = softmax(z);   loss -sum_k c_k ln p_k;   dz_k = (p_k sum_j c_j - c_k) / rows;
//   disambiguation c_k <- p_k / (sum of p_j where c_j > 0) where c_k > 0
//
// as in rung 1, which explains it. logits z, confidence c and d_logits f32 [rows, classes], loss_rows f32
// [rows]; at most 128 classes.
//
// What this rung changes: a warp still has a row and lane l classes l, l + 32, l + 64, l + 96, but it keeps
// them in registers. The five passes over memory become five loops over four registers, unrolled because
// registers cannot be indexed:
//
//   lane l    z[0] = class l     z[1] = class l + 32     z[2] = class l + 64     z[3] = class l + 96
//             c[0]               c[1]                    c[2]                    c[3]
//
// Elements behind the end of the row have no effect: z is minus infinity, whose exponential is 0, and c is 0.
// Disambiguation needs exactly what the loss has read, so both are one kernel; c is overwritten only after
// everything that reads it has been computed.
//
// Launch: blocks of 128 threads, one row per warp: ceil(rows / 4) of them.
//
// What limits it: DRAM, with the least possible traffic: z and c are read once, dz and c written once. More
// classes would need more registers (the engine's pair kernels exist for 32, 64, 128 and 256 classes) and
// eventually one block per row. On a large GPU a batch of a few hundred rows finishes before that limit
// matters; then the launch itself is the cost, which is another reason for having one launch instead of two.

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
#define EACH for (int i = 0; i < 4; ++i)

extern "C" __global__ void __launch_bounds__(128)
    loss_3_fused(const float* logits, float* confidence, float* d_logits, float* loss_rows, int rows,
                 int classes) {
    const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;

    float z[4], c[4];
#pragma unroll
    EACH {
        const int k = lane + 32 * i;
        z[i] = k < classes ? logits[row * classes + k] : MINUS_INFINITY;
        c[i] = k < classes ? confidence[row * classes + k] : 0.0f;
    }

    // The largest logit of all classes, and of those with c > 0.
    float most = MINUS_INFINITY, most_believed = MINUS_INFINITY;
#pragma unroll
    EACH {
        most = fmaxf(most, z[i]);
        if (c[i] > 0.0f) most_believed = fmaxf(most_believed, z[i]);
    }
    most = warp_max(most);
    most_believed = warp_max(most_believed);

    float p[4], updated[4], sum = 0.0f, sum_believed = 0.0f, believed = 0.0f;
#pragma unroll
    EACH {
        sum += p[i] = expf(z[i] - most);
        sum_believed += updated[i] = c[i] > 0.0f ? expf(z[i] - most_believed) : 0.0f;
        believed += c[i];
    }
    sum = warp_sum(sum);
    sum_believed = warp_sum(sum_believed);
    believed = warp_sum(believed);

    const float log_sum = logf(sum);
    float loss = 0.0f;
#pragma unroll
    EACH {
        const int k = lane + 32 * i;
        if (k >= classes) continue;
        loss -= c[i] * ((z[i] - most) - log_sum);
        d_logits[row * classes + k] = (p[i] / sum * believed - c[i]) / rows;
        confidence[row * classes + k] = updated[i] / sum_believed;
    }
    loss = warp_sum(loss);
    if (lane == 0) loss_rows[row] = loss;
}
