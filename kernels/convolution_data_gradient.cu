// Convolution, gradient of the input, on the tensor cores.
//
//   dx[i, c] = sum over taps (r, s) and channels n of dy[o, n] w[n, r, s, c],
//   o stride + (r, s) - padding = i
//
// dy [images, OH, OW, Cout], w [Cout, kernel, kernel, Cin], dx [images, H, W, Cin], all bf16, channels
// multiples of 8; summed in f32, rounded once. With `accumulate`, dx += the gradient, also with one rounding.
//
// The same product as the forward pass: M = pixels of dx, N = Cin, K = taps x Cout. The weights are read in
// place, without a transposed copy: a tile of them is [Cout slice][Cin], and ldmatrix transposes it on the
// way to the registers. With stride 2 only every second tap reaches a pixel, and the parities of its row and
// column decide which; blockIdx.z is one of the four parities, each a dense product over its 4, 2, 2 and 1
// taps of a 3x3 kernel (1, 0, 0, 0 of a 1x1): no zero is multiplied. Parities without taps get zeros, or stay
// unchanged when accumulating.
//
// `partial`, null or f32 [stride^2 tiles, 2, Cin]: if x is the result of a batchnorm, dx is the dy of its
// gradient, and its two sums are made here for every tile of rows, while dx is stored, masked by the ReLU
// (`mask`, batchnorm_value.cuh). That saves the batchnorm a pass over dy; its x (and the bits of y > 0,
// `positive`) are read here instead, beside the arithmetic. Then parities without taps are read and written
// as well.
//
// Launch: grid [ceil(M / rows) * ceil(Cin / columns), 1, stride^2], where M is the pixels of the
// largest parity; parities with most taps run first. Tiles, threads and shared memory as in
// convolution_forward.cu; registers (sm_86) 124, 106, 106, 118.
//
// Cost: 2 images OH OW N K FLOPs, as in the forward pass (fewer at the border); least traffic dy + w + dx,
// dx twice when accumulating. Limits as in the forward pass, predicted. Deterministic: as the forward pass;
// every dx belongs to one block.
//
// Kernels `_halo_`: as in convolution_forward.cu, of dy, with the taps mirrored; registers (sm_86) of 128 x
// 128 126, of 128 x 64 119, of 256 x 64 122.
//
// bf16 above stands for f16 too. In the kernels `_f16_short`, for GeForce chips of sm_86 and sm_89, whose
// tensor cores are twice as fast with sums in f16, the 32 products of a step are summed in f16 (two
// roundings), and the steps in f32; a step's sum beyond 65504 becomes infinite. There is none of 128 x
// 128, whose sums in f16 would not fit the registers of two blocks; registers of the others (sm_86) 105,
// 106, 117.
#include "convolution_halo.cuh"

#define DATA_GRADIENT(NAME, T, SHORT, HALO, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)             \
        NAME(ConvolutionShape shape, int accumulate, int mask, const T* dy, const T* w, const T* x,  \
             const u8* positive, const float* affine, const float* batch, T* dx, float* partial) {   \
        const Gather gather = HALO ? forward_gather(halo_shape(shape)) : gradient_gather(shape);     \
        if (accumulate && gather.taps() == 0 && partial == nullptr) return;                          \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, false> P;    \
        const int width = shape.in_channels;                                                         \
        tile_product<P, false, HALO, STAGES>(                                                        \
            gather, shape, width, dy, w, [&](P& product, u8* shared, int base, int first) {          \
                finish(product, shared, gather, base, first, width, accumulate, dx, nullptr,         \
                       {mask, x, positive, affine, batch, partial});                                 \
            });                                                                                      \
    }

DATA_GRADIENT(convolution_data_gradient_128x128, bf16, 0, 0, 128, 128, 2, 4, 3, 2)
DATA_GRADIENT(convolution_data_gradient_128x64, bf16, 0, 0, 128, 64, 4, 2, 4, 2)
DATA_GRADIENT(convolution_data_gradient_64x64, bf16, 0, 0, 64, 64, 2, 2, 4, 3)
DATA_GRADIENT(convolution_data_gradient_128x32, bf16, 0, 0, 128, 32, 4, 1, 4, 2)
DATA_GRADIENT(convolution_data_gradient_128x128_f16, f16, 0, 0, 128, 128, 2, 4, 3, 2)
DATA_GRADIENT(convolution_data_gradient_128x64_f16, f16, 0, 0, 128, 64, 4, 2, 4, 2)
DATA_GRADIENT(convolution_data_gradient_64x64_f16, f16, 0, 0, 64, 64, 2, 2, 4, 3)
DATA_GRADIENT(convolution_data_gradient_128x32_f16, f16, 0, 0, 128, 32, 4, 1, 4, 2)
DATA_GRADIENT(convolution_data_gradient_128x64_f16_short, f16, 1, 0, 128, 64, 4, 2, 4, 2)
DATA_GRADIENT(convolution_data_gradient_64x64_f16_short, f16, 1, 0, 64, 64, 2, 2, 4, 3)
DATA_GRADIENT(convolution_data_gradient_128x32_f16_short, f16, 1, 0, 128, 32, 4, 1, 4, 2)
DATA_GRADIENT(convolution_data_gradient_halo_128x128, bf16, 0, 1, 128, 128, 2, 4, 2, 2)
DATA_GRADIENT(convolution_data_gradient_halo_128x64, bf16, 0, 1, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT(convolution_data_gradient_halo_128x128_f16, f16, 0, 1, 128, 128, 2, 4, 2, 2)
DATA_GRADIENT(convolution_data_gradient_halo_128x64_f16, f16, 0, 1, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT(convolution_data_gradient_halo_128x64_f16_short, f16, 1, 1, 128, 64, 4, 2, 3, 2)
DATA_GRADIENT(convolution_data_gradient_halo_256x64, bf16, 0, 1, 256, 64, 4, 2, 3, 2)
DATA_GRADIENT(convolution_data_gradient_halo_256x64_f16, f16, 0, 1, 256, 64, 4, 2, 3, 2)
