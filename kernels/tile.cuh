// The building blocks of the tensor-core kernels: asynchronous copies, swizzled tiles in shared memory,
// fragments, and the multiplication of two tiles by one warp.
//
// Sources: PTX ISA, "cp.async", "ldmatrix", "Matrix fragments for mma.m16n8k16".
#pragma once

#include "common.cuh"

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// Copies sixteen bytes from global to shared memory without passing through registers; if not `valid`, writes
// zeros and does not read `from`. Bypasses the L1 cache: for data that the block reads once.
__device__ __forceinline__ void copy_async(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

// The same through the L1 cache: for data that the block reads again soon.
__device__ __forceinline__ void copy_async_cached(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

// Closes the group of copies started since the last call.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` of this thread's newest groups are in flight.
template <int PENDING> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Sixteen bytes at a shared address, which is a multiple of sixteen.
__device__ __forceinline__ uint4 load_shared(u32 from) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(from)
                 : "memory");
    return value;
}

__device__ __forceinline__ void store_shared(u32 to, const uint4& value) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y),
                 "r"(value.z), "r"(value.w)
                 : "memory");
}

// The value, opaque to the compiler: left to itself, it computes what depends on the thread's number alone
// anew in every step of a loop rather than keep it in a register.
__device__ __forceinline__ u32 kept(u32 value) {
    asm volatile("" : "+r"(value));
    return value;
}

template <typename T> __device__ __forceinline__ const T* kept(const T* pointer) {
    asm volatile("" : "+l"(pointer));
    return pointer;
}

// An address in a swizzled tile, and what an exclusive or makes of it.
struct BothWays {
    u32 plain, flipped;

    __device__ __forceinline__ BothWays operator+(u32 distance) const {
        return {plain + distance, flipped + distance};
    }
};

// Rows of COLUMNS bf16 or f16 in shared memory, cut into chunks of eight (16 bytes). The chunks of a row are
// permuted by an exclusive or with the row's number, so that the chunks of eight rows at one column, which an
// ldmatrix phase or eight lanes of a fragment read together, lie in eight different 16-byte columns of the 32
// banks.
template <int COLUMNS> struct Swizzled {
    static constexpr int CHUNKS = COLUMNS / 8;
    static constexpr int SHIFT = CHUNKS == 2 ? 2 : CHUNKS == 4 ? 1 : 0;
    static constexpr int MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
    static_assert(COLUMNS % 8 == 0 && (CHUNKS == 2 || CHUNKS == 4 || CHUNKS % 8 == 0),
                  "rows fill or divide 128 bytes");

    // Offset of a chunk in bytes from the tile's start.
    static __device__ __forceinline__ int at(int row, int chunk) {
        return (row * CHUNKS + (chunk & ~MASK) + ((chunk ^ row >> SHIFT) & MASK)) * 16;
    }

    // From the address of chunk (row, chunk) to that of (row + rows, chunk + chunks), where `rows` is a
    // multiple of 8, which does not change the permutation, and `chunks` has no bit in common with `chunk`:
    // an exclusive or and an addition, both of constants where the distances are. The tile starts at a
    // multiple of 128 bytes.
    static __device__ __forceinline__ u32 moved(u32 address, int rows, int chunks) {
        return (address ^ (chunks & MASK) * 16) + (rows * CHUNKS + (chunks & ~MASK)) * 16;
    }
    // The same, of an address that is kept with and without the one exclusive or that a loop needs.
    static __device__ __forceinline__ u32 moved(const BothWays& address, int rows, int chunks) {
        return ((chunks & MASK) ? address.flipped : address.plain) + (rows * CHUNKS + (chunks & ~MASK)) * 16;
    }
};

// Loads four 8x8 matrices; lane l supplies the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 address, u32 (&to)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 address, u32 (&to)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// c (16x8, f32) += a (16x16, T) b (16x8, T).
template <typename T>
__device__ __forceinline__ void multiply_fragments(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);

