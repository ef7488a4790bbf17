#include "convolution_product.cuh"

#define FORWARD(NAME, M, N, WARPS_M, WARPS_N, STAGES, BLOCKS)                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, BLOCKS)                                         \
        NAME(ConvolutionShape shape, const bf16* x, const bf16* w, bf16* y, float* statistics) {                         \
        gather_product<Product<M, N, 32, WARPS_M, WARPS_N, true, true>, true, STAGES>(                                   \
            forward_gather(shape), shape, x, w, y, shape.out_channels, false, statistics);                               \
    }

FORWARD(convolution_forward_128x128, 128, 128, 2, 4, 3, 2)
FORWARD(convolution_forward_128x64, 128, 64, 4, 2, 4, 2)
FORWARD(convolution_forward_64x64, 64, 64, 2, 2, 4, 3)
FORWARD(convolution_forward_128x32, 128, 32, 4, 1, 4, 2)
