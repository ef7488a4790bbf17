// The body of the weight gradient of a 3x3 convolution of stride 1 where the pixels of a step are whole rows of
// images: each pixel of x is copied once for all nine taps, in a window that rolls down the rows.
#pragma once

#include "convolution_halo.cuh"

// How x lies in shared memory: units of SLICE pixels, each pixel a slice of channels, row by row, with a pixel
// of zeros in front of each row, which is also the one behind the row before. The units of a ring follow each
// other without a gap, so that the rows above and below a unit are its neighbours; behind the ring is a row of
// zeros, which stands for what lies above and below an image. Widths are powers of two, and a unit is whole
// rows of an image or whole images.
struct Window {
    // Bits of a column in the number of a pixel.
    int column_bits, row_bytes;
    // Rows of a unit.
    int rows;

    __device__ __forceinline__ explicit Window(const ConvolutionShape& shape)
        : column_bits(__ffs(shape.width) - 1),
          row_bytes(shape.width == HALO_NARROW ? HALO_NARROW_ROW : (shape.width + 1) * HALO_PIXEL),
          rows(SLICE >> column_bits) {}

    __device__ __forceinline__ int unit_bytes() const { return rows * row_bytes; }
    // Offset in bytes of the pixel in front of a unit's pixel `point`, from its row's beginning.
    __device__ __forceinline__ int across(int point) const {
        return (point & (1 << column_bits) - 1) * HALO_PIXEL;
    }
};

// Units of the ring beside those that are under way: the step's, those above and below it.
constexpr int WINDOW_UNITS = 3;

// Copies a unit of dy after the other, eight threads to a pixel.
template <class P> struct GradientInTurn {
    typedef typename P::T T;
    static constexpr int CHUNKS = P::M / 8, STEP = P::THREADS / CHUNKS;
    static_assert(STEP % 8 == 0, "the pixels of a thread are permuted alike");

    const T* dy;
    // The thread's first value of the next unit; values from a pixel to the next.
    int from, apart;
    u32 into;
    bool present;

    __device__ __forceinline__ GradientInTurn(const ConvolutionShape& shape, const T* dy, int first, int start)
        : dy(dy), apart(shape.out_channels) {
        const int pixel = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        from = (start + pixel) * apart + first + chunk * 8;
        into = kept(P::A::at(pixel, chunk));
        present = first + chunk * 8 < apart;
    }

    // The next unit, of which `left` pixels are the block's.
    __device__ __forceinline__ void copy(u32 tile, int left) {
#pragma unroll
        for (int line = 0; line < P::K; line += STEP)
            if (line + STEP <= P::K || threadIdx.x < (P::K - line) * CHUNKS)
                copy_async(tile + into + line * P::M * 2, dy + from + line * apart,
                           present && line + (int)threadIdx.x / CHUNKS < left);
        from += P::K * apart;
    }
};

// Copies a unit of x after the other to the ring, by the threads that copy less of dy.
template <class P> struct WindowInTurn {
    typedef typename P::T T;
    static constexpr int CHUNKS = SLICE / 8, FIRST = P::THREADS - P::K * CHUNKS;
    static_assert(FIRST >= 0 && P::K == SLICE, "a thread copies at most one chunk of a unit");

    const T* x;
    // The thread's first value of the next unit, values from a unit to the next, and where they go in the ring.
    int from, apart, into;
    int unit, ring, pixels;
    bool present;

    // From the unit in front of pixel `start` on, of the slice of channels from `first`.
    __device__ __forceinline__ WindowInTurn(const Window& window, const ConvolutionShape& shape, const T* x,
                                            int first, int start, int units)
        : x(x),
          apart(P::K * shape.in_channels),
          unit(window.unit_bytes()),
          ring(units * window.unit_bytes()),
          pixels(shape.batch * shape.height * shape.width) {
        const int number = threadIdx.x - FIRST, point = number / CHUNKS, chunk = number % CHUNKS;
        from = (start - P::K + point) * shape.in_channels + first + chunk * 8;
        into = (point >> window.column_bits) * window.row_bytes + window.across(point) + HALO_PIXEL +
               chunk * 16;
        present = first + chunk * 8 < shape.in_channels;
    }

    // The next unit, of the pixels from `first` on.
    __device__ __forceinline__ void copy(u32 to, int first) {
        const int point = (int)(threadIdx.x - FIRST) / CHUNKS;
        if (threadIdx.x >= FIRST)
            copy_async(to + into, x + from, present && (u32)(first + point) < (u32)pixels);
        from += apart;
        into += unit;
        into -= into >= ring ? ring : 0;
    }
};

