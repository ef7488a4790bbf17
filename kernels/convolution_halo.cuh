// The body of forward pass and data gradient where a tile of a 3x3 convolution of stride 1 is whole rows of
// images: its pixels are copied once for all nine taps, with those around them (the halo).
#pragma once

#include "batchnorm_arrival.cuh"
#include "convolution_product.cuh"

// Bytes of a pixel's slice of channels in shared memory. With sixteen more than it has, eight neighbours in
// a row lie in eight different 16-byte columns of the 32 banks, so that an ldmatrix has no conflict and a
// tap is a constant distance away.
constexpr int HALO_PIXEL = SLICE * 2 + 16;
// The narrowest images.
constexpr int HALO_NARROW = 4;
// Bytes from a row of these to the next: eight lanes read two rows, which must be half the banks apart.
constexpr int HALO_NARROW_ROW = 448;
// The widest images.
constexpr int HALO_WIDEST = 32;
// Rows of taps; a part of the next slice's pixels is copied in each.
constexpr int HALO_SIDE = 3;

// How the points of a tile lie in shared memory with the pixels around them (the halo): row by row, with a
// pixel of zeros in front of each row, which is also the one behind the row before. Images that the tile
// holds whole have a row of zeros above, the last one below as well; of larger ones the rows above and below
// are copied. Widths are powers of two, and so are the pixels of images that a tile holds whole.
struct Halo {
    // Bits of a column in the number of a point, and of a point in its image if the image is whole.
    int column_bits, image_bits;
    int row_bytes, rows;
    // Pixels that are copied, from the first of the tile, or a row before it.
    int pixels;
    bool whole;

    __device__ __forceinline__ Halo(const ConvolutionShape& shape, int points) {
        const int area = shape.height * shape.width;
        whole = area <= points;
        column_bits = __ffs(shape.width) - 1;
        image_bits = whole ? __ffs(area) - 1 : 30;
        row_bytes = shape.width == HALO_NARROW ? HALO_NARROW_ROW : (shape.width + 1) * HALO_PIXEL;
        rows = (points >> column_bits) + (whole ? (points >> image_bits) + 1 : 2);
        pixels = whole ? points : points + 2 * shape.width;
    }

    __device__ __forceinline__ int bytes() const { return rows * row_bytes + HALO_PIXEL; }
    // Rows in shared memory from the first to that of a point.
    __device__ __forceinline__ int row(int point) const {
        return (point >> column_bits) + (point >> image_bits);
    }
    // Offset in bytes of what the tap above and to the left of a point takes.
    __device__ __forceinline__ int at(int point) const {
        return row(point) * row_bytes + (point & (1 << column_bits) - 1) * HALO_PIXEL;
    }

    // Zeros where no pixel is ever copied to, in two buffers from `to`.
    template <int THREADS> __device__ __forceinline__ void clear(u8* to) const {
        const int chunks = row_bytes / 16, image_rows = (1 << image_bits - column_bits) + 1;
        const int end = ((1 << column_bits) + 1) * HALO_PIXEL / 16;
        for (int row = threadIdx.x / 32; row <= rows; row += THREADS / 32) {
            const bool empty = whole && row % image_rows == 0;
            const int last = row < rows ? chunks : HALO_PIXEL / 16;
            for (int chunk = threadIdx.x % 32; chunk < last; chunk += 32)
                if (empty || chunk < HALO_PIXEL / 16 || chunk >= end)
                    for (int buffer = 0; buffer < 2; ++buffer)
                        *reinterpret_cast<uint4*>(to + buffer * bytes() + row * row_bytes + chunk * 16) =
                            make_uint4(0, 0, 0, 0);
        }
    }
};

// What the compiler is to know of the shapes of a kernel with a halo.
__device__ __forceinline__ ConvolutionShape halo_shape(ConvolutionShape shape) {
    shape.kernel = 3, shape.stride = 1;
    shape.out_height = shape.height, shape.out_width = shape.width;
    return shape;
}

