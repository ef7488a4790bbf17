// Convolution, gradient of the weights, on the tensor cores.
//
//   dw[n, r, s, c] = sum over the pixels p of all images of dy[p, n] x[p stride + (r, s) - padding, c]
//
// with zeros outside the image; x [images, H, W, Cin], dy [images, OH, OW, Cout] bf16, channels multiples of
// 8; dw [Cout, kernel, kernel, Cin] f32, overwritten. A product with M = Cout, N = (r, s, c) flattened, so
// that no tap leaves a tile half empty, and K = the pixels: in both operands the summed index runs along
// rows, so ldmatrix transposes both.
//
// K is long and M x N small: blockIdx.y takes a share of the pixels and writes its own partial sum [Cout,
// kernel^2 Cin] in f32, or dw itself if there is one share; convolution_sum_partials adds them.
//
// Launch: grid [ceil(Cout / rows) * ceil(kernel^2 Cin / columns), shares].
// tile       threads  stages  shared (dynamic)  registers (sm_86)  blocks/SM     FLOP/byte copied
// 128 x 128  256      3       48 KB             118                2             64
//  64 x 192  256      3       48 KB             104                2             48
//  64 x 64   128      4       32 KB              80                3             32
//  32 x 128  128      4       40 KB              86                2             26
// A stage is 32 pixels.
//
// Kernels `_halo_`: 3x3 of stride 1 where 32 pixels are whole rows of images 4 to 32 wide or whole images
// (convolution_weight_gradient_halo.cuh). The columns of a tile are the nine taps of 32 input channels, and a
// warp has a row of taps. The same products in the same order, so the same bits for the same shares, but a
// pixel of x is copied once for the nine taps, in a window that rolls down the rows: for a step 32 pixels of x
// by 32 channels where nine taps copy 288.
// tile       threads  stages  shared (dynamic)  registers (sm_86)       blocks/SM     FLOP/byte copied
//  64 x 288  192      3       to 32 KB          167 (short runs: 168)   2             192
// A step is 48 mma, 16 ldmatrix and 68 other instructions of a warp (SASS of sm_86; short runs: 258, of which
// 192 add runs), no bank conflict in ldmatrix; copies of pixels have one of two ways.
//
// Cost: 2 images OH OW Cout kernel^2 Cin FLOPs; least traffic x + dy + dw. dy is requested once for every
// tile of columns, x once for every tile of rows and tap; partial sums add 8 bytes per weight and share.
// Predicted limit on an RTX 3090: the tensor cores.
//
// Deterministic: the shares depend only on the shape and the GPU's description; each is summed in a fixed
// order, and so are the partial sums.
//
// bf16 above stands for f16 too. In the kernels `_f16_short`, for GeForce chips of sm_86 and sm_89, whose
// tensor cores are twice as fast with sums in f16, the 32 products of a step are summed in f16 (two
// roundings), and the steps in f32; a step's sum beyond 65504 becomes infinite. There is none of 128 x
// 128, whose sums in f16 would not fit the registers of two blocks; registers of the others (sm_86) 126,
// 96, 108.
#include "convolution_weight_gradient_halo.cuh"

// The offset of a tap from a pixel, row and column in 16 bits each to save registers.
struct Tap {
    // A row offset that is outside every image, for any pixel.
    static constexpr int OUTSIDE = -32768;

    int packed;

    Tap() = default;
    __device__ __forceinline__ Tap(int row, int column) : packed(row << 16 | (column & 0xffff)) {}
    __device__ __forceinline__ int row() const { return packed >> 16; }
    __device__ __forceinline__ int column() const { return (short)packed; }
};

