// The convolution, rung 1 of 4: one thread per value.
//
//   y[i, h, w, n] = sum over taps r, s = 0, 1, 2 and channels c of
//                   x[i, h + r - 1, w + s - 1, c] * weights[n, r, s, c],        x = 0 outside the image
//
// x [images, height, width, in_channels], weights [out_channels, 3, 3, in_channels], y [images, height,
// width, out_channels], all bf16. Products are summed in f32 and rounded once, at the end.
//
// This rung is the formula. Nothing is shared: a thread's neighbours read half of the 2 * 9 * in_channels
// numbers that it reads as well, and each requests them from memory again.
//
// Launch: blocks of 256 threads, enough for images * height * width * out_channels of them.
//
// What limits it: the pattern of memory accesses. A warp's 32 threads have the same pixel and 32 neighbouring
// n. They need one number of x, which is one request for all; but their weights lie 9 * in_channels numbers
// apart, in 32 different sectors of 32 bytes, each of which supplies 2 bytes:
//
//   thread 0   [w.............................]      one load of a warp: 32 sectors, 1024 bytes moved,
//   thread 1   [w.............................]      64 bytes used
//   ...
//   thread 31  [w.............................]
//
// A cache reduces the traffic to memory (the next 15 channels lie in the same sectors), but not the requests.

struct bf16 {
    unsigned short bits;  // the upper half of an f32
};

__device__ float to_float(bf16 value) { return __uint_as_float((unsigned)value.bits << 16); }

__device__ bf16 to_bf16(float value) {
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}

extern "C" __global__ void __launch_bounds__(256)
    convolution_1_naive(const bf16* x, const bf16* weights, bf16* y, int images, int height, int width,
                        int in_channels, int out_channels) {
    const int value = blockIdx.x * 256 + threadIdx.x;
    if (value >= images * height * width * out_channels) return;
    const int n = value % out_channels, pixel = value / out_channels;
    const int w = pixel % width, h = pixel / width % height;

    float sum = 0.0f;
    for (int r = 0; r < 3; ++r) {
        for (int s = 0; s < 3; ++s) {
            const int row = h + r - 1, column = w + s - 1;
            if (row < 0 || row >= height || column < 0 || column >= width) continue;
            const bf16* from = x + (pixel + (r - 1) * width + (s - 1)) * in_channels;
            const bf16* by = weights + ((n * 3 + r) * 3 + s) * in_channels;
            for (int c = 0; c < in_channels; ++c) sum += to_float(from[c]) * to_float(by[c]);
        }
    }
    y[value] = to_bf16(sum);
}
