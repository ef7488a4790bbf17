// The convolution, rung 2 of 4: tiles in shared memory.
//
//   y[p, n] = sum over k of X[p, k] * W[n, k],     k = (tap r, s; channel c), 9 * in_channels of them
//
// The formula of rung 1, read as a product of two matrices: X has a row for each pixel p of all images, with
// the channels of its nine neighbours side by side. X is never stored; pixel and tap determine where in x
// each of its numbers lies. x [images, height, width, in_channels], weights [out_channels, 3, 3,
// in_channels], y [pixels, out_channels], all bf16; in_channels is a multiple of 8.
//
// What this rung changes: 256 threads work together on a tile of 64 pixels by 64 output channels. In steps of
// 16 k's they copy what the tile needs into shared memory, each number once, and then all of them read it
// there.
//
//                    64 channels n               A number of X serves 64 sums, one of W serves 64 sums:
//                  +---------------+             64 times less is asked of memory than before.
//      16 k's -->  |    w_tile     |
//          +----+  +---------------+             And each thread keeps 4 x 4 sums in registers: for each k
//          |    |  |               |             it reads 4 + 4 numbers from shared memory and does 16
//    64    | x_ |  |   64 x 64     |             multiplications with them, not 2 for 1.
//  pixels  |tile|  |   sums of y   |
//    p     |    |  |               |
//          +----+  +---------------+
//
// The sums of thread (tx, ty) are pixels ty, ty + 16, ... and channels tx, tx + 16, ..., so the 16 threads
// with the same ty read 16 neighbouring words of w_tile and one common word of x_tile. Shared memory has 32
// banks, each one word (4 bytes) wide, with word i in bank i % 32; a warp's read takes one pass unless a bank
// must supply two different words. The tiles' rows have 66 words instead of 64: when the tiles are filled, a
// warp writes 8 neighbours of 4 rows that are 4 k's apart. With a pitch of 64 words all four rows would start
// in the same bank; with 66 each starts 8 banks further.
//
// Launch: blocks of 256 threads, ceil(pixels / 64) * ceil(out_channels / 64) of them.
//
// What limits it: shared memory. 8 reads for 16 multiplications is still one for two, and in one cycle a
// multiprocessor multiplies for four warps but reads shared memory for one.

struct bf16 {
    unsigned short bits;
};

__device__ bf16 to_bf16(float value) {
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}

// Writes four bf16, packed as in memory, into four rows of a tile as f32.
__device__ void put(float (*tile)[66], int row, int column, uint2 four) {
    tile[row][column] = __uint_as_float(four.x << 16);
    tile[row + 1][column] = __uint_as_float(four.x & 0xffff0000u);
    tile[row + 2][column] = __uint_as_float(four.y << 16);
    tile[row + 3][column] = __uint_as_float(four.y & 0xffff0000u);
}

extern "C" __global__ void __launch_bounds__(256)
    convolution_2_shared(const bf16* x, const bf16* weights, bf16* y, int images, int height, int width,
                         int in_channels, int out_channels) {
    __shared__ float x_tile[16][66], w_tile[16][66];
    const int pixels = images * height * width, tiles = (out_channels + 63) / 64;
    const int first_pixel = blockIdx.x / tiles * 64, first_n = blockIdx.x % tiles * 64;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;

    // What this thread copies: four channels of one pixel, and of one output channel's weights.
    const int line = threadIdx.x / 4, quarter = threadIdx.x % 4 * 4;
    const int pixel = first_pixel + line, n = first_n + line;
    const int w = pixel % width, h = pixel / width % height;

    float sum[4][4] = {};
    for (int channel = 0; channel < in_channels; channel += 16) {
        for (int tap = 0; tap < 9; ++tap) {
            const int r = tap / 3, s = tap % 3, c = channel + quarter;
            const int row = h + r - 1, column = w + s - 1;
            const bool inside = pixel < pixels && 0 <= row && row < height && 0 <= column && column < width;
            uint2 of_x = make_uint2(0, 0), of_w = make_uint2(0, 0);
            if (inside && c < in_channels)
                of_x = *(const uint2*)(x + (pixel + (r - 1) * width + (s - 1)) * in_channels + c);
            if (n < out_channels && c < in_channels)
                of_w = *(const uint2*)(weights + (n * 9 + tap) * in_channels + c);

            __syncthreads();  // everyone has read the tiles of the previous step
            put(x_tile, quarter, line, of_x);
            put(w_tile, quarter, line, of_w);
            __syncthreads();  // the tiles are full
#pragma unroll
            for (int k = 0; k < 16; ++k) {
                float a[4], b[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) a[i] = x_tile[k][ty + 16 * i], b[i] = w_tile[k][tx + 16 * i];
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) sum[i][j] += a[i] * b[j];
            }
        }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int p = first_pixel + ty + 16 * i;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int m = first_n + tx + 16 * j;
            if (p < pixels && m < out_channels) y[p * out_channels + m] = to_bf16(sum[i][j]);
        }
    }
}
