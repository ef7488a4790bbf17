// The loss of a row, rung 1 of 3: one thread per row.
//
// A network computes logits z of `classes` classes for a sample. Which class is right is not known; a
// confidence row c says how likely each is. With p = softmax(z), that is p_k = exp(z_k) / sum_j exp(z_j):
//
//   loss             -sum over k of c_k ln p_k
//   gradient         dz_k = (p_k * sum_j c_j  -  c_k) / rows          of the mean over all rows
//   disambiguation   c_k <- p_k / (sum of p_j over the classes with c_j > 0)   where c_k > 0, else 0
//
// Disambiguation sharpens the confidence row with what the network has learnt (PRODEN, Lv et al., ICML 2020).
// logits, confidence and d_logits f32 [rows, classes], loss_rows f32 [rows]. Every row has a class with c >
// 0.
//
// exp(z) overflows from about z = 89 on, so the row's largest logit m is subtracted first:
//
//   p_k = exp(z_k - m) / sum_j exp(z_j - m)    is the same, and    ln p_k = (z_k - m) - ln(that sum)
//
// This rung is the formula: one thread makes three passes over its row (the maximum, the sum, the results),
// and a second launch makes three more for the disambiguation.
//
// Launch: blocks of 128 threads, ceil(rows / 128) of them, for both kernels. The loss comes first, because
// the disambiguation overwrites c.
//
// What limits it: the pattern of memory accesses. At any moment the 32 threads of a warp read the same class
// of 32 rows. These values lie `classes` numbers apart, in 32 different sectors of 32 bytes, of which 4 bytes
// each are used:
//
//              class  0    1    2    3   ...
//   thread 0        [ z ][    ][    ][    ]          one load of a warp: 32 sectors
//   thread 1        [ z ][    ][    ][    ]
//   ...
//   thread 31       [ z ][    ][    ][    ]
//
// Besides, a batch of a few hundred rows has only a few hundred threads, and a GPU has room for a hundred
// thousand.

extern "C" __global__ void __launch_bounds__(128)
    loss_1_thread(const float* logits, const float* confidence, float* d_logits, float* loss_rows, int rows,
                  int classes) {
    const int row = blockIdx.x * 128 + threadIdx.x;
    if (row >= rows) return;
    const float* z = logits + row * classes;
    const float* c = confidence + row * classes;

    float most = z[0];
    for (int k = 1; k < classes; ++k) most = fmaxf(most, z[k]);

    float sum = 0.0f, believed = 0.0f;
    for (int k = 0; k < classes; ++k) {
        sum += expf(z[k] - most);
        believed += c[k];
    }

    const float log_sum = logf(sum);
    float loss = 0.0f;
    for (int k = 0; k < classes; ++k) {
        loss -= c[k] * ((z[k] - most) - log_sum);
        d_logits[row * classes + k] = (expf(z[k] - most) / sum * believed - c[k]) / rows;
    }
    loss_rows[row] = loss;
}

// Disambiguation is a softmax over the classes with c > 0; with the largest logit among them subtracted, no
// sum is 0.
extern "C" __global__ void __launch_bounds__(128)
    disambiguate_1_thread(const float* logits, float* confidence, int rows, int classes) {
    const int row = blockIdx.x * 128 + threadIdx.x;
    if (row >= rows) return;
    const float* z = logits + row * classes;
    float* c = confidence + row * classes;

    float most = __int_as_float(0xff800000);  // minus infinity
    for (int k = 0; k < classes; ++k)
        if (c[k] > 0.0f) most = fmaxf(most, z[k]);

    float sum = 0.0f;
    for (int k = 0; k < classes; ++k)
        if (c[k] > 0.0f) sum += expf(z[k] - most);

    for (int k = 0; k < classes; ++k) c[k] = c[k] > 0.0f ? expf(z[k] - most) / sum : 0.0f;
}
