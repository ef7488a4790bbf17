// Convolutions on the tensor cores that do the last pass of the batchnorm whose result they read: 3x3 of
// stride 1, forward and gradient of the input, where 128 points are whole rows of images
// (convolution_halo.cuh).
//
//   forward         x = relu?(g (source - mean) / std + b + residual?),  y = convolution of x with w
//   data gradient   dy = g/std (source - mean(source) - xhat mean(source xhat)),  dx = data gradient of dy
//
// where the residual may be the result of another batchnorm, which is nowhere stored: then `residual` is
// the input of that one, and `residual_affine` and `residual_batch` its parameters and statistics. In the
// data gradient `source` is the masked gradient of the batchnorm's result, `source_x` its input,
// `source_d_affine` its two sums. x and dy are stored as well, for the weight gradient and for residuals,
// by the column of tiles whose turn the slice of channels is; so are the bits of x > 0, unless `positive`
// is null. Shapes, layouts, statistics and sums are those of convolution_forward.cu and
// convolution_data_gradient.cu, and so are the bits of every result: those of the kernels of batchnorm.cu
// and of a convolution, one after the other.
//
// A thread copies three pixels' chunks of eight channels of the next slice (six with 256 x 64), as many in
// each row of taps, and changes its own two taps later, when the copy is there (batchnorm_arrival.cuh). No barrier is added:
// others read the slice behind the barriers that are there anyway. The second tensor (residual, source_x)
// is loaded to registers two taps ahead.
//
// Launch: as the kernels `_halo_` of the same tile, with 768 bytes more of shared memory.
// Registers (sm_86)   128 x 128   128 x 64   in short runs   256 x 64
// forward             126         98         118             126
// data gradient       124         119        119             126
//
// Cost: the FLOPs of both. Memory: source (and the second tensor) is read, x or dy written, and what the
// convolution reads and writes anyway; the pass alone would read and write the same once more, and wait for
// nothing but DRAM. On an RTX 3090 all of it is hidden by the products (prediction); on an H100, whose
// tensor cores wait for shared memory, it pays in the wide layers. A step of three taps has 60 to 90
// instructions of a warp more, and 30 to 36 passes through shared memory (of 115 and 175).
// Source: our own; see convolution_forward.cu for the product.
// Deterministic: as those kernels.
#include "convolution_halo.cuh"

#define FORWARD_OF_BATCHNORM(NAME, T, SHORT, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)              \
        NAME(ConvolutionShape shape, int with_relu, const T* source, const float* affine,             \
             const float* batch, const T* residual, const float* residual_affine,                     \
             const float* residual_batch, const T* w, T* x, u8* positive, T* y, float* statistics) {  \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, true> P;      \
        const ConvolutionShape known = halo_shape(shape);                                             \
        const Gather gather = forward_gather(known);                                                  \
        const int width = shape.out_channels;                                                         \
        const Normalised<T> arrival = {                                                               \
            with_relu, affine, batch, residual, residual_affine, residual_batch, x, positive};        \
        halo_product<P, true, STAGES>(                                                                \
            known, arrival, source, w, [&](P& product, u8* shared, int base, int first) {             \
                finish(product, shared, gather, base, first, width, false, y, statistics, {});        \
            });                                                                                       \
    }

FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_128x128, bf16, 0, 128, 128, 2, 4, 2, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_128x64, bf16, 0, 128, 64, 4, 2, 3, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_128x128_f16, f16, 0, 128, 128, 2, 4, 2, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_128x64_f16, f16, 0, 128, 64, 4, 2, 3, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_128x64_f16_short, f16, 1, 128, 64, 4, 2, 3, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_256x64, bf16, 0, 256, 64, 4, 2, 3, 2)
FORWARD_OF_BATCHNORM(convolution_forward_of_batchnorm_256x64_f16, f16, 0, 256, 64, 4, 2, 3, 2)

#define DATA_GRADIENT_OF_BATCHNORM(NAME, T, SHORT, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)                    \
        NAME(ConvolutionShape shape, int accumulate, int mask, const T* source,                             \
             const float* source_affine, const float* source_batch, const float* source_d_affine,           \
             const T* source_x, const T* w, const T* x, const u8* positive, const float* affine,            \
             const float* batch, T* dy, T* dx, float* partial) {                                            \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, false> P;           \
        const ConvolutionShape known = halo_shape(shape);                                                   \
        const Gather gather = forward_gather(known);                                                        \
        const int width = shape.in_channels;                                                                \
        const NormalisedGradient<T> arrival = {                                                             \
            gather.points(), source_affine, source_batch, source_d_affine, source_x, dy};                   \
        halo_product<P, false, STAGES>(                                                                     \
            known, arrival, source, w, [&](P& product, u8* shared, int base, int first) {                   \
                finish(product, shared, gather, base, first, width, accumulate, dx, nullptr,                \
                       {mask, x, positive, affine, batch, partial});                                        \
            });                                                                                             \
    }

DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_128x128, bf16, 0, 128, 128, 2, 4, 2, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_128x64, bf16, 0, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_128x128_f16, f16, 0, 128, 128, 2, 4, 2, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_128x64_f16, f16, 0, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_128x64_f16_short, f16, 1, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_256x64, bf16, 0, 256, 64, 4, 2, 3, 2)
DATA_GRADIENT_OF_BATCHNORM(convolution_data_gradient_of_batchnorm_256x64_f16, f16, 0, 256, 64, 4, 2, 3, 2)