// Copies a tile's pixels, four threads each, TOGETHER pixels a thread for every row of taps.
template <class P> struct HaloCopies {
    typedef typename P::T T;
    static constexpr int CHUNKS = P::K / 8, STEP = P::THREADS / CHUNKS;
    static constexpr int TOGETHER = (P::M + 2 * HALO_WIDEST + HALO_SIDE * STEP - 1) / (HALO_SIDE * STEP);
    static_assert(STEP % HALO_WIDEST == 0, "the pixels of a thread are whole rows apart");
    static_assert(TOGETHER == 1 || TOGETHER == 2, "two distances are kept");

    // The first chunk to copy next and where it goes; from a pixel of the thread to its next, in values and
    // bytes; the bytes from the pixels of a row of taps to those of the next. (Where a thread's pixels are half an
    // image apart, every second distance is a row longer: that of the zeros between two images.)
    const T* from;
    u32 into;
    int apart, bytes_apart, bytes_a_row;
    // For each of the thread's pixels three bits: whether there is one, whether it lies inside the image, and
    // whether it is one of the tile's points, not one around them.
    u32 bits;

    __device__ __forceinline__ HaloCopies(const Halo& halo, const ConvolutionShape& shape, int channels,
                                          int base, const T* source, u32 buffer)
        : apart(STEP * channels),
          bytes_apart(halo.row(STEP) * halo.row_bytes),
          bytes_a_row(halo.row(TOGETHER * STEP) * halo.row_bytes),
          bits(0) {
        const int chunk = threadIdx.x % CHUNKS, pixel = threadIdx.x / CHUNKS;
        const int first = (halo.whole ? base : base - shape.width) + pixel;
        const int above = base / shape.width % shape.height - 1;
        const int points = shape.batch * shape.height * shape.width;
        from = source + (ptrdiff_t)first * channels + chunk * 8;
        into = buffer + halo.at(pixel) + HALO_PIXEL + (halo.whole ? halo.row_bytes : 0) + chunk * 16;
#pragma unroll
        for (int i = 0; i < HALO_SIDE * TOGETHER; ++i) {
            const int number = pixel + i * STEP;
            const bool inside = halo.whole
                                    ? first + i * STEP < points
                                    : (u32)(above + (number >> halo.column_bits)) < (u32)shape.height;
            const bool point = (u32)(halo.whole ? number : number - shape.width) < (u32)P::M;
            bits |= ((u32)(number < halo.pixels) | (u32)inside << 1 | (u32)point << 2) << 3 * i;
        }
        bits = kept(bits);
    }

    // Where pixel j of those of a row of taps comes from and goes to.
    __device__ __forceinline__ const T* source(int j) const { return j == 0 ? from : from + apart; }
    __device__ __forceinline__ u32 target(int j) const { return j == 0 ? into : into + bytes_apart; }

    // Copies the thread's pixels for row of taps `row`, whose turn it is; `present`: whether there are their
    // channels.
    __device__ __forceinline__ void copy(int row, bool present) const {
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j) {
            const u32 own = bits >> 3 * (row * TOGETHER + j);
            if (own & 1) copy_async(target(j), source(j), present && (own & 2));
        }
    }

    // Passes the turn on from the pixels of a row of taps. Behind the last are the first of the next slice, in
    // the buffer `other` bytes on.
    __device__ __forceinline__ void advance(int row, int other) {
        const bool last = row == HALO_SIDE - 1;
        from = kept(from + (last ? P::K - (HALO_SIDE - 1) * TOGETHER * apart : TOGETHER * apart));
        into += last ? other - (HALO_SIDE - 1) * bytes_a_row : bytes_a_row;
    }

    // Whether pixel j of a row of taps lies inside the image, and whether it is one of the tile's points.
    __device__ __forceinline__ bool inside(int row, int j) const {
        return (bits >> 3 * (row * TOGETHER + j) & 3) == 3;
    }
    __device__ __forceinline__ bool point(int row, int j) const {
        return bits >> 3 * (row * TOGETHER + j) & 4;
    }
};

