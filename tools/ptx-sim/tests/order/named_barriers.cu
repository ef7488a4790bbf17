// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

#define BAR(i, n) asm volatile("bar.sync %0, %1;" ::"r"(i), "r"(n) : "memory")
#define ARR(i, n) asm volatile("bar.arrive %0, %1;" ::"r"(i), "r"(n) : "memory")

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void barrier_a(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    BAR(1+g, 64);
    o[t] = s[t^64];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void barrier_a_clean(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    BAR(1+g, 64);
    o[t] = s[t^32];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void barrier_b(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    BAR(1, 64);
    o[t] = s[127-t];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void barrier_c(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    if (t<64) BAR(1, 64);
    else BAR(2, 32);
    o[t] = s[95-t];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void barrier_d(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    __syncthreads();
    if (t<64) {
        s[t] = t+1;
        BAR(1, 128);
    } else {
        ARR(1, 128);
        s[t] = 3;
    }
    o[t] = t<64? s[t+64]:0;
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void barrier_e_pc(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t<64) {
        for (int i = 0;i<4;i++) {
            BAR(2, 128);
            s[t] = i*t;
            ARR(1, 128);
        }
    } else {
        ARR(2, 128);
        for (int i = 0;i<4;i++) {
            BAR(1, 128);
            o[i*64+t-64] = s[127-t];
            if (i<3) ARR(2, 128);
        }
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void barrier_e_pc_bad(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t<64) {
        for (int i = 0;i<4;i++) {
            s[t] = i*t;
            ARR(1, 128);
        }
    } else {
        for (int i = 0;i<4;i++) {
            BAR(1, 128);
            o[i*64+t-64] = s[127-t];
        }
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void barrier_f(int* o) {
    __shared__ int s[128];
    int t = threadIdx.x;
    int g = t/64;
    s[t] = t;
    if (t<64) BAR(1, 64);
    __syncthreads();
    o[t] = s[127-t];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void barrier_g_chain(int* o) {
    __shared__ int s[96];
    int t = threadIdx.x;
    if (t<32) {
        s[t] = t;
        BAR(1, 64);
    } else if (t<64) {
        BAR(1, 64);
        s[t] = s[t-32];
        BAR(2, 64);
    } else {
        BAR(2, 64);
        o[t] = s[t-64]+s[t-32];
    }
}

// run: --grid 1 --block 96 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void barrier_g_chain_bad(int* o) {
    __shared__ int s[96];
    int t = threadIdx.x;
    if (t<32) {
        s[t] = t;
        BAR(1, 64);
        s[t] = 9;
    } else if (t<64) {
        BAR(1, 64);
        s[t] = s[t-32];
        BAR(2, 64);
    } else {
        BAR(2, 64);
        o[t] = s[t-64]+s[t-32];
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void barrier_h_global(int* o, int* x) {
    int t = threadIdx.x;
    x[t] = t;
    BAR(1+t/64, 64);
    o[t] = x[t^64];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void named_arr_early(int* o, int* x) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t<64) {
        ARR(1, 128);
        s[t] = x[t];
    } else {
        BAR(1, 128);
        o[t] = s[t-64];
    }
}

// run: --grid 1 --block 96 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void named_threegroups(int* o, int* x) {
    __shared__ int s[96];
    int t = threadIdx.x, g = t/32;
    s[t] = x[t];
    if (g<2) BAR(1, 64);
    if (g>0) BAR(2, 64);
    if (g == 2) o[t] = s[t-32];
    if (g == 0) o[t] = s[t+32];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void named_threegroups_bad(int* o, int* x) {
    __shared__ int s[96];
    int t = threadIdx.x, g = t/32;
    s[t] = x[t];
    if (g<2) BAR(1, 64);
    if (g>0) BAR(2, 64);
    if (g == 0) o[t] = s[t+64];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void named_idreuse(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x, g = t/64;
    s[t] = x[t];
    if (g == 0) BAR(1, 64);
    __syncthreads();
    if (g == 1) {
        s[t] += 1;
        BAR(1, 64);
        o[t] = s[t^32];
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void barrier_zero_64(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x;
    if (t<64) {
        s[t] = x[t];
        BAR(0, 64);
        o[t] = s[63-t];
    }
}
