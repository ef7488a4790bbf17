// Convolution of few channels (the first layer), forward and gradient of the weights, on the tensor cores. It
// has no data gradient, because nothing is learned below it.
//
//   y[p, n] = sum over k of patch[p, k] w[n, k]          dw[n, k] = sum over p of dy[p, n] patch[p, k]
//
// k = (r, s, c) flattened, kernel^2 Cin <= 32 values (27 of a colour image), padded with zeros to one step of
// the tensor cores. x [images, H, W, Cin], w [Cout, kernel, kernel, Cin], y and dy [images, OH, OW, Cout]
// bf16, Cout a multiple of 8; dw, partial sums [shares, Cout, kernel^2 Cin] and `statistics` f32, as in
// convolution_forward.cu and convolution_weight_gradient.cu.
//
// A pixel has 6 bytes, too few for cp.async: a warp gathers patches one pixel at a time, one value per lane,
// from lines in the L1 cache.
//
// forward          grid [ceil(pixels / 128) * ceil(Cout / 64)], 256 threads, 18 KB of shared, 76 registers
// weight gradient  grid [ceil(Cout / 64), shares], 256 threads, 24 KB, 78 registers; 128 pixels per step
//
// Cost: 2 pixels Cout kernel^2 Cin FLOPs, 26 FLOP per byte at 64 channels: bound by writing y, or reading dy
// (prediction; in the forward pass instruction issue is close, about 1,400 per warp and tile against 16 KB of
// y).
// Deterministic: as the other convolutions.
//
// bf16 above stands for f16 too; there are no short runs of sums in f16, as the arithmetic is no limit.
//
// The kernels `_of_batchnorm` read what the gradient of the batchnorm of y gives, and compute dy of it as it
// arrives (batchnorm_arrival.cuh): nobody else reads that dy, which is never written. They read two tensors
// of the shape of y instead of one, and a launch that reads these and writes dy is not needed.
#include "batchnorm_arrival.cuh"
#include "convolution_product.cuh"

// Values of the largest patch of a pixel.
constexpr int PATCH = 32;
// Threads per block.
constexpr int THREADS = 256;
// Pixels and channels of a tile of the forward pass.
constexpr int ROWS = 128;
constexpr int COLUMNS = 64;
// Channels of a tile of the weight gradient, and pixels per step.
constexpr int WEIGHT_ROWS = 64;
constexpr int WEIGHT_PIXELS = 128;

// The position of this lane's element in the patch of a pixel: k = (tap row, tap column, channel) = lane.
struct PatchElement {
    int row, column, offset;
    bool present;

    __device__ __forceinline__ PatchElement(const ConvolutionShape& shape) {
        const int k = threadIdx.x % 32, tap = k / shape.in_channels;
        row = tap / shape.kernel - shape.kernel / 2;
        column = tap % shape.kernel - shape.kernel / 2;
        offset = (row * shape.width + column) * shape.in_channels + k % shape.in_channels;
        present = tap < shape.kernel * shape.kernel;
    }
};

// Writes the patches of ROWS pixels from `first` into a tile [ROWS][32], with zeros outside the image, after
// the last element and from pixel `end`. A warp takes neighbouring pixels, a lane one element of each, so
// that everything but the two comparisons with the image's edges is uniform over the warp.
template <int ROWS, int THREADS, typename T>
__device__ __forceinline__ void lay_patches(u8* tile, const ConvolutionShape& shape,
                                            const PatchElement& element, const T* x, int first, int end) {
    const int SHARE = ROWS / (THREADS / 32), lane = threadIdx.x % 32, row = threadIdx.x / 32 * SHARE;
    const Pixel start = Pixel::at(shape, first + row);
    const int line_end = shape.out_width * shape.stride, image_end = shape.out_height * shape.stride;
    int y = start.row * shape.stride, z = start.column * shape.stride;
    int from = ((start.image * shape.height + y) * shape.width + z) * shape.in_channels + element.offset;
    T values[SHARE];
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        const bool inside = element.present & (start.index + i < end) &
                            ((u32)(y + element.row) < (u32)shape.height) &
                            ((u32)(z + element.column) < (u32)shape.width);
        values[i].bits = 0;
        if (inside) values[i] = x[from];
        z += shape.stride, from += shape.stride * shape.in_channels;
        if (z < line_end) continue;
        from += (shape.stride * shape.width - line_end) * shape.in_channels;
        z = 0, y += shape.stride;
        if (y < image_end) continue;
        from += (shape.height - image_end) * shape.width * shape.in_channels;
        y = 0;
    }
#pragma unroll
    for (int i = 0; i < SHARE; ++i)
        *reinterpret_cast<T*>(tile + Swizzled<32>::at(row + i, lane / 8) + lane % 8 * 2) = values[i];
}

template <typename T>
__device__ __forceinline__ void stem_forward(const ConvolutionShape& shape, const T* x, const T* w, T* y,
                                             float* statistics) {
    typedef Product<T, false, ROWS, COLUMNS, PATCH, 4, 2, true, true> P;
    static_assert(P::THREADS == THREADS, "whole warps");
    extern __shared__ __align__(128) u8 shared[];
    const int tiles = ceiling_divide(shape.out_channels, P::N);
    const int base = blockIdx.x / tiles * P::M, first = blockIdx.x % tiles * P::N;
    const Gather gather = forward_gather(shape);

    lay_patches<P::M, P::THREADS>(shared, shape, PatchElement(shape), x, base, gather.points());
    const int length = shape.kernel * shape.kernel * shape.in_channels;
    u8* weights = shared + P::A_BYTES;
#pragma unroll
    for (int i = 0; i < P::N * PATCH / P::THREADS; ++i) {
        const int row = threadIdx.x / 32 + i * (P::THREADS / 32), k = threadIdx.x % 32;
        T value = {0};
        if (k < length && first + row < shape.out_channels) value = w[(first + row) * length + k];
        *reinterpret_cast<T*>(weights + P::B::at(row, k / 8) + k % 8 * 2) = value;
    }
    __syncthreads();
    P product;
    product.clear();
    product.add(shared_address(shared), shared_address(weights));
    __syncthreads();
    finish(product, shared, gather, base, first, shape.out_channels, false, y, statistics, {});
}

