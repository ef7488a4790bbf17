// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int flag;
__device__ int L;

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void volatile_a(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        *(volatile int*)&flag = 1;
    } else {
        while (*(volatile int*)&flag == 0);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void volatile_a_fence(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        *(volatile int*)&flag = 1;
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void volatile_a_wrongplace(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        __threadfence();
        d[0] = 5;
        *(volatile int*)&flag = 1;
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        *o = d[0];
    }
}

// run: --grid 4 --block 64 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
__device__ unsigned cnt_volatile_b;
extern "C" __global__ void volatile_b(const int* x, volatile int* part, int* o) {
    __shared__ bool last;
    int v = x[blockIdx.x*64+threadIdx.x];
    __shared__ int s[64];
    s[threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        int t = 0;
        for (int i = 0;i<64;i++) t += s[i];
        part[blockIdx.x] = t;
        unsigned c = atomicInc(&cnt_volatile_b, gridDim.x);
        last = c == gridDim.x-1;
    }
    __syncthreads();
    if (last && threadIdx.x<gridDim.x) {
        atomicAdd(o, part[threadIdx.x]);
        if (threadIdx.x == 0) cnt_volatile_b = 0;
    }
}

// run: --grid 4 --block 64 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ unsigned cnt_volatile_b_clean;
extern "C" __global__ void volatile_b_clean(const int* x, volatile int* part, int* o) {
    __shared__ bool last;
    int v = x[blockIdx.x*64+threadIdx.x];
    __shared__ int s[64];
    s[threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        int t = 0;
        for (int i = 0;i<64;i++) t += s[i];
        part[blockIdx.x] = t;
        __threadfence();
        unsigned c = atomicInc(&cnt_volatile_b_clean, gridDim.x);
        last = c == gridDim.x-1;
    }
    __syncthreads();
    if (last && threadIdx.x<gridDim.x) {
        atomicAdd(o, part[threadIdx.x]);
        if (threadIdx.x == 0) cnt_volatile_b_clean = 0;
    }
}

// run: --grid 4 --block 64 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ unsigned cnt_volatile_b_plain;
extern "C" __global__ void volatile_b_plain(const int* x, int* part, int* o) {
    __shared__ bool last;
    int v = x[blockIdx.x*64+threadIdx.x];
    __shared__ int s[64];
    s[threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        int t = 0;
        for (int i = 0;i<64;i++) t += s[i];
        part[blockIdx.x] = t;
        __threadfence();
        unsigned c = atomicInc(&cnt_volatile_b_plain, gridDim.x);
        last = c == gridDim.x-1;
    }
    __syncthreads();
    if (last && threadIdx.x<gridDim.x) {
        atomicAdd(o, part[threadIdx.x]);
        if (threadIdx.x == 0) cnt_volatile_b_plain = 0;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void volatile_c_warps(volatile int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        *(volatile int*)&flag = 1;
    } else if (threadIdx.x == 32) {
        while (*(volatile int*)&flag == 0);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void volatile_d_shared(int* o) {
    __shared__ volatile int d, f;
    if (threadIdx.x == 0) {
        f = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        d = 5;
        f = 1;
    } else if (threadIdx.x == 32) {
        while (f == 0);
        *o = d;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void volatile_d_shared_clean(int* o) {
    __shared__ volatile int d, f;
    if (threadIdx.x == 0) {
        f = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        d = 5;
        __threadfence_block();
        f = 1;
    } else if (threadIdx.x == 32) {
        while (f == 0);
        __threadfence_block();
        *o = d;
    }
}

// run: --grid 4 --block 32 --arg f32:64:zeros --arg f32:1:zeros
// finds: between blocks
__device__ unsigned cnt_volatile_e_lastblock_tmp;
extern "C" __global__ void volatile_e_lastblock_tmp(volatile float* part, float* o) {
    if (threadIdx.x == 0) {
        part[blockIdx.x] = blockIdx.x;
        unsigned c = atomicAdd(&cnt_volatile_e_lastblock_tmp, 1);
        if (c == gridDim.x-1) {
            float t = 0;
            for (int i = 0;i<gridDim.x;i++) t += part[i];
            *o = t;
        }
    }
}

// run: --grid 4 --block 32 --arg f32:64:zeros --arg f32:1:zeros
// finds: nothing
__device__ unsigned cnt_volatile_e_lastblock_clean;
extern "C" __global__ void volatile_e_lastblock_clean(volatile float* part, float* o) {
    if (threadIdx.x == 0) {
        part[blockIdx.x] = blockIdx.x;
        __threadfence();
        unsigned c = atomicAdd(&cnt_volatile_e_lastblock_clean, 1);
        if (c == gridDim.x-1) {
            float t = 0;
            for (int i = 0;i<gridDim.x;i++) t += part[i];
            *o = t;
        }
    }
}

// run: --grid 4 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void volatile_f_caspeek(int* d) {
    int old = *(volatile int*)d, as;
    do {
        as = old;
        old = atomicCAS(d, as, as+threadIdx.x);
    } while (as != old);
}

// run: --grid 4 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void volatile_g_twolocks(int* d) {
    while (true) {
        if (*(volatile int*)&L == 0 && atomicCAS(&L, 0, 1) == 0) break;
    }
    __threadfence();
    d[0] += 1;
    __threadfence();
    *(volatile int*)&L = 0;
}

// run: --grid 4 --block 64 --arg i32:1024:zeros
// finds: nothing
__device__ volatile int changed_volatile_h_changed;
extern "C" __global__ void volatile_h_changed(int* d) {
    if (threadIdx.x%32 == 0) changed_volatile_h_changed = 1;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void atomic_plain_blocks(volatile int* d) {
    if (blockIdx.x == 0) atomicExch((int*)d, 1);
    else d[0] = 2;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void atomic_plain_blocks2(volatile int* d) {
    if (blockIdx.x == 1) atomicExch((int*)d, 1);
    else d[0] = 2;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void atomic_plain_warps(volatile int* d) {
    if (threadIdx.x == 0) atomicExch_block((int*)d, 1);
    else if (threadIdx.x == 32) d[0] = 2;
}

// run: --grid 1 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void atomic_own(volatile int* d) {
    atomicExch_block((int*)d, 1);
    d[0] = 2;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void flag_afterrel(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        o[0] = d[0];
        __threadfence();
        atomicExch(&flag, 1);
        o[1] = d[0];
    } else {
        while (atomicExch(&flag, 0) == 0);
        __threadfence();
        d[0] = 1;
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void flag_write_in_lock_read(volatile int* d, int* o) {
    while (atomicCAS(&L, 0, 1));
    __threadfence();
    o[blockIdx.x] = d[0];
    __threadfence();
    atomicExch(&L, 0);
    if (blockIdx.x == 0) d[0] = 1;
}

// run: --grid 2 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void flag_chain(volatile int* d, int* o) {
    int w = blockIdx.x*2+threadIdx.x/32;
    if (threadIdx.x%32 == 0) {
        if (w) while (atomicAdd(&flag, 0) != w);
        if (w<3) d[0] += 2;
        else o[0] = d[0];
        if (w == 1) __threadfence();
        else __threadfence_block();
        atomicExch(&flag, w+1);
    }
}

// run: --grid 2 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void flag_chain_bad(volatile int* d, int* o) {
    int w = blockIdx.x*2+threadIdx.x/32;
    if (threadIdx.x%32 == 0) {
        if (w) while (atomicAdd(&flag, 0) != w);
        if (w<3) d[0] += 2;
        else o[0] = d[0];
        __threadfence_block();
        atomicExch(&flag, w+1);
    }
}