// Copies the weights of one tap after the other, as Weights does.
template <class P, bool FORWARD> struct WeightsInTurn {
    typedef typename P::T T;
    typedef Weights<P, FORWARD> Of;

    // The thread's first chunk of the next tap; values from its row to its next, from a tap to the next, and
    // from the last tap of a slice to the first of the next.
    const T* from;
    int apart, to_tap, to_slice;
    u32 into;
    // Rows that are there, counted from the thread's first; channels from its chunk on.
    int rows, chunks;

    __device__ __forceinline__ WeightsInTurn(const Of& of)
        : from(of.w + (ptrdiff_t)((FORWARD ? of.first : 0) + of.row) * of.taps * of.in_channels +
               (FORWARD ? 0 : of.first) + of.chunk * 8),
          apart(Of::ROW_STEP * of.taps * of.in_channels),
          to_tap(of.in_channels),
          to_slice(FORWARD ? P::K - 8 * of.in_channels : (P::K * of.taps - 8) * of.in_channels),
          into(of.into),
          rows(of.out_channels - (FORWARD ? of.first : 0) - of.row),
          chunks(of.in_channels - (FORWARD ? 0 : of.first) - of.chunk * 8) {}

    // The next tap's weights, of the slice of channels from `channel`; `last`: it is that slice's last.
    __device__ __forceinline__ void copy(u32 tile, int channel, bool last) {
#pragma unroll
        for (int i = 0; i < Of::LOADS; ++i) {
            const int row = i * Of::ROW_STEP + (FORWARD ? 0 : channel), first = FORWARD ? channel : 0;
            copy_async(P::B::moved(tile + into, i * Of::ROW_STEP, 0), from + i * apart,
                       row < rows && first < chunks);
        }
        from = kept(from + (last ? to_slice : to_tap));
    }
};

// The gather of gather_product with a halo: the same products in the same order. What `arrival` makes of the
// pixels is multiplied.
template <class P, bool FORWARD, int STAGES, class Arrival, typename Finish>
__device__ __forceinline__ void halo_product(const ConvolutionShape& shape, const Arrival& arrival,
                                             const typename P::T* source, const typename P::T* w,
                                             Finish finish) {
    extern __shared__ __align__(128) u8 shared[];
    const int SIDE = HALO_SIDE, TOGETHER = HaloCopies<P>::TOGETHER;
    static_assert(STAGES <= SIDE, "at most a row of taps is under way");
    const int channels = FORWARD ? shape.in_channels : shape.out_channels;
    const int width = FORWARD ? shape.out_channels : shape.in_channels;
    const int tiles = ceiling_divide(width, P::N);
    const int base = blockIdx.x / tiles * P::M, first = blockIdx.x % tiles * P::N;

    const Halo halo(shape, P::M);
    u8* buffers = shared + STAGES * P::B_BYTES;
    // From the buffer that is read to the other.
    int other = halo.bytes();
    u32 stages[STAGES];
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) stages[stage] = shared_address(shared) + stage * P::B_BYTES;
    HaloCopies<P> pixels(halo, shape, channels, base, source, shared_address(buffers));
    WeightsInTurn<P, FORWARD> weights(Weights<P, FORWARD>(shape, w, first));

    const int chunk = threadIdx.x % HaloCopies<P>::CHUNKS * 8;
    const HaloCopies<P> first_pixels = pixels;
#pragma unroll
    for (int row = 0; row < SIDE; ++row) {
        pixels.copy(row, chunk < channels);
        pixels.advance(row, other);
    }
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        weights.copy(stages[stage], 0, false);
        commit_copies();
    }
    halo.clear<P::THREADS>(buffers);
    // Slices until one whose changed points are the block's to store: its neighbours have the same pixels.
    int turn = 0;
    float* table = reinterpret_cast<float*>(buffers + 2 * halo.bytes());
    if constexpr (Arrival::CHANGES) {
        turn = kept(blockIdx.x % tiles);
        if (threadIdx.x < min(P::K, channels)) arrival.prepare(table, threadIdx.x, threadIdx.x, channels);
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        HaloCopies<P> arrived = first_pixels;
#pragma unroll
        for (int row = 0; row < SIDE; ++row) {
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j) {
                if (!arrived.inside(row, j) || chunk >= channels) continue;
                const ptrdiff_t at = arrived.source(j) - source;
                const bool store = arrived.point(row, j) && turn == 0;
                arrival.change(arrived.target(j), at, table, chunk, arrival.beside(at), store);
            }
            arrived.advance(row, other);
        }
        turn = turn == 0 ? tiles - 1 : turn - 1;
    }
    // What a lane's points take for the first tap of a row of taps. The data gradient's taps are mirrored.
    const int to_row = FORWARD ? halo.row_bytes : -halo.row_bytes;
    u32 points[P::FM];
