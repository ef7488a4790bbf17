// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int flag;

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void acquire_a(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch(&flag, 1);
    } else {
        while (*(volatile int*)&flag == 0);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void acquire_a_atom(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch(&flag, 1);
    } else {
        while (atomicAdd(&flag, 0) == 0);
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void acquire_a_clean(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch(&flag, 1);
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        *o = d[0];
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: read-only cache
extern "C" __global__ void acquire_b_nc(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 5;
        __threadfence();
        atomicExch(&flag, 1);
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        *o = __ldg(d);
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: read-only cache
extern "C" __global__ void acquire_b_nc_same(int* d, int* o) {
    d[threadIdx.x] = 5;
    __syncthreads();
    o[threadIdx.x] = __ldg(d+(threadIdx.x^32));
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void acquire_b_nc_clean(int* d, int* o) {
    o[threadIdx.x] = __ldg(d+threadIdx.x);
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void acquire_c_warps(int* d, int* o) {
    if (threadIdx.x == 0) {
        d[0] = 5;
        __threadfence_block();
        atomicExch(&flag, 1);
    } else if (threadIdx.x == 32) {
        while (*(volatile int*)&flag == 0);
        *o = d[0];
    }
}

// run: --grid 1 --block 64 --arg f32:256:zeros --arg f32:64:zeros
// finds: read-only cache
extern "C" __global__ void read_only_vec(float4* d, float* o) {
    d[threadIdx.x] = make_float4(1, 2, 3, 4);
    __syncthreads();
    float4 v = __ldg(d+(threadIdx.x^1));
    o[threadIdx.x] = v.x+v.w;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg @0
// finds: read-only cache
extern "C" __global__ void read_only_restrict(const int* __restrict__ a, int* b) {
    b[threadIdx.x] = 1;
    __syncthreads();
    b[64+threadIdx.x] = a[threadIdx.x];
}
