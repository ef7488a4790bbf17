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
#include "convolution_product.cuh"

#define INFERENCE(NAME, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS)                             \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)                     \
        NAME(ConvolutionShape shape, int with_relu, const bf16* x, const bf16* w, const float* affine,       \
             const float* running, const bf16* residual, bf16* y) {                                          \
        typedef Product<ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, true> P;                       \
        const Gather gather = forward_gather(shape);                                                         \
        const int width = shape.out_channels;                                                                \
        gather_product<P, true, STAGES>(                                                                     \
            gather, shape, width, x, w, [&](P& product, u8* shared, int base, int first) {                   \
                finish_normalised(product, shared, gather, base, first, width,                               \
                                  {with_relu, affine, running, residual}, y);                                \
            });                                                                                              \
    }

INFERENCE(convolution_inference_128x128, 128, 128, 2, 4, 3, 2)
INFERENCE(convolution_inference_128x64, 128, 64, 4, 2, 4, 2)
INFERENCE(convolution_inference_64x64, 64, 64, 2, 2, 4, 3)
INFERENCE(convolution_inference_128x32, 128, 32, 4, 1, 4, 2)
