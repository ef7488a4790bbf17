// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int flag;
__device__ int L;

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void handover_a(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        __threadfence_block();
        atomicExch_block(&flag, 1);
    } else if (threadIdx.x == 32) {
        while (atomicAdd_block(&flag, 0) == 0);
        __threadfence_block();
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void handover_b(int* x, int* o) {
    __shared__ int f;
    __shared__ int d[32];
    if (!threadIdx.x) f = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        d[x[3]] = x[5];
        __threadfence_block();
        atomicExch_block(&f, 1);
    } else if (threadIdx.x == 32) {
        while (atomicAdd_block(&f, 0) == 0);
        __threadfence_block();
        *o = d[x[3]];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void handover_b_bad(int* x, int* o) {
    __shared__ int f;
    __shared__ int d[32];
    if (!threadIdx.x) f = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        d[x[3]] = x[5];
        atomicExch_block(&f, 1);
    } else if (threadIdx.x == 32) {
        while (atomicAdd_block(&f, 0) == 0);
        __threadfence_block();
        *o = d[x[3]];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void handover_c_vol(int* x, int* o) {
    __shared__ volatile int f;
    __shared__ int d[32];
    if (!threadIdx.x) f = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        d[x[3]] = x[5];
        __threadfence_block();
        f = 1;
    } else if (threadIdx.x == 32) {
        while (f == 0);
        __threadfence_block();
        *o = d[x[3]];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void handover_d_pingpong(int* x, int* o) {
    __shared__ volatile int f;
    __shared__ int d;
    if (!threadIdx.x) f = 0;
    __syncthreads();
    for (int i = 0;i<8;i++) {
        if (threadIdx.x == 0) {
            while (f != 0);
            __threadfence_block();
            d = x[i];
            __threadfence_block();
            f = 1;
        } else if (threadIdx.x == 32) {
            while (f != 1);
            __threadfence_block();
            o[i] = d;
            __threadfence_block();
            f = 0;
        }
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void handover_d_pingpong_bad(int* x, int* o) {
    __shared__ volatile int f;
    __shared__ int d;
    if (!threadIdx.x) f = 0;
    __syncthreads();
    for (int i = 0;i<8;i++) {
        if (threadIdx.x == 0) {
            while (f != 0);
            __threadfence_block();
            d = x[i];
            __threadfence_block();
            f = 1;
        } else if (threadIdx.x == 32) {
            while (f != 1);
            __threadfence_block();
            o[i] = d;
            f = 0;
        }
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void handover_e_lock(int* o) {
    __shared__ int L, d;
    if (!threadIdx.x) {
        L = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        while (atomicCAS_block(&L, 0, 1));
        __threadfence_block();
        d += 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
    __syncthreads();
    o[0] = d;
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void warp_flags_chain(int* o, int* x) {
    __shared__ int d[4];
    __shared__ volatile int f[4];
    int w = threadIdx.x/32;
    if (threadIdx.x<4) f[threadIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        int p = 0;
        if (w>0) {
            while (f[w-1] == 0);
            __threadfence_block();
            p = d[w-1];
        }
        d[w] = p+x[w];
        __threadfence_block();
        f[w] = 1;
    }
    __syncthreads();
    o[threadIdx.x] = d[w];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void warp_flags_chain_bad(int* o, int* x) {
    __shared__ int d[4];
    __shared__ volatile int f[4];
    int w = threadIdx.x/32;
    if (threadIdx.x<4) f[threadIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        int p = 0;
        if (w>0) {
            while (f[w-1] == 0);
            __threadfence_block();
            p = d[w-1];
        }
        d[w] = p+x[w];
        f[w] = 1;
    }
    __syncthreads();
    o[threadIdx.x] = d[w];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void warp_flags_skip(int* o, int* x) {
    __shared__ int d[4];
    __shared__ volatile int f[4];
    int w = threadIdx.x/32;
    if (threadIdx.x<4) f[threadIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        if (w == 0) {
            d[0] = x[0];
            __threadfence_block();
            f[0] = 1;
        } else if (w == 1) {
            while (!f[0]);
            __threadfence_block();
            d[1] = d[0];
            __threadfence_block();
            f[1] = 1;
        } else if (w == 2) {
            while (!f[1]);
            __threadfence_block();
            o[0] = d[0]+d[1];
        }
    }
}