// What a lane loads of the window for its warp's row of taps: eight channels of a pixel, or zeros where the tap
// lies above or below the image. One load gives a warp the 32 pixels of a step by eight channels where they
// are summed in one run, else sixteen pixels by sixteen channels.
template <class P> struct WindowRows {
    static constexpr int LOADS = P::IN_SHORT ? 1 : P::K / 16;

    // Of the pixel to the left of the lane's: its offset from the unit above the step's, and in which row of an
    // image a step begins of which it lies outside. An offset in the row of zeros.
    int offset[LOADS], outside[LOADS], zeros;
    // The row in which the step begins, and the unit above it; to the next step's.
    int row, height, above, ring;
    int rows, unit;

    __device__ __forceinline__ WindowRows(const Window& window, const ConvolutionShape& shape, int start,
                                          int units)
        : zeros(units * window.unit_bytes() + window.across(P::lane() % 16) +
                // Where eight lanes read two rows, half the banks from the row that is there.
                (threadIdx.x / 32 / P::WARPS_M == 0 && shape.width == HALO_NARROW ? 64 : 0)),
          row((start >> window.column_bits) % shape.height),
          height(shape.height),
          above(0),
          ring(units * window.unit_bytes()),
          rows(window.rows % shape.height),
          unit(window.unit_bytes()) {
        static_assert(!P::IN_SHORT || P::K == 32, "a lane has a pixel");
        const int tap = threadIdx.x / 32 / P::WARPS_M;
        // The upper row of taps lies outside of an image's first row, the lower one of its last.
        const int edge = tap == 0 ? 0 : height - 1;
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            const int point = P::IN_SHORT ? P::lane() : load * 16 + P::lane() % 16;
            const int line = point >> window.column_bits, ahead = line % height;
            offset[load] = unit + (line + tap - 1) * window.row_bytes + window.across(point) +
                           (P::IN_SHORT ? 0 : P::lane() / 16 * 16);
            outside[load] = tap == 1 ? -1 : edge - ahead + (edge < ahead ? height : 0);
        }
    }

    // Where the lane loads in the step that is next, in the ring that starts at `start`.
    __device__ __forceinline__ void next(u32 start, u32 (&at)[LOADS]) {
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            const int place = above + offset[load];
            at[load] = start + (row == outside[load] ? zeros : place - (place >= ring ? ring : 0));
        }
        above += unit;
        above -= above >= ring ? ring : 0;
        row += rows;
        row -= row >= height ? height : 0;
    }
};

// product += the products of a step: of a warp's output channels with its row of taps, of which its lanes load
// from `columns` on. A fragment is eight channels of a tap. `between` is called once, behind the first of them
// (in short runs the second: fewer registers).
template <class P, typename Between>
__device__ __forceinline__ void add_window(P& product, u32 first_a, const u32 (&columns)[WindowRows<P>::LOADS],
                                           Between between) {
    typedef typename P::T T;
    const int RUNS = P::K / 16;
    u32 a[RUNS][P::FM][4];
#pragma unroll
    for (int run = 0; run < RUNS; ++run)
#pragma unroll
        for (int i = 0; i < P::FM; ++i) P::load_a(first_a, i, run * 16, a[run][i]);
    if constexpr (P::IN_SHORT) {
#pragma unroll
        for (int j = 0; j < P::FN; ++j) {
            u32 b[4];
            load_matrices_transposed(columns[0] + j / 4 * HALO_PIXEL + j % 4 * 16, b);
#pragma unroll
            for (int i = 0; i < P::FM; ++i) {
                u32 sums[2] = {};
#pragma unroll
                for (int run = 0; run < RUNS; ++run)
                    multiply_fragments_in_f16(sums, a[run][i], b[2 * run], b[2 * run + 1]);
                P::add_run(product.c[i][j], sums);
            }
            if (j == 1) between();
        }
    } else {
#pragma unroll
        for (int j = 0; j < P::FN; j += 2) {
#pragma unroll
            for (int run = 0; run < RUNS; ++run) {
                u32 b[4];
                load_matrices_transposed(columns[run] + j / 4 * HALO_PIXEL + j % 4 * 16, b);
#pragma unroll
                for (int i = 0; i < P::FM; ++i)
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        multiply_fragments<T>(product.c[i][j + half], a[run][i], b[2 * half], b[2 * half + 1]);
            }
            if (j == 0) between();
        }
    }
}