// partials[blockIdx.y] = the contribution of this block's share of the pixels to dw, for the tile blockIdx.x.
template <class P, int STAGES>
__device__ __forceinline__ void weight_gradient(const ConvolutionShape& shape, int share,
                                                const typename P::T* x, const typename P::T* dy,
                                                float* partials) {
    extern __shared__ __align__(128) u8 shared[];
    const int columns = shape.kernel * shape.kernel * shape.in_channels;
    const int tiles = ceiling_divide(columns, P::N);
    const int first_out = blockIdx.x / tiles * P::M, first_column = blockIdx.x % tiles * P::N;
    const int pixels = shape.batch * shape.out_height * shape.out_width;

    // Eight lanes copy 128 neighbouring bytes of a pixel; a thread's columns, and with them their taps, never
    // change.
    const int LINES = P::THREADS / 8, ROWS = P::K / LINES, A_COLUMNS = (P::M + 63) / 64,
              B_COLUMNS = P::N / 64;
    static_assert(P::K % (P::THREADS / 8) == 0 && P::N % 64 == 0, "every thread copies as much");
    const int line = threadIdx.x / 8, chunk = threadIdx.x % 8;
    const u32 into_a = kept(P::A::at(line, chunk)), into_b = kept(P::B::at(line, chunk));
    Tap tap[B_COLUMNS];
    // Offset of a column's elements from the pixel's first element.
    int tap_offset[B_COLUMNS];
#pragma unroll
    for (int i = 0; i < B_COLUMNS; ++i) {
        const int column = first_column + (chunk + 8 * i) * 8, number = column / shape.in_channels;
        const int row = number / shape.kernel - shape.kernel / 2,
                  across = number % shape.kernel - shape.kernel / 2;
        tap[i] = Tap(column < columns ? row : Tap::OUTSIDE, across);
        tap_offset[i] = (row * shape.width + across) * shape.in_channels + column % shape.in_channels;
    }
    const int start = blockIdx.y * share, end = min(start + share, pixels);
    Pixel pixel[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) pixel[r] = Pixel::at(shape, start + line + r * LINES);
    const Pixel slice = Pixel::at(shape, P::K);

    auto copy = [&](u32 a_tile) {
        const u32 b_tile = a_tile + P::A_BYTES;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const bool present = pixel[r].index < end;
#pragma unroll
            for (int i = 0; i < A_COLUMNS; ++i) {
                const int out = first_out + (chunk + 8 * i) * 8;
                if (P::M % 64 == 0 || chunk + 8 * i < P::M / 8)
                    copy_async(P::A::moved(a_tile + into_a, r * LINES, 8 * i),
                               dy + pixel[r].index * shape.out_channels + out,
                               present & (out < shape.out_channels));
            }
            const int y = pixel[r].row * shape.stride, z = pixel[r].column * shape.stride;
            const typename P::T* from =
                x + ((pixel[r].image * shape.height + y) * shape.width + z) * shape.in_channels;
#pragma unroll
            for (int i = 0; i < B_COLUMNS; ++i) {
                const bool row_inside = (u32)(y + tap[i].row()) < (u32)shape.height;
                const bool column_inside = (u32)(z + tap[i].column()) < (u32)shape.width;
                copy_async_cached(P::B::moved(b_tile + into_b, r * LINES, 8 * i), from + tap_offset[i],
                                  present & row_inside & column_inside);
            }
            pixel[r].advance(shape, slice);
        }
    };

    P product;
    product.clear();
    const int steps = ceiling_divide(end - start, P::K);
    multiply_pipelined<STAGES>(product, shared_address(shared), steps, copy);

    float* out = partials + (size_t)blockIdx.y * shape.out_channels * columns;
    product.each_row([&](int row, auto each_pair) {
        if (first_out + row >= shape.out_channels) return;
        float* line = out + (first_out + row) * columns + first_column;
        each_pair([&](int column, float low, float high) {
            if (first_column + column < columns)
                *reinterpret_cast<float2*>(line + column) = make_float2(low, high);
        });
    });
}

#define WEIGHT_GRADIENT(NAME, T, SHORT, HALO, ROWS, COLUMNS, WARPS_DOWN, WARPS_ACROSS, STAGES, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_DOWN * WARPS_ACROSS, BLOCKS)               \
        NAME(ConvolutionShape shape, int share, const T* x, const T* dy, float* partials) {            \
        typedef Product<T, SHORT, ROWS, COLUMNS, SLICE, WARPS_DOWN, WARPS_ACROSS, false, false> P;     \
        if constexpr (HALO)                                                                            \
            window_weight_gradient<P, STAGES>(halo_shape(shape), share, x, dy, partials);              \
        else                                                                                           \
            weight_gradient<P, STAGES>(shape, share, x, dy, partials);                                 \
    }

WEIGHT_GRADIENT(convolution_weight_gradient_128x128, bf16, 0, 0, 128, 128, 2, 4, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x192, bf16, 0, 0, 64, 192, 2, 4, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x64, bf16, 0, 0, 64, 64, 2, 2, 4, 3)
WEIGHT_GRADIENT(convolution_weight_gradient_32x128, bf16, 0, 0, 32, 128, 1, 4, 4, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_128x128_f16, f16, 0, 0, 128, 128, 2, 4, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x192_f16, f16, 0, 0, 64, 192, 2, 4, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x64_f16, f16, 0, 0, 64, 64, 2, 2, 4, 3)
WEIGHT_GRADIENT(convolution_weight_gradient_32x128_f16, f16, 0, 0, 32, 128, 1, 4, 4, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x192_f16_short, f16, 1, 0, 64, 192, 2, 4, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_64x64_f16_short, f16, 1, 0, 64, 64, 2, 2, 4, 3)
WEIGHT_GRADIENT(convolution_weight_gradient_32x128_f16_short, f16, 1, 0, 32, 128, 1, 4, 4, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_halo_64x288, bf16, 0, 1, 64, 288, 2, 3, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_halo_64x288_f16, f16, 0, 1, 64, 288, 2, 3, 3, 2)
WEIGHT_GRADIENT(convolution_weight_gradient_halo_64x288_f16_short, f16, 1, 1, 64, 288, 2, 3, 3, 2)

// Most groups per block of convolution_sum_partials, and values that a thread sums.
constexpr int SUM_GROUPS = 8;
constexpr int SUM_VALUES = 4;

// out[i] = sum over s of partials[s][i], s in steps of blockDim.y, then those sums in order. Block [32,
// groups]; a thread sums SUM_VALUES neighbours, of which `len` is a multiple.
extern "C" __global__ void __launch_bounds__(32 * SUM_GROUPS)
    convolution_sum_partials(int splits, int len, const float* partials, float* out) {
    __shared__ float4 sums[SUM_GROUPS][32];
    const int at = (blockIdx.x * 32 + threadIdx.x) * SUM_VALUES;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at < len)
#pragma unroll 4
        for (int s = threadIdx.y; s < splits; s += blockDim.y) {
            const float4 part = *reinterpret_cast<const float4*>(partials + (size_t)s * len + at);
            sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
        }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || at >= len) return;
    for (int group = 1; group < blockDim.y; ++group) {
        const float4 part = sums[group][threadIdx.x];
        sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    *reinterpret_cast<float4*>(out + at) = sum;
}
