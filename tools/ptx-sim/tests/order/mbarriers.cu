// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ void mbinit(unsigned long long*b, int n) {
    asm volatile("mbarrier.init.shared.b64 [%0],%1;"::"r"((unsigned)__cvta_generic_to_shared(b)),"r"(n):"memory");
}
__device__ void mbarr(unsigned long long*b) {
    unsigned long long s;
    asm volatile("mbarrier.arrive.shared.b64 %0,[%1];":"=l"(s):"r"((unsigned)__cvta_generic_to_shared(b)):"memory");
}
__device__ unsigned long long mbtok(unsigned long long*b) {
    unsigned long long s;
    asm volatile("mbarrier.arrive.shared.b64 %0,[%1];":"=l"(s):"r"((unsigned)__cvta_generic_to_shared(b)):"memory");
    return s;
}
__device__ void mbwait(unsigned long long*b, unsigned long long s) {
    int ok;
    do {
        asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p,[%1],%2; selp.b32 %0,1,0,p; }":"=r"(ok):"r"((unsigned)__cvta_generic_to_shared(b)),"l"(s):"memory");
    } while (!ok);
}
__device__ void cpa(int* s, const int* g) {
    asm volatile("cp.async.ca.shared.global [%0],[%1],4;"::"r"((unsigned)__cvta_generic_to_shared(s)),"l"(g):"memory");
}
__device__ void cpmb(unsigned long long*b) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];"::"r"((unsigned)__cvta_generic_to_shared(b)):"memory");
}
__device__ void mbpar(unsigned long long*b, int p) {
    int ok;
    do {
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p,[%1],%2; selp.b32 %0,1,0,p; }":"=r"(ok):"r"((unsigned)__cvta_generic_to_shared(b)),"r"(p):"memory");
    } while (!ok);
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void mbarrier_all(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    for (int i = 0;i<3;i++) {
        s[t] = x[i*64+t];
        mbwait(&b, mbtok(&b));
        o[i*64+t] = s[63-t];
        mbwait(&b, mbtok(&b));
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: something
extern "C" __global__ void mbarrier_nowait(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    s[t] = x[t];
    mbarr(&b);
    o[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void mbarrier_noreuse(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    for (int i = 0;i<3;i++) {
        s[t] = x[i*64+t];
        mbwait(&b, mbtok(&b));
        o[i*64+t] = s[63-t];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void mbarrier_late(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = 0;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    auto k = mbtok(&b);
    s[t] = x[t];
    mbwait(&b, k);
    o[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: something
extern "C" __global__ void mbarrier_noinit_sync(int* x, int* o) {
    __shared__ unsigned long long b;
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    mbwait(&b, mbtok(&b));
    o[t] = x[t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void mbarrier_copies(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    cpa(&s[t], &x[t]);
    cpmb(&b);
    mbpar(&b, 0);
    o[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: something
extern "C" __global__ void mbarrier_copies_nowait(int* x, int* o) {
    __shared__ unsigned long long b;
    __shared__ int s[64];
    int t = threadIdx.x;
    if (!t) mbinit(&b, 64);
    __syncthreads();
    cpa(&s[t], &x[t]);
    cpmb(&b);
    o[t] = s[t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void mbarrier_pipe(int* x, int* o) {
    __shared__ unsigned long long full[2], empty[2];
    __shared__ int s[2][32];
    int t = threadIdx.x, l = t%32;
    if (!t) {
        for (int i = 0;i<2;i++) {
            mbinit(&full[i], 32);
            mbinit(&empty[i], 32);
        }
    }
    __syncthreads();
    if (t<32) {
        for (int i = 0;i<6;i++) {
            if (i>1) mbpar(&empty[i&1], (i/2-1)&1);
            s[i&1][l] = x[i*32+l];
            mbarr(&full[i&1]);
        }
    } else {
        for (int i = 0;i<6;i++) {
            mbpar(&full[i&1], (i/2)&1);
            o[i*32+l] = s[i&1][31-l];
            mbarr(&empty[i&1]);
        }
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: something
extern "C" __global__ void mbarrier_pipe_bad(int* x, int* o) {
    __shared__ unsigned long long full[2];
    __shared__ int s[2][32];
    int t = threadIdx.x, l = t%32;
    if (!t) {
        for (int i = 0;i<2;i++) mbinit(&full[i], 32);
    }
    __syncthreads();
    if (t<32) {
        for (int i = 0;i<4;i++) {
            s[i&1][l] = x[i*32+l];
            mbarr(&full[i&1]);
        }
    } else {
        for (int i = 0;i<4;i++) {
            mbpar(&full[i&1], (i/2)&1);
            o[i*32+l] = s[i&1][31-l];
        }
    }
}
