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
// Launch: grid [ceil(M / rows) * ceil(Cin / columns), 1, stride^2], where M is the pixels of the
// largest parity; parities with most taps run first. Tiles, threads and shared memory as in
// convolution_forward.cu; registers (sm_86) 123, 84, 86, 96.
//
// Cost: 2 images OH OW N K FLOPs, as in the forward pass (fewer at the border); least traffic dy + w + dx,
// dx twice when accumulating. Limits as in the forward pass, predicted. Deterministic: as the forward pass;
// every dx belongs to one block.
#include "convolution_product.cuh"

#define DATA_GRADIENT(NAME, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS)                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)                     \
        NAME(ConvolutionShape shape, int accumulate, const bf16* dy, const bf16* w, bf16* dx) {              \
        const Gather gather = gradient_gather(shape);                                                        \
        if (accumulate && gather.taps() == 0) return;                                                        \
        gather_product<Product<ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, true, false>, false, STAGES>( \
            gather, shape, accumulate, shape.in_channels, dy, w, dx, nullptr);                               \
    }

DATA_GRADIENT(convolution_data_gradient_128x128, 128, 128, 2, 4, 3, 2)
DATA_GRADIENT(convolution_data_gradient_128x64, 128, 64, 4, 2, 4, 2)
DATA_GRADIENT(convolution_data_gradient_64x64, 64, 64, 2, 2, 4, 3)
DATA_GRADIENT(convolution_data_gradient_128x32, 128, 32, 4, 1, 4, 2)
