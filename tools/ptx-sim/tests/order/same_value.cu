// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

// run: --grid 2 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void same_a(int* d) {
    d[0] = 1;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void same_b(int* d) {
    __shared__ int s;
    s = 1;
    __syncthreads();
    d[threadIdx.x] = s;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void same_bad(int* d) {
    d[0] = threadIdx.x;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void same_bad2(int* d) {
    d[0] = threadIdx.x/32;
}

// run: --grid 4 --block 64 --arg u8:4:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void bool_changed(bool* c, int* x) {
    if (x[threadIdx.x]>3) *c = true;
}

// run: --grid 4 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void same_2blocks(int* d) {
    d[threadIdx.x] = threadIdx.x*3;
}

// run: --grid 4 --block 1 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void same_read(int* d, int* o) {
    if (d[0] == 0) d[0] = 1;
    o[blockIdx.x] = d[0];
}
