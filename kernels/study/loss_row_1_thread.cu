// The loss of a row, rung 1 of 3: a thread for each row.
//
// A network says logits z of `classes` classes about a sample; which class is right is not known, a confidence row c
// says how much each is believed. With p = softmax(z), that is p_k = exp(z_k) / sum_j exp(z_j):
//
//   loss       -sum over k of c_k ln p_k
//   gradient   dz_k = (p_k * sum_j c_j  -  c_k) / rows          of the mean over all rows
//   renewal    c_k <- p_k / (sum of p_j over the classes with c_j > 0)   where c_k > 0; the others stay 0
//
// The renewal is called disambiguation: what the network has learnt sharpens the beliefs for the next time (PRODEN, Lv
// et al., ICML 2020). logits, confidence and d_logits f32 [rows, classes], loss_rows f32 [rows]. Every row has a class
// with c > 0.
//
// exp(z) overflows from z = 89 on, so the row's largest logit m is taken off first:
//
//   p_k = exp(z_k - m) / sum_j exp(z_j - m)    is the same, and    ln p_k = (z_k - m) - ln(that sum)
//
// This rung is the formula: one thread goes through its row three times (the largest, the sum, the results), and in a
// second launch three times again for the renewal.
//
// Launch: blocks of 128 threads, ceil(rows / 128) of them, both kernels. The loss first: the renewal overwrites c.
//
// What limits it: memory, by the way it is asked. At any moment the 32 threads of a warp read the same class of 32
// rows. These lie `classes` numbers apart, in 32 different sectors of 32 bytes; 4 bytes of each are used:
//
//              class  0    1    2    3   ...
//   thread 0        [ z ][    ][    ][    ]          one load of a warp: 32 sectors
//   thread 1        [ z ][    ][    ][    ]
//   ...
//   thread 31       [ z ][    ][    ][    ]
//
// And a batch of a few hundred rows gives a few hundred threads; a GPU has room for a hundred thousand.

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

// The renewal is a softmax over the classes with c > 0 alone; with their own largest logit taken off, no sum is 0.
extern "C" __global__ void __launch_bounds__(128)
    renew_1_thread(const float* logits, float* confidence, int rows, int classes) {
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
