// Convolution and the batchnorm with running statistics behind it, with residual and ReLU, on the tensor
// cores: the forward pass of an evaluation.
//
//   y = relu?(g (conv(x, w) - mean) / sqrt(var + eps) + b + residual?)
//
// x, w and the product as in convolution_forward.cu; affine [2][Cout] = g, b and running [2][Cout] = mean,
// var, f32; residual like y, or null. The product is rounded to bf16 before it is normalised, so the bits are
// those of convolution_forward followed by batchnorm_inference.
//
// Launch: as convolution_forward.cu, with its tiles and shared memory; registers (sm_86) 113, 73, 73, 78.
//
// Cost: the forward pass's FLOPs and traffic, plus the residual, and nothing for the batchnorm: written by
// itself, it reads and writes y once more. Limits as in the forward pass, predicted. Deterministic: as the
// forward pass.
//
// Kernels `_halo_`: as in convolution_forward.cu; registers (sm_86) of 128 x 128 128, of 128 x 64 96 (short
// runs: 124).
//
// bf16 above stands for f16 too. In the kernels `_f16_short`, for GeForce chips of sm_86 and sm_89, whose
// tensor cores are twice as fast with sums in f16, the 32 products of a step are summed in f16 (two
// roundings), and the steps in f32; a step's sum beyond 65504 becomes infinite. Registers of these (sm_86)
// 128, 91, 93, 101.
#include "convolution_halo.cuh"

#define INFERENCE(NAME, T, SHORT, HALO, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)         \
        NAME(ConvolutionShape shape, int with_relu, const T* x, const T* w, const float* affine, \
             const float* running, const T* residual, T* y) {                                    \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, true> P; \
        const Gather gather = forward_gather(HALO ? halo_shape(shape) : shape);                  \
        const int width = shape.out_channels;                                                    \
        tile_product<P, true, HALO, STAGES>(                                                     \
            gather, shape, width, x, w, [&](P& product, u8* shared, int base, int first) {       \
                finish_normalised(product, shared, gather, base, first, width,                   \
                                  {with_relu, affine, running, residual}, y);                    \
            });                                                                                  \
    }

INFERENCE(convolution_inference_128x128, bf16, 0, 0, 128, 128, 2, 4, 3, 2)
INFERENCE(convolution_inference_128x64, bf16, 0, 0, 128, 64, 4, 2, 4, 2)
INFERENCE(convolution_inference_64x64, bf16, 0, 0, 64, 64, 2, 2, 4, 3)
INFERENCE(convolution_inference_128x32, bf16, 0, 0, 128, 32, 4, 1, 4, 2)
INFERENCE(convolution_inference_128x128_f16, f16, 0, 0, 128, 128, 2, 4, 3, 2)
INFERENCE(convolution_inference_128x64_f16, f16, 0, 0, 128, 64, 4, 2, 4, 2)
INFERENCE(convolution_inference_64x64_f16, f16, 0, 0, 64, 64, 2, 2, 4, 3)
INFERENCE(convolution_inference_128x32_f16, f16, 0, 0, 128, 32, 4, 1, 4, 2)
INFERENCE(convolution_inference_128x128_f16_short, f16, 1, 0, 128, 128, 2, 4, 3, 2)
INFERENCE(convolution_inference_128x64_f16_short, f16, 1, 0, 128, 64, 4, 2, 4, 2)
INFERENCE(convolution_inference_64x64_f16_short, f16, 1, 0, 64, 64, 2, 2, 4, 3)
INFERENCE(convolution_inference_128x32_f16_short, f16, 1, 0, 128, 32, 4, 1, 4, 2)
INFERENCE(convolution_inference_halo_128x128, bf16, 0, 1, 128, 128, 2, 4, 2, 2)
INFERENCE(convolution_inference_halo_128x64, bf16, 0, 1, 128, 64, 4, 2, 3, 2)
INFERENCE(convolution_inference_halo_128x128_f16, f16, 0, 1, 128, 128, 2, 4, 2, 2)
INFERENCE(convolution_inference_halo_128x64_f16, f16, 0, 1, 128, 64, 4, 2, 3, 2)
INFERENCE(convolution_inference_halo_128x64_f16_short, f16, 1, 1, 128, 64, 4, 2, 3, 2)
INFERENCE(convolution_inference_halo_256x64, bf16, 0, 1, 256, 64, 4, 2, 3, 2)
INFERENCE(convolution_inference_halo_256x64_f16, f16, 0, 1, 256, 64, 4, 2, 3, 2)
