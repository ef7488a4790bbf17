// Convolution, forward, on the tensor cores.
//
//   y[p, n] = sum over taps (r, s) and channels c of x[p stride + (r, s) - padding, c] w[n, r, s, c]
//
// with zeros outside the image, as a matrix product whose left matrix is never stored (implicit GEMM): M =
// the pixels p of all images, N = Cout, summed over K = kernel^2 Cin. x [images, H, W, Cin], w [Cout, kernel,
// kernel, Cin], y [images, OH, OW, Cout], all bf16, channels multiples of 8; products are summed in f32 and
// rounded once. Source: Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014, section 3 (the
// lowering); the tiling is our own.
//
// `statistics`, null or f32 [ceil(M / tile rows), 2, Cout]: for every tile of rows and every channel, the sum
// of y as rounded and the sum of squared deviations from the tile's mean. This saves a pass over y
// in the batchnorm that follows.
//
// Launch: one block per tile, ceil(M / rows) * ceil(Cout / columns) blocks, columns fastest.
// tile       threads  stages  shared (dynamic)  registers (sm_86)  blocks/SM     FLOP/byte copied
// 128 x 128  256      3       48 KB             112                2             64
// 128 x 64   256      4       48 KB             80                 2             43
//  64 x 64   128      4       32 KB             80                 3             32
// 128 x 32   128      4       40 KB             87                 2             26
// A stage is 32 channels of one tap. Channels are padded with zeros to a multiple of 32: 8 channels cost as
// much as 32.
//
// Cost: 2 M N K FLOPs (wasted only on padding), least traffic x + w + y; x is requested kernel^2 times, in
// rows of 64 bytes, neighbouring taps in succession, so most of it should come from the L1 or L2 cache
// (prediction). A step of a warp of the 128 x 128 tile is 32 mma, 12 ldmatrix and 77 other instructions (SASS
// of sm_86), no bank conflict, the first mma 13 instructions after the barrier. Predicted limit on an RTX
// 3090: the tensor cores (71 TFLOP/s: 32 mma take 1024 of their cycles against 121 issue slots) for 64
// channels and more, the L2 cache for fewer.
//
// Kernels `_halo_`: 3x3 of stride 1 where 128 points are whole rows of images 4 to 32 wide
// (convolution_halo.cuh). The same products in the same order, so the same bits, but the pixels of a tile are
// copied once for the nine taps, with those around them: for a slice of 32 channels 128 to 192 pixels where
// nine taps copy 1152. Shared memory is two slices of pixels (14 to 18 KB each) and the stages of weights.
// tile       threads  stages  shared (dynamic)  registers (sm_86)       blocks/SM
// 128 x 128  256      2       to 48 KB          126                     2
// 128 x 64   256      3       to 49 KB          96 (short runs: 124)    2
// 256 x 64   256      3       to 66 KB          125                     2, on GPUs with 128 KB and more
// A step is a row of three taps: 96 (48, 96) mma, 36 (24, 36) ldmatrix and 86 (62, 74) other instructions of
// a warp (SASS of sm_86), no bank conflict in ldmatrix; copies of pixels (one for three taps) have one of two
// ways. There is none of 128 x 128 in short runs, which would spill. 256 x 64 is for 64 channels on GPUs whose
// tensor cores wait for shared memory: its warps have 64 x 32, as those of 128 x 128, not 32 x 32, and an mma
// takes 1.74 passes through shared memory, not 2.39 (interpreter). Of an H100's tensor cores 1.6 would leave
// none waiting (prediction).
//
// Deterministic: each value is summed by one thread group in a fixed order, tap by tap within a slice
// of channels.
//
// bf16 above stands for f16 too. In the kernels `_f16_short`, for GeForce chips of sm_86 and sm_89, whose
// tensor cores are twice as fast with sums in f16, the 32 products of a step are summed in f16 (two
// roundings), and the steps in f32; a step's sum beyond 65504 becomes infinite. Registers of these (sm_86)
// 127, 90, 93, 101.
#include "convolution_halo.cuh"

#define FORWARD(NAME, T, SHORT, HALO, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS)   \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)         \
        NAME(ConvolutionShape shape, const T* x, const T* w, T* y, float* statistics) {          \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, true> P; \
        const Gather gather = forward_gather(HALO ? halo_shape(shape) : shape);                  \
        const int width = shape.out_channels;                                                    \
        tile_product<P, true, HALO, STAGES>(                                                     \
            gather, shape, width, x, w, [&](P& product, u8* shared, int base, int first) {       \
                finish(product, shared, gather, base, first, width, false, y, statistics, {});   \
            });                                                                                  \
    }

FORWARD(convolution_forward_128x128, bf16, 0, 0, 128, 128, 2, 4, 3, 2)
FORWARD(convolution_forward_128x64, bf16, 0, 0, 128, 64, 4, 2, 4, 2)
FORWARD(convolution_forward_64x64, bf16, 0, 0, 64, 64, 2, 2, 4, 3)
FORWARD(convolution_forward_128x32, bf16, 0, 0, 128, 32, 4, 1, 4, 2)
FORWARD(convolution_forward_128x128_f16, f16, 0, 0, 128, 128, 2, 4, 3, 2)
FORWARD(convolution_forward_128x64_f16, f16, 0, 0, 128, 64, 4, 2, 4, 2)
FORWARD(convolution_forward_64x64_f16, f16, 0, 0, 64, 64, 2, 2, 4, 3)
FORWARD(convolution_forward_128x32_f16, f16, 0, 0, 128, 32, 4, 1, 4, 2)
FORWARD(convolution_forward_128x128_f16_short, f16, 1, 0, 128, 128, 2, 4, 3, 2)
FORWARD(convolution_forward_128x64_f16_short, f16, 1, 0, 128, 64, 4, 2, 4, 2)
FORWARD(convolution_forward_64x64_f16_short, f16, 1, 0, 64, 64, 2, 2, 4, 3)
FORWARD(convolution_forward_128x32_f16_short, f16, 1, 0, 128, 32, 4, 1, 4, 2)
FORWARD(convolution_forward_halo_128x128, bf16, 0, 1, 128, 128, 2, 4, 2, 2)
FORWARD(convolution_forward_halo_128x64, bf16, 0, 1, 128, 64, 4, 2, 3, 2)
FORWARD(convolution_forward_halo_128x128_f16, f16, 0, 1, 128, 128, 2, 4, 2, 2)
FORWARD(convolution_forward_halo_128x64_f16, f16, 0, 1, 128, 64, 4, 2, 3, 2)
FORWARD(convolution_forward_halo_128x64_f16_short, f16, 1, 1, 128, 64, 4, 2, 3, 2)
FORWARD(convolution_forward_halo_256x64, bf16, 0, 1, 256, 64, 4, 2, 3, 2)
FORWARD(convolution_forward_halo_256x64_f16, f16, 0, 1, 256, 64, 4, 2, 3, 2)