#define CONVOLUTION_STEM_FORWARD(NAME, T)                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                            \
        NAME(ConvolutionShape shape, const T* x, const T* w, T* y, float* statistics) { \
        stem_forward(shape, x, w, y, statistics);                                       \
    }

CONVOLUTION_STEM_FORWARD(convolution_stem_forward, bf16)
CONVOLUTION_STEM_FORWARD(convolution_stem_forward_f16, f16)

template <typename T, class Arrival>
__device__ __forceinline__ void stem_weight_gradient(const ConvolutionShape& shape, int share, const T* x,
                                                     const Arrival& arrival, const T* dy, float* partials) {
    typedef Product<T, false, WEIGHT_ROWS, PATCH, WEIGHT_PIXELS, 4, 2, false, false> P;
    static_assert(P::THREADS == THREADS, "whole warps");
    constexpr int LINES = P::THREADS / 8, EACH = P::K / LINES;
    extern __shared__ __align__(128) u8 shared[];
    u8* patches = shared + P::A_BYTES;
    const int first_out = blockIdx.x * P::M, pixels = shape.batch * shape.out_height * shape.out_width;
    const int start = blockIdx.y * share, end = min(start + share, pixels);
    const PatchElement element(shape);
    const int line = threadIdx.x / 8, chunk = threadIdx.x % 8, out = first_out + chunk * 8;
    // A table for each slice of channels.
    float* tables = nullptr;
    if constexpr (Arrival::CHANGES) {
        __shared__ __align__(16) u8 memory[P::M / SLICE * ARRIVAL_TABLE];
        tables = reinterpret_cast<float*>(memory);
        const int own = threadIdx.x;
        if (own < P::M && first_out + own < shape.out_channels)
            arrival.prepare(tables + own / SLICE * (ARRIVAL_TABLE / 4), own % SLICE, first_out + own,
                            shape.out_channels);
        __syncthreads();
    }

    P product;
    product.clear();
    for (int first = start; first < end; first += P::K) {
        typename Arrival::Beside beside[EACH];
#pragma unroll
        for (int r = 0; r < EACH; ++r) {
            const int row = line + r * LINES, pixel = first + row, at = pixel * shape.out_channels + out;
            const bool present = pixel < end && out < shape.out_channels;
            copy_async(shared_address(shared) + P::A::at(row, chunk), dy + at, present);
            if constexpr (Arrival::CHANGES)
                if (present) beside[r] = arrival.beside(at);
        }
        commit_copies();
        lay_patches<P::K, P::THREADS>(patches, shape, element, x, first, end);
        wait_for_copies<0>();
        if constexpr (Arrival::CHANGES) {
#pragma unroll
            for (int r = 0; r < EACH; ++r) {
                const int row = line + r * LINES, pixel = first + row;
                const float* table = tables + chunk * 8 / SLICE * (ARRIVAL_TABLE / 4);
                if (pixel < end && out < shape.out_channels)
                    arrival.change(shared_address(shared) + P::A::at(row, chunk), 0, table, chunk * 8 % SLICE,
                                   beside[r], false);
            }
        }
        __syncthreads();
        product.add(shared_address(shared), shared_address(patches));
        __syncthreads();
    }

    const int length = shape.kernel * shape.kernel * shape.in_channels;
    float* to = partials + (size_t)blockIdx.y * shape.out_channels * length;
    product.each_row([&](int row, auto each_pair) {
        if (first_out + row >= shape.out_channels) return;
        float* line = to + (first_out + row) * length;
        each_pair([&](int column, float low, float high) {
            if (column < length) line[column] = low;
            if (column + 1 < length) line[column + 1] = high;
        });
    });
}

#define CONVOLUTION_STEM_WEIGHT_GRADIENT(NAME, T)                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                \
        NAME(ConvolutionShape shape, int share, const T* x, const T* dy, float* partials) { \
        stem_weight_gradient(shape, share, x, AsItIs(), dy, partials);                      \
    }

CONVOLUTION_STEM_WEIGHT_GRADIENT(convolution_stem_weight_gradient, bf16)
CONVOLUTION_STEM_WEIGHT_GRADIENT(convolution_stem_weight_gradient_f16, f16)

#define CONVOLUTION_STEM_WEIGHT_GRADIENT_OF_BATCHNORM(NAME, T)                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                              \
        NAME(ConvolutionShape shape, int share, const T* x, const T* source, const T* source_x,           \
             const float* affine, const float* batch, const float* d_affine, float* partials) {           \
        const int rows = shape.batch * shape.out_height * shape.out_width;                                \
        const NormalisedGradient<T> arrival = {rows, affine, batch, d_affine, source_x, nullptr};         \
        stem_weight_gradient(shape, share, x, arrival, source, partials);                                 \
    }

CONVOLUTION_STEM_WEIGHT_GRADIENT_OF_BATCHNORM(convolution_stem_weight_gradient_of_batchnorm, bf16)
CONVOLUTION_STEM_WEIGHT_GRADIENT_OF_BATCHNORM(convolution_stem_weight_gradient_of_batchnorm_f16, f16)