template <>
__device__ __forceinline__ void multiply_fragments<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void multiply_fragments<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum (16x8, f16 in pairs, the first and the last two of c above) += a (16x16, f16) b (16x8, f16): twice the
// rate of f32 sums on GeForce chips of sm_86 and sm_89.
__device__ __forceinline__ void multiply_fragments_in_f16(u32 (&sum)[2], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
        : "+r"(sum[0]), "+r"(sum[1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Products along k that are summed in f16 before the sum is added to one in f32.
constexpr int SHORT_RUN = 32;

// How a matrix product is tiled. The block's product is M x N, a stage of the pipeline K deep; WARPS_M x
// WARPS_N warps share it. KA, KB: whether the summed index is the contiguous one of the A (B) tile, [M][K]
// ([N][K]), or the rows, [K][M] ([K][N]). T: bf16 or f16. SHORT: f16 products are summed in f16 over runs of
// SHORT_RUN, and the runs in f32; a run beyond 65504 gives infinity.
template <typename T_, bool SHORT, int M_, int N_, int K_, int WARPS_M_, int WARPS_N_, bool KA, bool KB>
struct Product {
    typedef T_ T;
    static constexpr int M = M_, N = N_, K = K_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr bool IN_SHORT = SHORT;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    // Fragments per warp: of 16 rows each, of 8 columns each.
    static constexpr int FM = M / WARPS_M / 16, FN = N / WARPS_N / 8;
    static constexpr int A_BYTES = M * K * 2, B_BYTES = N * K * 2;
    static_assert(M % (16 * WARPS_M) == 0 && N % (16 * WARPS_N) == 0 && K % 16 == 0,
                  "whole fragments, B's in pairs");

    typedef Swizzled<KA ? K : M> A;
    typedef Swizzled<KB ? K : N> B;

    // c[i][j][..]: fragment i, j. Lane l holds rows l / 4 (first two values) and l / 4 + 8 at columns 2 (l %
    // 4) and the next.
    float c[FM][FN][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j)
#pragma unroll
                for (int v = 0; v < 4; ++v) c[i][j][v] = 0.0f;
    }

    static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }
    static __device__ __forceinline__ int warp_row() { return threadIdx.x / 32 % WARPS_M; }
    // The first row of the warp's fragment i, and the first of its j-th 16 columns, in the block's product.
    // The warps' fragments alternate, so that consecutive fragments of a warp have a constant distance in a
    // swizzled tile where possible.
    static __device__ __forceinline__ int row(int i) { return (warp_row() + WARPS_M * i) * 16; }
    static __device__ __forceinline__ int column(int j) {
        return (threadIdx.x / 32 / WARPS_M + WARPS_N * j) * 16;
    }
    // The row of c[i][..][2 * half], and the column of c[..][j][0], the first of two.
    static __device__ __forceinline__ int row(int i, int half) { return row(i) + 8 * half + lane() / 4; }
    static __device__ __forceinline__ int pair(int j) { return column(j / 2) + j % 2 * 8 + lane() % 4 * 2; }

    // Where a lane's first fragments lie in the tiles, in bytes. ldmatrix gives each lane two neighbours
    // along a row of the tile, and mma needs neighbours along k; if k runs down the rows, the transposing
    // form supplies them. Half-warp order (k outside) for A along k and B along n, quarter order (k inside)
    // for the other two.
    struct Lanes {
        u32 a, b;
    };
    static __device__ __forceinline__ Lanes lanes() {
        const int low = lane() % 16, high = lane() / 16;
        const int quarter_row = lane() / 16 * 8 + lane() % 8, quarter_chunk = lane() / 8 % 2;
        const int n = column(0);
        return {lane_a(),
                kept(KB ? B::at(n + quarter_row, quarter_chunk) : B::at(low, n / 8 + high))};
    }

    static __device__ __forceinline__ u32 lane_a() {
        const int m = row(0), quarter_row = lane() / 16 * 8 + lane() % 8, quarter_chunk = lane() / 8 % 2;
        return kept(KA ? A::at(m + lane() % 16, lane() / 16) : A::at(quarter_row, m / 8 + quarter_chunk));
    }

    // The lane's place in a B tile for a loop whose addresses are to be constants apart.
    static __device__ __forceinline__ BothWays lane_b() {
        const int FLIP = KB ? 2 : 2 * WARPS_N & B::MASK;
        static_assert(KB ? K == 32 : FN <= 4 || FLIP == 0, "there is one exclusive or");
        const u32 b = lanes().b;
        return {b, kept(b ^ FLIP * 16)};
    }

    // Fragment i of A, and the fragments of B, of the 16 values along k from `k`.
    static __device__ __forceinline__ void load_a(u32 first_a, int i, int k, u32 (&a)[4]) {
        const int m = WARPS_M * i * 16;
        if (KA)
            load_matrices(A::moved(first_a, m, k / 8), a);
        else
            load_matrices_transposed(A::moved(first_a, k, m / 8), a);
    }
    template <typename Address>
    static __device__ __forceinline__ void load_b(Address first_b, int k, u32 (&b)[FN / 2][4]) {
#pragma unroll
        for (int j = 0; j < FN / 2; ++j) {
            const int n = WARPS_N * j * 16;
            if (KB)
                load_matrices(B::moved(first_b, n, k / 8), b[j]);
            else
                load_matrices_transposed(B::moved(first_b, k, n / 8), b[j]);
        }
    }

    // c += the product of an A tile and a B tile; `between` is called once, when the first 16 values along k
    // are being multiplied (with SHORT, the first run).
    template <typename Between>
    __device__ __forceinline__ void add(u32 a_tile, u32 b_tile, const Lanes& lanes, Between between) {
        const u32 first_a = a_tile + lanes.a;
        add([&](int i, int k, u32(&a)[4]) { load_a(first_a, i, k, a); }, b_tile + lanes.b, between);
    }

    // The same with fragments of A from anywhere: load(i, k, a) loads fragment i of the 16 values from k.
    template <typename Load, typename Address, typename Between>
    __device__ __forceinline__ void add(Load load, Address first_b, Between between) {
        if constexpr (SHORT) {
            add_short(load, first_b, between);
        } else {
#pragma unroll
            for (int k = 0; k < K; k += 16) {
                u32 b[FN / 2][4];
                load_b(first_b, k, b);
#pragma unroll
                for (int i = 0; i < FM; ++i) {
                    u32 a[4];
                    load(i, k, a);
#pragma unroll
                    for (int j = 0; j < FN; ++j)
                        multiply_fragments<T>(c[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
                }
                if (k == 0) between();
            }
        }
    }

    // The same in short runs: a row of fragments at a time, so that few sums in f16 are alive.
    template <typename Load, typename Address, typename Between>
    __device__ __forceinline__ void add_short(Load load, Address first_b, Between between) {
        static_assert(K % SHORT_RUN == 0, "whole runs");
#pragma unroll
        for (int run = 0; run < K; run += SHORT_RUN) {
            u32 b[SHORT_RUN / 16][FN / 2][4];
#pragma unroll
            for (int k = 0; k < SHORT_RUN; k += 16) load_b(first_b, run + k, b[k / 16]);
#pragma unroll
            for (int i = 0; i < FM; ++i) {
                u32 sums[FN][2] = {};
#pragma unroll
                for (int k = 0; k < SHORT_RUN; k += 16) {
                    u32 a[4];
                    load(i, run + k, a);
#pragma unroll
                    for (int j = 0; j < FN; ++j)
                        multiply_fragments_in_f16(sums[j], a, b[k / 16][j / 2][j % 2 * 2],
                                                  b[k / 16][j / 2][j % 2 * 2 + 1]);
                }
                if (run == 0 && i == 0) between();
#pragma unroll
                for (int j = 0; j < FN; ++j) add_run(c[i][j], sums[j]);
            }
        }
    }

    // c of a fragment += the sums of a run.
    static __device__ __forceinline__ void add_run(float (&c)[4], const u32 (&sums)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            c[2 * half] += Packed<f16>::low(sums[half]);
            c[2 * half + 1] += Packed<f16>::high(sums[half]);
        }
    }

    __device__ __forceinline__ void add(u32 a_tile, u32 b_tile) {
        add(a_tile, b_tile, lanes(), [] {});
    }

    // Calls visit(row, each_pair) for every row of which this lane holds values; each_pair(visit_pair) calls
    // visit_pair(column, value, value of the next column) for each pair of them.
    template <typename Visit> __device__ __forceinline__ void each_row(Visit visit) {
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                visit(row(i, half), [&](auto visit_pair) {
#pragma unroll
                    for (int j = 0; j < FN; ++j)
                        visit_pair(pair(j), c[i][j][2 * half], c[i][j][2 * half + 1]);
                });
    }
};

// product += the products of `steps` tiles of A and B. `copy(tiles)` starts the copies of the next step's A
// tile to the address `tiles` and of its B tile behind that. The ring of STAGES stages starts at `ring`;
// while one stage is multiplied, the copies of the others are in flight. A step's copies are issued behind
// its first tensor instructions: in front of them, the tensor cores would wait after every barrier for some
// sixty instructions of address arithmetic, which the compiler may not move past the copies.
template <int STAGES, class P, typename Copy>
__device__ __forceinline__ void multiply_pipelined(P& product, u32 ring, int steps, Copy copy) {
    const int STAGE_BYTES = P::A_BYTES + P::B_BYTES;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < steps) copy(ring + stage * STAGE_BYTES);
        commit_copies();
    }
    const typename P::Lanes lanes = P::lanes();
    int reading = 0, writing = STAGES - 1;
    for (int step = 0; step < steps; ++step) {
        // This thread's copies of the stage have arrived; after the barrier everyone's have, and every thread
        // has read the stage that is now overwritten.
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        const u32 a_tile = ring + reading * STAGE_BYTES;
        product.add(a_tile, a_tile + P::A_BYTES, lanes, [&] {
            if (step + STAGES - 1 < steps) copy(ring + writing * STAGE_BYTES);
            commit_copies();
        });
        reading = reading + 1 == STAGES ? 0 : reading + 1;
        writing = writing + 1 == STAGES ? 0 : writing + 1;
    }
}
