// Augmentation: views of a step's samples, augmented as Pillow and torchvision do it, bit for bit, and
// normalised.
//
// Maths: crop and antialiased bilinear resize; flip; jitter (brightness, contrast, saturation, hue in the
// view's own order); grayscale; three operations of RandAugment; cutout; (v/255 - mean)/std. All random
// numbers are drawn on the host: the kernel reads each view's parameters. Each header holds one part, divided
// as on the CPU.
//
// Tensors: images u8 [N, H, W, 3]; parameters u8 [N, 2, 172 = one ViewParameters], weak before strong; index
//   i32 [B], below N; normalisation f32 [6] = mean, standard deviation; views of T [VB, S, S, 3], view
//   `first` (0 weak, 1 strong) of the samples in the first B rows, the next view behind it.
// Launch: one block per view, grid VB; 128 to 1024 threads per block, whole warps, about eight pixels per
//   thread. Equalize needs three warps.
// Shared memory: two halves of `half` bytes (dynamic), each holding an image uint8 [S, S, 3], tables of 3 KB
//   or the resize weights: 6 KB per block at S = 32, 96 KB at S = 128; and 256 bytes of parameters and sums.
//   53 registers on sm_86: nine blocks of 128 threads per multiprocessor at S = 32, so that 82
//   multiprocessors hold 512 views in one wave; one block at S = 128. The launch bound allows 64 registers;
//   without its second argument the compiler keeps to 32 registers on sm_80, and spills.
// Cost: at least, an image is read once per view and the view written once, for bf16 at 32x32 3,072 + 172 +
//   6,144 bytes, 4.8 MB for 512 views. Stores, of 128 bits, reach that; resizing reads each byte of the crop
//   about four times, which is left to the L1 cache. Intermediate results stay in shared memory. The
//   interpreter counts, on drawn parameters, 15.6 thousand warp instructions per view at S = 32 (7.1 thousand
//   for resize, normalisation and their tables; 35 to 145 per pixel for an operation), 222 thousand at S =
//   128. By issue slots alone 512 views at S = 32 are predicted to take 15 microseconds of an RTX 3090, under
//   a thousandth of a step. Only autocontrast's tables need f64.
// Deterministic: no result depends on an order; sums and histograms are over integers.
// Source: RECORDS (Hong et al., ICLR 2023), the transforms of its experiments; RandAugment (Cubuk et al.,
//   CVPR Workshops 2020); the arithmetic is Pillow's.
#include "augment_affine.cuh"
#include "augment_colour.cuh"
#include "augment_histogram.cuh"
#include "augment_resize.cuh"
#include "normalisation.cuh"

// The operations by their number in the parameters, and two more that the parameters never name.
enum Operation {
    AUTOCONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    EQUALIZE,
    IDENTITY,
    POSTERIZE,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    SOLARIZE,
    TRANSLATE_X,
    TRANSLATE_Y,
    HUE,
    GRAYSCALE
};

struct OperationParameters {
    int kind;
    float factor;
    int integers[6];
};

struct ViewParameters {
    int crop[4];  // top, left, height, width
    int flip;
    int jitter;
    int jitter_order[4];  // 0 brightness, 1 contrast, 2 saturation, else hue
    float jitter_factors[3];
    int hue_shift;
    int grayscale;
    OperationParameters operations[3];
    int cutout[4];  // x0, y0, x1, y1, inclusive
};

// Length of a view's parameters in words.
constexpr int VIEW_WORDS = 43;
// Bytes of shared memory that a launch reserves for `Shared`, beside the two halves.
constexpr int SHARED_RESERVED = 512;
// Most threads per block.
constexpr int THREADS = 1024;
static_assert(sizeof(ViewParameters) == 4 * VIEW_WORDS, "the layout that the host writes");

// What the block shares beside the two halves.
struct Shared {
    Extremes extremes;
    ViewParameters parameters;
    u32 total;
};
static_assert(sizeof(Shared) <= SHARED_RESERVED, "what lowering reserves");

// A crop, clipped to the source.
__device__ __forceinline__ Crop inside(const int (&crop)[4], int height, int width) {
    const int top = min(max(crop[0], 0), height - 1), left = min(max(crop[1], 0), width - 1);
    return {top, left, min(max(crop[2], 1), height - top), min(max(crop[3], 1), width - left)};
}

