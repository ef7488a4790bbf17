// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int L;

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void warp(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1));
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) d[0] = 2;
}

// run: --grid 2 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void warp_b(int* d, int* o) {
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
        if (threadIdx.x == 32) o[0] = d[0];
    }
}

// run: --grid 2 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void warp_b_clean(int* d, int* o) {
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
        __syncthreads();
        if (threadIdx.x == 32) o[0] = d[0];
    }
}

// run: --grid 2 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void warp_c(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[threadIdx.x] = 1;
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

// run: --grid 2 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void warp_c_clean(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[threadIdx.x] = 1;
        __syncthreads();
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

// run: --grid 4 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_exch(int* d) {
    while (atomicExch(&L, 1));
    __threadfence();
    d[0] += 1;
    __threadfence();
    atomicExch(&L, 0);
}

// run: --grid 4 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_exch_noacq(int* d) {
    while (atomicExch(&L, 1));
    d[0] += 1;
    __threadfence();
    atomicExch(&L, 0);
}

// run: --grid 4 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
__device__ int casacq_lock_acqrel(int* p) {
    int v;
    asm volatile("atom.acquire.gpu.global.cas.b32 %0,[%1],0,1;":"=r"(v):"l"(p):"memory");
    return v;
}
extern "C" __global__ void lock_acqrel(int* d) {
    while (casacq_lock_acqrel(&L));
    d[0] += 1;
    asm volatile("st.release.gpu.global.u32 [%0],0;"::"l"(&L):"memory");
}

// run: --grid 4 --block 1 --cooperative --arg i32:1024:zeros
// finds: between blocks
__device__ int casacq_lock_acqrel_cta(int* p) {
    int v;
    asm volatile("atom.acquire.cta.global.cas.b32 %0,[%1],0,1;":"=r"(v):"l"(p):"memory");
    return v;
}
extern "C" __global__ void lock_acqrel_cta(int* d) {
    while (casacq_lock_acqrel_cta(&L));
    d[0] += 1;
    asm volatile("st.release.gpu.global.u32 [%0],0;"::"l"(&L):"memory");
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
__device__ int L2_lock_two;
extern "C" __global__ void lock_two(int* d) {
    int* l= blockIdx.x?&L:&L2_lock_two;
    while (atomicCAS(l, 0, 1));
    __threadfence();
    d[0] += 1;
    __threadfence();
    atomicExch(l, 0);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_volunlock_nofence(int* d) {
    while (atomicCAS(&L, 0, 1));
    __threadfence();
    d[0] += 1;
    *(volatile int*)&L = 0;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_plainunlock(int* d) {
    while (atomicCAS(&L, 0, 1));
    __threadfence();
    d[0] += 1;
    __threadfence();
    L = 0;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_ok_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_ok_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_ok_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_ok_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_bb_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_bb_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_mixed_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lock_mixed_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_bb_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_bb_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_blockfence_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_blockfence_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_noacq_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_noacq_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_noacq2_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_noacq2_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_norel_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_norel_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_blockrel_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence_block();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence_block();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_blockrel_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence_block();
        atomicExch(&L, 0);
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence_block();
        atomicExch(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_noacq_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_noacq_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_noacq2_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_noacq2_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_norel_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_norel_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_devnoacq_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_devnoacq_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 2;
        __threadfence_block();
        atomicExch_block(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_unlocked_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        d[0] = 2;
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_unlocked_blocks(int* d) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        d[0] = 2;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_unlocked_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        d[0] = 2;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_unlocked_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 1;
        __threadfence();
        atomicExch(&L, 0);
    } else if (threadIdx.x == 32) {
        d[0] = 2;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_unlocked2_warps_vol(volatile int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        d[0] = 2;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lock_unlocked2_warps(int* d) {
    if (threadIdx.x == 0) {
        while (atomicCAS_block(&L, 0, 1) != 0);
        __threadfence_block();
        d[0] = 1;
        __threadfence_block();
        atomicExch_block(&L, 0);
    } else if (threadIdx.x == 32) {
        d[0] = 2;
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_unlocked3_blocks_vol(volatile int* d) {
    if (blockIdx.x == 0) {
        d[0] = 1;
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void lock_unlocked3_blocks(int* d) {
    if (blockIdx.x == 0) {
        d[0] = 1;
    } else {
        while (atomicCAS(&L, 0, 1) != 0);
        __threadfence();
        d[0] = 2;
        __threadfence();
        atomicExch(&L, 0);
    }
}
