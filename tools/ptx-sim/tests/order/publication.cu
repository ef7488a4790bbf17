// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ unsigned next_;
__device__ unsigned done_;
__device__ int flag;
__device__ int L;
__device__ int ldr(int* p) {
    int v;
    asm volatile("ld.relaxed.gpu.global.u32 %0,[%1];":"=r"(v):"l"(p):"memory");
    return v;
}
__device__ void str(int* p, int v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0],%1;"::"l"(p),"r"(v):"memory");
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_a(int* d) {
    __threadfence();
    atomicAdd(&next_, 1);
    d[0] = blockIdx.x;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_b(int* d) {
    atomicAdd(&next_, 1);
    d[0] = blockIdx.x;
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_c(int* d) {
    for (int i = 0; i < 2; i++) {
        while (atomicCAS(&L, 0, 1));
        if (i == 0) __threadfence();
        d[i] += 1;
        if (i == 0) __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void release_c_clean(int* d) {
    for (int i = 0; i < 2; i++) {
        while (atomicCAS(&L, 0, 1));
        __threadfence();
        d[i] += 1;
        __threadfence();
        atomicExch(&L, 0);
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=0
// finds: between blocks
extern "C" __global__ void release_d0(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=0
// finds: nothing
extern "C" __global__ void release_d0_clean(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        __threadfence();
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=1
// finds: between blocks
extern "C" __global__ void release_d1(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=1
// finds: nothing
extern "C" __global__ void release_d1_clean(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        __threadfence();
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=2
// finds: between blocks
extern "C" __global__ void release_d2(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=2
// finds: nothing
extern "C" __global__ void release_d2_clean(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        __threadfence();
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=100
// finds: between blocks
extern "C" __global__ void release_d100(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32=100
// finds: nothing
extern "C" __global__ void release_d100_clean(int* d, int n) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<n;i++) {
            __threadfence();
            atomicAdd(&next_, 1);
        }
        d[0] = 5;
        __threadfence();
        atomicAdd(&next_, 1);
    } else {
        while (atomicAdd(&next_, 0) != n+1);
        __threadfence();
        d[1] = d[0];
    }
}

// run: --grid 2 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_e(int* d) {
    __threadfence();
    atomicAdd(&done_, 1);
    unsigned t = atomicAdd(&next_, 1);
    d[t%2] = blockIdx.x;
    d[5] = t;
}

// run: --grid 2 --block 64 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_f(int* d) {
    d[blockIdx.x*64+threadIdx.x] = 1;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&done_, 1);
    __syncthreads();
    d[200+threadIdx.x] = blockIdx.x;
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void release_g_queue(int* d, int* q, int* o) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<8;i++) {
            q[i] = i*i;
            __threadfence();
            atomicAdd(&next_, 1);
        }
    } else {
        for (int i = 0;i<8;i++) {
            while (atomicAdd(&next_, 0) <= i);
            __threadfence();
            o[i] = q[i];
        }
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void release_h_queue(int* d, int* q, int* o) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<8;i++) {
            __threadfence();
            q[i] = i*i;
            atomicAdd(&next_, 1);
        }
    } else {
        for (int i = 0;i<8;i++) {
            while (atomicAdd(&next_, 0) <= i);
            __threadfence();
            o[i] = q[i];
        }
    }
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ unsigned bar_grid_barrier_clean;
__device__ void gridbar_grid_barrier_clean(unsigned n) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&bar_grid_barrier_clean, 1);
        while (*(volatile unsigned*)&bar_grid_barrier_clean<n*gridDim.x);
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void grid_barrier_clean(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_grid_barrier_clean(1);
    b[i] = a[n-1-i];
    gridbar_grid_barrier_clean(2);
    a[i] = b[(i+33)%n];
    gridbar_grid_barrier_clean(3);
    b[i] += a[n-1-i];
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ unsigned bar_grid_barrier_clean2;
__device__ void gridbar_grid_barrier_clean2(unsigned n) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&bar_grid_barrier_clean2, 1);
        while (*(volatile unsigned*)&bar_grid_barrier_clean2<n*gridDim.x);
    }
    __syncthreads();
}
extern "C" __global__ void grid_barrier_clean2(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_grid_barrier_clean2(1);
    b[i] = a[n-1-i];
    gridbar_grid_barrier_clean2(2);
    a[i] = b[(i+33)%n];
    gridbar_grid_barrier_clean2(3);
    b[i] += a[n-1-i];
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
__device__ unsigned bar_grid_barrier_norel;
__device__ void gridbar_grid_barrier_norel(unsigned n) {
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(&bar_grid_barrier_norel, 1);
        while (*(volatile unsigned*)&bar_grid_barrier_norel<n*gridDim.x);
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void grid_barrier_norel(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_grid_barrier_norel(1);
    b[i] = a[n-1-i];
    gridbar_grid_barrier_norel(2);
    a[i] = b[(i+33)%n];
    gridbar_grid_barrier_norel(3);
    b[i] += a[n-1-i];
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
__device__ unsigned bar_grid_barrier_blockrel;
__device__ void gridbar_grid_barrier_blockrel(unsigned n) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence_block();
        atomicAdd(&bar_grid_barrier_blockrel, 1);
        while (*(volatile unsigned*)&bar_grid_barrier_blockrel<n*gridDim.x);
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void grid_barrier_blockrel(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_grid_barrier_blockrel(1);
    b[i] = a[n-1-i];
    gridbar_grid_barrier_blockrel(2);
    a[i] = b[(i+33)%n];
    gridbar_grid_barrier_blockrel(3);
    b[i] += a[n-1-i];
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: something
__device__ unsigned bar_grid_barrier_nosync;
__device__ void gridbar_grid_barrier_nosync(unsigned n) {
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&bar_grid_barrier_nosync, 1);
        while (*(volatile unsigned*)&bar_grid_barrier_nosync<n*gridDim.x);
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void grid_barrier_nosync(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_grid_barrier_nosync(1);
    b[i] = a[n-1-i];
    gridbar_grid_barrier_nosync(2);
    a[i] = b[(i+33)%n];
    gridbar_grid_barrier_nosync(3);
    b[i] += a[n-1-i];
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ int cnt_sense_barrier_clean;
__device__ volatile int gen_sense_barrier_clean;
__device__ void gridbar_sense_barrier_clean() {
    __syncthreads();
    if (threadIdx.x == 0) {
        int g = gen_sense_barrier_clean;
        __threadfence();
        if (atomicAdd(&cnt_sense_barrier_clean, 1) == gridDim.x-1) {
            cnt_sense_barrier_clean = 0;
            __threadfence();
            gen_sense_barrier_clean = g+1;
        } else {
            while (gen_sense_barrier_clean == g);
        }
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void sense_barrier_clean(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    a[i] = i;
    gridbar_sense_barrier_clean();
    b[i] = a[n-1-i];
    gridbar_sense_barrier_clean();
    a[i] = b[(i+33)%n];
    gridbar_sense_barrier_clean();
    b[i] += a[n-1-i];
}

// run: --grid 8 --block 32 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void look_back_clean(int* x, volatile int* agg, volatile int* st, int* o) {
    __shared__ int pre;
    int b = blockIdx.x;
    if (threadIdx.x == 0) {
        int v = x[b];
        agg[b] = v;
        __threadfence();
        st[b] = 1;
        int p = 0;
        for (int j = b-1;j >= 0;j--) {
            while (st[j] == 0);
            __threadfence();
            p += agg[j];
        }
        pre = p;
    }
    __syncthreads();
    o[b*32+threadIdx.x] = pre;
}

// run: --grid 8 --block 32 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void look_back_bad(int* x, volatile int* agg, volatile int* st, int* o) {
    __shared__ int pre;
    int b = blockIdx.x;
    if (threadIdx.x == 0) {
        int v = x[b];
        agg[b] = v;
        st[b] = 1;
        int p = 0;
        for (int j = b-1;j >= 0;j--) {
            while (st[j] == 0);
            p += agg[j];
        }
        pre = p;
    }
    __syncthreads();
    o[b*32+threadIdx.x] = pre;
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void relaxed_clean(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        str(&flag, 1);
    } else {
        while (!ldr(&flag));
        __threadfence();
        o[0] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void relaxed_nofence(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        str(&flag, 1);
    } else {
        while (!ldr(&flag));
        __threadfence();
        o[0] = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void relaxed_noacq(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        str(&flag, 1);
    } else {
        while (!ldr(&flag));
        o[0] = d[0];
    }
}

// run: --grid 4 --block 1 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void relaxed_counter(int* d, int* o) {
    str(d, blockIdx.x);
    o[blockIdx.x] = ldr(d);
}

// run: --grid 4 --block 32 --cooperative --arg i32:1024:zeros
// finds: nothing
__device__ int serving_ticket;
extern "C" __global__ void ticket(int* d) {
    if (threadIdx.x == 0) {
        int t = atomicAdd((int*)&next_, 1);
        while (*(volatile int*)&serving_ticket != t);
        __threadfence();
        d[0] += 1;
        __threadfence();
        *(volatile int*)&serving_ticket = t+1;
    }
}

// run: --grid 4 --block 32 --cooperative --arg i32:1024:zeros
// finds: between blocks
__device__ int serving_ticket_bad;
extern "C" __global__ void ticket_bad(int* d) {
    if (threadIdx.x == 0) {
        int t = atomicAdd((int*)&next_, 1);
        while (*(volatile int*)&serving_ticket_bad != t);
        __threadfence();
        d[0] += 1;
        *(volatile int*)&serving_ticket_bad = t+1;
    }
}

// run: --grid 4 --block 32 --cooperative --arg i32:1024:zeros
// finds: between blocks
__device__ int serving_ticket_noacq;
extern "C" __global__ void ticket_noacq(int* d) {
    if (threadIdx.x == 0) {
        int t = atomicAdd((int*)&next_, 1);
        while (*(volatile int*)&serving_ticket_noacq != t);
        d[0] += 1;
        __threadfence();
        *(volatile int*)&serving_ticket_noacq = t+1;
    }
}
