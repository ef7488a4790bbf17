#include "convolution_product.cuh"

#define DATA_GRADIENT(NAME, M, N, WARPS_M, WARPS_N, STAGES, BLOCKS)                                                      \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, BLOCKS)                                         \
        NAME(ConvolutionShape shape, const bf16* dy, const bf16* w, bf16* dx, int accumulate) {                          \
        const Gather gather = gradient_gather(shape);                                                                    \
        if (accumulate && gather.taps() == 0) return;                                                                    \
        gather_product<Product<M, N, 32, WARPS_M, WARPS_N, true, false>, false, STAGES>(                                 \
            gather, shape, dy, w, dx, shape.in_channels, accumulate, nullptr);                                           \
    }

DATA_GRADIENT(convolution_data_gradient_128x128, 128, 128, 2, 4, 3, 2)
DATA_GRADIENT(convolution_data_gradient_128x64, 128, 64, 4, 2, 4, 2)
DATA_GRADIENT(convolution_data_gradient_64x64, 64, 64, 2, 2, 4, 3)
DATA_GRADIENT(convolution_data_gradient_128x32, 128, 32, 4, 1, 4, 2)
