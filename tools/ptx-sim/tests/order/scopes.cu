// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int flag;

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_a(int* d) {
    atomicAdd_block(d, 1);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_a_clean(int* d) {
    atomicAdd(d, 1);
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_a_same(int* d) {
    atomicAdd_block(d, 1);
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_cta_cta(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.cta.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.cta.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_cta_cta(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.cta.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.cta.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_gpu_cta(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.cta.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_gpu_cta(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.cta.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_cta_gpu(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.cta.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_cta_gpu(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.cta.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_gpu_gpu(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_gpu_gpu(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_sys_sys(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.sys.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.sys.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_sys_sys(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.sys.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.sys.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_gpu_sys(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else {
        int v;
        do {
            asm volatile("ld.acquire.sys.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void scope_w_gpu_sys(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        asm volatile("st.release.gpu.global.u32 [%0], 1;"::"l"(&flag):"memory");
    } else if (threadIdx.x == 32) {
        int v;
        do {
            asm volatile("ld.acquire.sys.global.u32 %0, [%1];":"=r"(v):"l"(&flag):"memory");
        } while (!v);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_blockfence(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence_block();
        atomicExch(&flag, 1);
    } else {
        while (atomicAdd(&flag, 0) == 0);
        __threadfence();
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_blockfence_acq(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch(&flag, 1);
    } else {
        while (atomicAdd(&flag, 0) == 0);
        __threadfence_block();
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_exchblock(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch_block(&flag, 1);
    } else {
        while (atomicAdd(&flag, 0) == 0);
        __threadfence();
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void scope_atomicmax_block_d_int_blockidx_x_1(int* d) {
    atomicMax_block(d, (int)blockIdx.x+1);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void scope_atomicor_block_d_1_blockidx_x(int* d) {
    atomicOr_block(d, 1<<blockIdx.x);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void scope_atomiccas_block_d_0_5_blockidx_x(int* d) {
    atomicCAS_block(d, 0, 5+blockIdx.x);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void scope_atomicexch_block_d_blockidx_x_1(int* d) {
    atomicExch_block(d, blockIdx.x+1);
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void scope_mixed(int* d) {
    if (blockIdx.x) atomicAdd_block(d, 1);
    else atomicAdd(d, 1);
}
