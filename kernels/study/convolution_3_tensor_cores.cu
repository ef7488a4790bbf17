// The convolution, rung 3 of 4: the multiplications on the tensor cores.
//
//   y[p, n] = sum over k of X[p, k] * W[n, k],     k = (tap r, s; channel c), 9 * in_channels of them
//
// as in rung 2: X has a row for each pixel and is never stored. x [images, height, width, in_channels],
// weights [out_channels, 3, 3, in_channels], y [pixels, out_channels], all bf16; channels are multiples of 8.
//
// What this rung changes: a tensor core multiplies whole matrices. One warp instruction, mma.m16n8k16, does
//
//   C (16 x 8, f32)  +=  A (16 x 16, bf16)  *  B (16 x 8, bf16)
//
// which are 2048 multiplications; an instruction of rung 2 did 32. The price: the numbers must lie in the
// warp's registers in a fixed pattern, the fragments. With g = lane / 4 and t = lane % 4:
//
//   A: row p, column k                      B: row k, column n            C: row p, column n
//            k = 2t, 2t+1   2t+8, 2t+9               n = g                         n = 2t, 2t+1
//   p = g    |   a[0]     |    a[2]    |    k = 2t, 2t+1  | b[0] |         p = g   |  c[0], c[1]  |
//   p = g+8  |   a[1]     |    a[3]    |    k = 2t+8, +9  | b[1] |         p = g+8 |  c[2], c[3]  |
//
// Each a and b is one register that holds two bf16, neighbours in k. In shared memory both tiles have k along
// the rows, so each a and b is one word there.
//
// A block's tile is 64 pixels by 64 channels as before, with 64 k's per step. Each of its four warps computes
// a quarter, 32 x 32, which is 2 x 4 pieces of C. For every 16 k's a warp reads 2 A's and 4 B's and
// multiplies each A with each B.
//
// Launch: blocks of 128 threads, ceil(pixels / 64) * ceil(out_channels / 64) of them.
//
// What limits it: shared memory again, but for another reason. A tile's row has 64 bf16 = 128 bytes, which is
// all 32 banks once. So a column lies in the same bank in every row, and a fragment needs eight rows at once:
//
//             bank  0     1     2     3    4 ...
//   g = 0         [t=0] [t=1] [t=2] [t=3]            eight words from each of four banks: eight passes
//   g = 1         [t=0] [t=1] [t=2] [t=3]            where one would do, 28 banks idle
//   ...
//   g = 7         [t=0] [t=1] [t=2] [t=3]

struct bf16 {
    unsigned short bits;
};

// Two f32 rounded, `low` in the lower half.
__device__ unsigned pack(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

extern "C" __global__ void __launch_bounds__(128)
    convolution_3_tensor_cores(const bf16* x, const bf16* weights, bf16* y, int images, int height, int width,
                               int in_channels, int out_channels) {
    // Words of two bf16: 64 rows of 64 k's.
    __shared__ __align__(16) unsigned x_tile[64][32], w_tile[64][32];
    const int pixels = images * height * width, tiles = (out_channels + 63) / 64;
    const int first_pixel = blockIdx.x / tiles * 64, first_n = blockIdx.x % tiles * 64;

    // This thread copies sixteen bytes, eight channels, of rows line, line + 16, ... of both tiles.
    const int line = threadIdx.x / 8, chunk = threadIdx.x % 8;
    // It multiplies its warp's quarter; g and t are its place in the fragments.
    const int warp = threadIdx.x / 32, warp_p = warp / 2 * 32, warp_n = warp % 2 * 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

    float c[2][4][4] = {};
    for (int channel = 0; channel < in_channels; channel += 64) {
        for (int tap = 0; tap < 9; ++tap) {
            const int r = tap / 3, s = tap % 3, from = channel + chunk * 8;
            __syncthreads();  // everyone has read the tiles of the previous step
#pragma unroll
            for (int i = 0; i < 64; i += 16) {
                const int pixel = first_pixel + line + i, n = first_n + line + i;
                const int column = pixel % width + s - 1, row = pixel / width % height + r - 1;
                const bool inside =
                    pixel < pixels && 0 <= row && row < height && 0 <= column && column < width;
                uint4 of_x = make_uint4(0, 0, 0, 0), of_w = of_x;
                if (inside && from < in_channels)
                    of_x = *(const uint4*)(x + (pixel + (r - 1) * width + (s - 1)) * in_channels + from);
                if (n < out_channels && from < in_channels)
                    of_w = *(const uint4*)(weights + (n * 9 + tap) * in_channels + from);
                *(uint4*)&x_tile[line + i][chunk * 4] = of_x;
                *(uint4*)&w_tile[line + i][chunk * 4] = of_w;
            }
            __syncthreads();  // the tiles are full
#pragma unroll
            for (int k = 0; k < 32; k += 8) {  // in words: sixteen k's
                unsigned a[2][4], b[4][2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int p = warp_p + 16 * i + g;
                    a[i][0] = x_tile[p][k + t], a[i][1] = x_tile[p + 8][k + t];
                    a[i][2] = x_tile[p][k + t + 4], a[i][3] = x_tile[p + 8][k + t + 4];
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int n = warp_n + 8 * j + g;
                    b[j][0] = w_tile[n][k + t], b[j][1] = w_tile[n][k + t + 4];
                }
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) multiply(c[i][j], a[i], b[j]);
            }
        }
    }

    // Each lane stores its values of C: two neighbouring channels of two pixels of each piece.
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int p = first_pixel + warp_p + 16 * i + 8 * half + g,
                          n = first_n + warp_n + 8 * j + 2 * t;
                if (p < pixels && n < out_channels)
                    *(unsigned*)(y + p * out_channels + n) = pack(c[i][j][2 * half], c[i][j][2 * half + 1]);
            }
}