#pragma unroll
    for (int i = 0; i < P::FM; ++i)
        points[i] = shared_address(buffers) + halo.at(P::row(i) + P::lane() % 16) + P::lane() / 16 * 16 +
                    (FORWARD ? 0 : 2 * halo.row_bytes);
    const BothWays lane_b = P::lane_b();

    P product;
    product.clear();
    int channel = 0, row = 0;
    const int steps = SIDE * ceiling_divide(channels, P::K);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        const bool last_row = row == SIDE - 1;
        const int behind = last_row ? channel + P::K : channel;
        typename Arrival::Beside beside[TOGETHER] = {};
#pragma unroll
        for (int tap = 0; tap < SIDE; ++tap) {
            wait_for_copies<STAGES - 2>();
            __syncthreads();
            const int offset = (FORWARD ? tap : SIDE - 1 - tap) * HALO_PIXEL;
            product.add([&](int i, int k, u32(&a)[4]) { load_matrices(points[i] + offset + k * 2, a); },
                        lane_b + stages[tap % STAGES], [&] {
                            const int ahead = tap + STAGES - 1;
                            const u32 stage = stages[ahead % STAGES];
                            if (ahead < SIDE)
                                weights.copy(stage, channel, last_row && ahead == SIDE - 1);
                            else if (step + 1 < steps)
                                weights.copy(stage, behind, false);
                            const int next = channel + P::K;
                            if (tap == 0 && next < channels) {
                                pixels.copy(row, next + chunk < channels);
                                if constexpr (Arrival::CHANGES) {
                                    const int own = threadIdx.x;
                                    if (row == 0 && own < min(P::K, channels - next))
                                        arrival.prepare(table, own, next + own, channels);
#pragma unroll
                                    for (int j = 0; j < TOGETHER; ++j)
                                        if (pixels.inside(row, j) && next + chunk < channels)
                                            beside[j] = arrival.beside(pixels.source(j) - source);
                                } else {
                                    pixels.advance(row, -other);
                                }
                            }
                            // Two taps later the thread's own copy is there, and everyone sees the table.
                            if constexpr (Arrival::CHANGES) {
                                if (tap == SIDE - 1 && next < channels) {
                                    // Computed anew: there is no register to keep it in.
                                    const int own = kept(threadIdx.x) % HaloCopies<P>::CHUNKS * 8;
#pragma unroll
                                    for (int j = 0; j < TOGETHER; ++j)
                                        if (pixels.inside(row, j) && next + own < channels)
                                            arrival.change(pixels.target(j), pixels.source(j) - source, table,
                                                           own, beside[j], pixels.point(row, j) && turn == 0);
                                    pixels.advance(row, -other);
                                }
                            }
                            commit_copies();
                        });
        }
        // The first tap of the next row is in the stage behind this one's last.
        u32 turned[STAGES];
#pragma unroll
        for (int stage = 0; stage < STAGES; ++stage) turned[stage] = stages[(stage + SIDE) % STAGES];
#pragma unroll
        for (int stage = 0; stage < STAGES; ++stage) stages[stage] = turned[stage];
        const int move = last_row ? other - (SIDE - 1) * to_row : to_row;
#pragma unroll
        for (int i = 0; i < P::FM; ++i) points[i] += move;
        other = last_row ? -other : other;
        if (Arrival::CHANGES && last_row) turn = turn == 0 ? tiles - 1 : turn - 1;
        channel = behind;
        row = last_row ? 0 : row + 1;
    }
    wait_for_copies<0>();
    __syncthreads();
    if constexpr (FORWARD) {
        finish(product, shared, base, first);
    } else {
        // Computed anew: the loop has no registers to keep them in.
        const int number = kept(blockIdx.x);
        finish(product, shared, number / tiles * P::M, number % tiles * P::N);
    }
}

// The product by either way.
template <class P, bool FORWARD, bool HALO, int STAGES, typename Finish>
__device__ __forceinline__ void tile_product(const Gather& gather, const ConvolutionShape& shape, int width,
                                             const typename P::T* source, const typename P::T* w,
                                             Finish finish) {
    if constexpr (HALO)
        halo_product<P, FORWARD, STAGES>(halo_shape(shape), AsItIs(), source, w, finish);
    else
        gather_product<P, FORWARD, STAGES>(gather, shape, width, source, w, finish);
}