// As weight_gradient, with the nine taps of SLICE input channels as the columns of a block: the same products
// in the same order.
template <class P, int STAGES>
__device__ __forceinline__ void window_weight_gradient(const ConvolutionShape& shape, int share,
                                                       const typename P::T* x, const typename P::T* dy,
                                                       float* partials) {
    extern __shared__ __align__(128) u8 shared[];
    static_assert(P::WARPS_N == 3 && P::N == 9 * SLICE && P::K == SLICE, "a warp has a row of taps");
    const int tiles = ceiling_divide(shape.in_channels, SLICE);
    const int first_out = blockIdx.x / tiles * P::M, first_in = blockIdx.x % tiles * SLICE;
    const int start = blockIdx.y * share, end = min(start + share, shape.batch * shape.height * shape.width);
    const int steps = ceiling_divide(end - start, P::K), units = WINDOW_UNITS + STAGES - 1;

    const Window window(shape);
    u8* ring = shared + STAGES * P::A_BYTES;
    const int bytes = units * window.unit_bytes() + window.row_bytes + HALO_PIXEL;
    for (int at = threadIdx.x * 16; at < bytes; at += P::THREADS * 16)
        *reinterpret_cast<uint4*>(ring + at) = make_uint4(0, 0, 0, 0);
    __syncthreads();

    GradientInTurn<P> gradient(shape, dy, first_out, start);
    WindowInTurn<P> pixels(window, shape, x, first_in, start, units);
    const u32 window_start = shared_address(ring);
    const u32 first_stage = shared_address(shared), last_stage = first_stage + (STAGES - 1) * P::A_BYTES;
    // A unit of dy, and the one of x behind it.
    auto copy = [&](u32 stage, int unit) {
        gradient.copy(stage, end - unit);
        pixels.copy(window_start, unit + P::K);
    };
    pixels.copy(window_start, start - P::K);
    pixels.copy(window_start, start);
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < steps) copy(first_stage + stage * P::A_BYTES, start + stage * P::K);
        commit_copies();
    }

    WindowRows<P> rows(window, shape, start, units);
    const u32 lane_a = P::lane_a();
    u32 reading = first_stage, writing = last_stage;
    P product;
    product.clear();
#pragma unroll 1
    for (int unit = start; unit < end; unit += P::K) {
        u32 columns[WindowRows<P>::LOADS];
        rows.next(window_start, columns);
        // As in multiply_pipelined. The unit that is overwritten was above the last step's.
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        add_window(product, reading + lane_a, columns, [&] {
            const int ahead = unit + (STAGES - 1) * P::K;
            if (ahead < end) copy(writing, ahead);
            commit_copies();
        });
        reading = reading == last_stage ? first_stage : reading + P::A_BYTES;
        writing = writing == last_stage ? first_stage : writing + P::A_BYTES;
    }

    const int columns = 9 * shape.in_channels, tap_row = threadIdx.x / 32 / P::WARPS_M;
    float* out = partials + (size_t)blockIdx.y * shape.out_channels * columns;
#pragma unroll
    for (int i = 0; i < P::FM; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_out + P::row(i, half);
            if (row >= shape.out_channels) continue;
#pragma unroll
            for (int j = 0; j < P::FN; ++j) {
                const int tap = tap_row * 3 + j / 4, in = first_in + j % 4 * 8 + P::lane() % 4 * 2;
                if (in < shape.in_channels)
                    *reinterpret_cast<float2*>(out + row * columns + tap * shape.in_channels + in) =
                        make_float2(product.c[i][j][2 * half], product.c[i][j][2 * half + 1]);
            }
        }
}
