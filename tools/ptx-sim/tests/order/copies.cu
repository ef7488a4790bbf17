// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

#define CP16(s, g) asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(s)), "l"(g) : "memory")
#define CP4(s, g) asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(s)), "l"(g) : "memory")
#define COMMIT asm volatile("cp.async.commit_group;" ::: "memory")
#define WAIT_ALL asm volatile("cp.async.wait_group 0;" ::: "memory")

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void copy_a(int4* x, int* o) {
    __shared__ int4 s[32];
    int t = threadIdx.x;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    o[t] = s[31-t].x;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void copy_a_clean(int4* x, int* o) {
    __shared__ int4 s[32];
    int t = threadIdx.x;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    __syncwarp();
    o[t] = s[31-t].x;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void copy_a_own(int4* x, int* o) {
    __shared__ int4 s[32];
    int t = threadIdx.x;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    o[t] = s[t].x;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void copy_b(int4* x, int* o) {
    __shared__ int4 s[32];
    int t = threadIdx.x;
    unsigned a, b, c, d;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];":"=r"(a),"=r"(b),"=r"(c),"=r"(d):"r"((unsigned)__cvta_generic_to_shared(&s[31-t])));
    o[t] = a+b+c+d;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void copy_b_clean(int4* x, int* o) {
    __shared__ int4 s[32];
    int t = threadIdx.x;
    unsigned a, b, c, d;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    __syncwarp();
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];":"=r"(a),"=r"(b),"=r"(c),"=r"(d):"r"((unsigned)__cvta_generic_to_shared(&s[31-t])));
    o[t] = a+b+c+d;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: asynchronous copy
extern "C" __global__ void copy_c(int4* x, int* o) {
    __shared__ int4 s[64];
    int t = threadIdx.x;
    CP16(&s[t], &x[t]);
    COMMIT;
    x[t] = make_int4(9, 9, 9, 9);
    WAIT_ALL;
    o[t] = s[t].x;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void copy_c_clean(int4* x, int* o) {
    __shared__ int4 s[64];
    int t = threadIdx.x;
    CP16(&s[t], &x[t]);
    COMMIT;
    WAIT_ALL;
    x[t] = make_int4(9, 9, 9, 9);
    o[t] = s[t].x;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void copies_multi(int* x, int* o) {
    __shared__ int s[2][64];
    int t = threadIdx.x;
    CP4(&s[0][t], &x[t]);
    COMMIT;
    for (int i = 0;i<8;i++) {
        if (i<7) CP4(&s[(i+1)&1][t], &x[(i+1)*64+t]);
        COMMIT;
        asm volatile("cp.async.wait_group 1;":::"memory");
        __syncthreads();
        o[i*64+t] = s[i&1][63-t];
        __syncthreads();
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: asynchronous copy
extern "C" __global__ void copies_src_other(int* x, int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    CP4(&s[t], &x[t]);
    COMMIT;
    __syncthreads();
    x[63-t] = 7;
    __syncthreads();
    asm volatile("cp.async.wait_group 0;":::"memory");
    o[t] = s[t];
}
