// The convolution, rung 4 of 4: no bank conflicts, and copies in flight while the tensor cores work.
//
//   y[p, n] = sum over k of X[p, k] * W[n, k],     k = (tap r, s; channel c), 9 * in_channels of them
//
// as in rungs 2 and 3: X has a row for each pixel and is never stored. x [images, height, width,
// in_channels], weights [out_channels, 3, 3, in_channels], y [pixels, out_channels], all bf16; channels are
// multiples of 8.
//
// This rung changes four things:
//
// 1. Swizzle. A tile's row is 8 chunks of 16 bytes. Chunk q of row p is stored at place q ^ (p % 8) of the
//    row. Then the same chunk of eight rows is in eight different places, which together are all 32 banks:
//
//      place      0   1   2   3   4   5   6   7        the number is the chunk q that lies there;
//      row 0      0   1   2   3   4   5   6   7        a place is four banks
//      row 1      1   0   3   2   5   4   7   6
//      row 2      2   3   0   1   6   7   4   5        chunk 0 of rows 0..7: places 0, 1, 2, ... 7
//      row 3      3   2   1   0   7   6   5   4
//      row 4      4   5   6   7   0   1   2   3
//      ...
//
// 2. ldmatrix. One instruction reads four 8 x 8 matrices, with row addresses supplied by the 32 lanes, and
//    distributes them over the warp as mma needs them: a whole A, or two B's. Rung 3 needed four reads for
//    that.
//
// 3. cp.async. Sixteen bytes are copied from global to shared memory without passing through registers, and
//    the thread does not wait. So there are STAGES tiles: while one is multiplied, those of the next two
//    steps are being filled.
//
//      step        0       1       2       3
//      stage 0   multiply  fill 3 ......  multiply          "fill 3": copies for step 3 are started,
//      stage 1   ........ multiply fill 4 ......            and have two steps' time to arrive
//      stage 2   fill 2 ......... multiply fill 5
//
// 4. A larger tile, 128 pixels by 64 channels, 32 x 64 for each of the four warps. Loaded into shared memory
//    once, a number of W now serves 128 sums; read into registers once, an A serves 8 products and a B
//    serves 2.
//
// Launch: blocks of 128 threads, ceil(pixels / 128) * ceil(out_channels / 64) of them, with 72 KB of dynamic
// shared memory each.
//
// What limits it: the tensor cores. All that is left is to avoid multiplications by padding: in_channels are
// padded with zeros to a multiple of 64, and so are tiles at the end. The engine's kernel
// (convolution_forward.cu) has tiles of several sizes for that, steps of 32 k's, and computes the statistics
// for the layer that follows.

struct bf16 {
    unsigned short bits;
};

#define STAGES 3
#define ROW_BYTES 128              // 64 k's
#define X_BYTES (128 * ROW_BYTES)  // 128 pixels
#define W_BYTES (64 * ROW_BYTES)   // 64 output channels

// Offset of a chunk in bytes from the tile's start.
__device__ __forceinline__ int swizzled(int row, int chunk) {
    return row * ROW_BYTES + (chunk ^ row % 8) * 16;
}

// Starts a copy of 16 bytes; if not `inside`, zeros are written and `from` is not read.
__device__ __forceinline__ void copy_async(unsigned to, const bf16* from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void load_matrices(unsigned address, unsigned (&to)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two f32 rounded, `low` in the lower half.
__device__ unsigned pack(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

extern "C" __global__ void __launch_bounds__(128)
    convolution_4_pipelined(const bf16* x, const bf16* weights, bf16* y, int images, int height, int width,
                            int in_channels, int out_channels) {
    extern __shared__ __align__(128) unsigned char shared[];
    const unsigned stages = (unsigned)__cvta_generic_to_shared(shared);
    const int pixels = images * height * width, tiles = (out_channels + 63) / 64;
    const int first_pixel = blockIdx.x / tiles * 128, first_n = blockIdx.x % tiles * 64;

    // This thread copies chunk `chunk` of rows line, line + 16, ... Which of a pixel's nine taps lie inside
    // the image is determined once, one bit each, so that no step divides.
    const int line = threadIdx.x / 8, chunk = threadIdx.x % 8;
    unsigned taps_inside[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int pixel = first_pixel + line + 16 * i, w = pixel % width, h = pixel / width % height;
        taps_inside[i] = 0;
        for (int tap = 0; tap < 9 && pixel < pixels; ++tap) {
            const int row = h + tap / 3 - 1, column = w + tap % 3 - 1;
            if (0 <= row && row < height && 0 <= column && column < width) taps_inside[i] |= 1u << tap;
        }
    }

    // Starts the copies of a step: one tap, 64 channels.
    const int steps = (in_channels + 63) / 64 * 9;
    auto fill = [&](int step) {
        const int tap = step % 9, c = step / 9 * 64 + chunk * 8;
        const int moved = (tap / 3 - 1) * width + tap % 3 - 1;
        const unsigned x_tile = stages + step % STAGES * (X_BYTES + W_BYTES), w_tile = x_tile + X_BYTES;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int row = line + 16 * i, pixel = first_pixel + row + moved;
            const bool inside = (taps_inside[i] >> tap & 1) != 0 && c < in_channels;
            copy_async(x_tile + swizzled(row, chunk), x + (inside ? pixel * in_channels + c : 0), inside);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = line + 16 * i, n = first_n + row;
            const bool inside = n < out_channels && c < in_channels;
            copy_async(w_tile + swizzled(row, chunk),
                       weights + (inside ? (n * 9 + tap) * in_channels + c : 0), inside);
        }
    };

    // It multiplies its warp's 32 pixels. Lane l supplies ldmatrix with the address of row l % 8 of matrix l
    // / 8. The matrices of an A are (upper, lower) rows of the left k's, then of the right; those of two B's
    // are (left, right) k's of the first eight n, then of the next.
    const int lane = threadIdx.x % 32, warp_p = threadIdx.x / 32 * 32;
    const int a_row = warp_p + lane % 16, a_chunk = lane / 16;
    const int b_row = lane / 16 * 8 + lane % 8, b_chunk = lane / 8 % 2;

    float c[2][8][4] = {};
    for (int step = 0; step < STAGES - 1; ++step) {
        if (step < steps) fill(step);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    for (int step = 0; step < steps; ++step) {
        // All copies except those of the newest step have arrived: first this thread's, then, after the
        // barrier, everyone's. After the barrier everyone has also multiplied the previous step, whose stage
        // is now refilled.
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        if (step + STAGES - 1 < steps) fill(step + STAGES - 1);
        asm volatile("cp.async.commit_group;" ::: "memory");  // a group for each step, even an empty one

        const unsigned x_tile = stages + step % STAGES * (X_BYTES + W_BYTES), w_tile = x_tile + X_BYTES;
#pragma unroll
        for (int k = 0; k < 8; k += 2) {  // in chunks: sixteen k's
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) load_matrices(x_tile + swizzled(a_row + 16 * i, k + a_chunk), a[i]);
#pragma unroll
            for (int j = 0; j < 8; j += 2) {
                unsigned b[4];
                load_matrices(w_tile + swizzled(8 * j + b_row, k + b_chunk), b);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    multiply(c[i][j], a[i], b[0], b[1]);
                    multiply(c[i][j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int p = first_pixel + warp_p + 16 * i + 8 * half + g, n = first_n + 8 * j + 2 * t;
                if (p < pixels && n < out_channels)
                    *(unsigned*)(y + p * out_channels + n) = pack(c[i][j][2 * half], c[i][j][2 * half + 1]);
            }
}