// Applies one operation; `integers` are those of OperationParameters, or the hue's shift.
__device__ __forceinline__ void apply(View& view, int kind, float factor, const int* integers,
                                      Shared& shared) {
    switch (kind) {
        case AUTOCONTRAST: autocontrast(view, shared.extremes); break;
        case BRIGHTNESS: brightness(view, factor); break;
        case COLOR: saturation(view, factor); break;
        case CONTRAST: contrast(view, factor, shared.total); break;
        case EQUALIZE: equalize(view); break;
        case POSTERIZE: posterize(view, integers[0]); break;
        case ROTATE:
        case SHEAR_X:
        case SHEAR_Y: transform(view, integers); break;
        case SHARPNESS: sharpness(view, factor); break;
        case SOLARIZE: solarize(view, integers[0]); break;
        case TRANSLATE_X:
        case TRANSLATE_Y: translate(view, integers); break;
        case HUE: hue(view, integers[0]); break;
        case GRAYSCALE: grayscale(view); break;
        default: break;  // identity, and unknown numbers
    }
}

// The colour of the reference's cutout over columns x0..x1, rows y0..y1 clipped to the image.
__device__ __forceinline__ void cutout(const View& view, const int (&rectangle)[4]) {
    const int x0 = rectangle[0], y0 = rectangle[1], x1 = rectangle[2], y1 = rectangle[3];
    if (x1 < x0 || y1 < y0) return;
    for_positions(view, [&](int index, int row, int column) {
        if (column >= x0 && column <= x1 && row >= y0 && row <= y1) {
            store_pixel(view.image, index, {125, 123, 114});
        }
    });
}

template <typename T>
__device__ __forceinline__ void augment(int batch, int first, int height, int width, int size, int taps,
                                        int half, const u8* __restrict__ images,
                                        const int* __restrict__ parameters, const int* __restrict__ index,
                                        const float* __restrict__ normalisation, T* __restrict__ views) {
    extern __shared__ uint4 memory[];
    __shared__ Shared shared;
    View view(reinterpret_cast<u8*>(memory), half, size);
    const int row = blockIdx.x;
    const int later = row >= batch ? 1 : 0;
    const int sample = index[row - later * batch];
    if (threadIdx.x < VIEW_WORDS) {
        const size_t start = (size_t)(2 * sample + first + later) * VIEW_WORDS;
        reinterpret_cast<int*>(&shared.parameters)[threadIdx.x] = parameters[start + threadIdx.x];
    }
    __syncthreads();
    const ViewParameters& given = shared.parameters;

    const Crop crop = inside(given.crop, height, width);
    const Axes axes = {reinterpret_cast<int*>(view.other), size, taps};
    make_axes(axes, crop);
    __syncthreads();
    const size_t image_bytes = (size_t)height * width * 3;
    resize_crop(view, images + sample * image_bytes, width, crop, given.flip != 0, axes);

    // The jitter's four parts, grayscale and the three operations are one list, so that each operation's code
    // exists once.
    for (int step = 0; step < 8; ++step) {
        int kind;
        float factor = 0.0f;
        const int* integers = &given.hue_shift;
        if (step < 4) {
            const u32 part = given.jitter_order[step];
            kind = part == 0 ? BRIGHTNESS : part == 1 ? CONTRAST : part == 2 ? COLOR : HUE;
            if (part < 3) factor = given.jitter_factors[part];
            if (given.jitter == 0) kind = IDENTITY;
        } else if (step == 4) {
            kind = given.grayscale != 0 ? GRAYSCALE : IDENTITY;
        } else {
            const OperationParameters& operation = given.operations[step - 5];
            kind = operation.kind <= TRANSLATE_Y ? operation.kind : IDENTITY;
            factor = operation.factor;
            integers = operation.integers;
        }
        apply(view, kind, factor, integers, shared);
    }
    cutout(view, given.cutout);

    __syncthreads();
    float* table = reinterpret_cast<float*>(view.other);
    make_normalisation_table(normalisation, table);
    __syncthreads();
    const int len = 3 * view.pixels;
    normalise(view.image, len, table, views + (size_t)row * len);
}

#define AUGMENT(NAME, T)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                              \
        NAME(int batch, int first, int height, int width, int size, int taps, int half, const u8* images, \
             const int* parameters, const int* index, const float* normalisation, T* views) {             \
        augment(batch, first, height, width, size, taps, half, images, parameters, index, normalisation,  \
                views);                                                                                   \
    }

AUGMENT(augment_bf16, bf16)
AUGMENT(augment_f16, f16)
AUGMENT(augment_f32, float)
