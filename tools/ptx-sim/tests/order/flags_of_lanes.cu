// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ unsigned next_;
__device__ int L;

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lane_flag_acq_bad(int* d, int* o) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            d[0] = 1;
            __threadfence();
            atomicExch(&L, 1);
        }
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) == 0);
            __threadfence();
        }
        if (threadIdx.x == 5) o[0] = d[0];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lane_flag_acq(int* d, int* o) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            d[0] = 1;
            __threadfence();
            atomicExch(&L, 1);
        }
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) == 0);
            __threadfence();
        }
        __syncwarp();
        if (threadIdx.x == 5) o[0] = d[0];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lane_flag_acqall(int* d, int* o) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            d[0] = 1;
            __threadfence();
            atomicExch(&L, 1);
        }
    } else {
        while (atomicAdd(&L, 0) == 0);
        __threadfence();
        o[threadIdx.x] = d[0];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lane_flag_rel_bad(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[threadIdx.x] = 1;
        __threadfence();
        if (threadIdx.x == 0) atomicExch(&L, 1);
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) == 0);
            __threadfence();
        }
        __syncthreads();
        o[threadIdx.x] = d[threadIdx.x];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lane_flag_rel(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[threadIdx.x] = 1;
        __syncwarp();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicExch(&L, 1);
        }
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) == 0);
            __threadfence();
        }
        __syncthreads();
        o[threadIdx.x] = d[threadIdx.x];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lane_flag_relall(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[threadIdx.x] = 1;
        __threadfence();
        atomicAdd(&L, 1);
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) != 32);
            __threadfence();
        }
        __syncthreads();
        o[threadIdx.x] = d[threadIdx.x];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lane_flag_warpflag(int* o, int* x) {
    __shared__ volatile int f;
    __shared__ int d[32];
    int t = threadIdx.x;
    if (!t) f = 0;
    __syncthreads();
    if (t<32) {
        d[t] = x[t];
        __syncwarp();
        if (t == 0) {
            __threadfence_block();
            f = 1;
        }
    } else {
        if (t == 32) {
            while (!f);
            __threadfence_block();
        }
        __syncwarp();
        o[t-32] = d[63-t];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lane_flag_warpflag_bad(int* o, int* x) {
    __shared__ volatile int f;
    __shared__ int d[32];
    int t = threadIdx.x;
    if (!t) f = 0;
    __syncthreads();
    if (t<32) {
        d[t] = x[t];
        __syncwarp();
        if (t == 0) {
            __threadfence_block();
            f = 1;
        }
    } else {
        if (t == 32) {
            while (!f);
            __threadfence_block();
        }
        o[t-32] = d[63-t];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lane_flag_warpflag_bad2(int* o, int* x) {
    __shared__ volatile int f;
    __shared__ int d[32];
    int t = threadIdx.x;
    if (!t) f = 0;
    __syncthreads();
    if (t<32) {
        d[t] = x[t];
        if (t == 0) {
            __threadfence_block();
            f = 1;
        }
    } else {
        if (t == 32) {
            while (!f);
            __threadfence_block();
        }
        __syncwarp();
        o[t-32] = d[63-t];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lane_flag_fencewrong(int* d, int* o) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) d[0] = 1;
        if (threadIdx.x == 1) __threadfence();
        if (threadIdx.x == 0) atomicExch(&L, 1);
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(&L, 0) == 0);
            __threadfence();
            o[0] = d[0];
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lane_flag_lanes_queue(int* d, int* o) {
    int t = threadIdx.x;
    d[t] = t;
    __threadfence();
    int s = atomicAdd((int*)&next_, 1);
    if (s == 31) {
        __threadfence();
        int r = 0;
        for (int i = 0;i<32;i++) r += d[i];
        o[0] = r;
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lane_flag_lanes_queue_bad(int* d, int* o) {
    int t = threadIdx.x;
    d[t] = t;
    int s = atomicAdd((int*)&next_, 1);
    if (s == 31) {
        __threadfence();
        int r = 0;
        for (int i = 0;i<32;i++) r += d[i];
        o[0] = r;
    }
}

// run: --grid 4 --block 16 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ int vis_lane_flag_treebuild[64];
extern "C" __global__ void lane_flag_treebuild(int* d, int* o) {
    int t = blockIdx.x*16+threadIdx.x;
    d[64+t] = t+1;
    int n = 64+t;
    while (n>1) {
        int p = n/2;
        __threadfence();
        if (atomicAdd(&vis_lane_flag_treebuild[p], 1) == 0) return;
        __threadfence();
        d[p] = d[2*p]+d[2*p+1];
        n = p;
    }
    o[0] = d[1];
}

// run: --grid 4 --block 16 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: something
__device__ int vis_lane_flag_treebuild_bad[64];
extern "C" __global__ void lane_flag_treebuild_bad(int* d, int* o) {
    int t = blockIdx.x*16+threadIdx.x;
    d[64+t] = t+1;
    int n = 64+t;
    while (n>1) {
        int p = n/2;
        if (atomicAdd(&vis_lane_flag_treebuild_bad[p], 1) == 0) return;
        d[p] = d[2*p]+d[2*p+1];
        n = p;
    }
    o[0] = d[1];
}
