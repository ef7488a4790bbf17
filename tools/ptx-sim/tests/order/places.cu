// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

// run: --grid 1 --block 32 --arg i32:64:zeros --arg i32:64:zeros
// finds: out of bounds
extern "C" __global__ void overrun(int* a, int* b) {
    a[1088+threadIdx.x] = 1;
}

// run: --grid 1 --block 32 --arg i32:64:zeros --arg i32:64:zeros
// finds: out of bounds
extern "C" __global__ void overrun_b(int* a, int* b) {
    a[1000000+threadIdx.x] = 1;
}

// run: --grid 1 --block 32 --arg i32:64:zeros --arg i32:64:zeros
// finds: out of bounds
extern "C" __global__ void overrun_c(int* a, int* b) {
    b[-1088-(int)threadIdx.x] = 1;
}

// run: --grid 1 --block 32 --arg i32:64:zeros --arg i32:64:zeros --arg i32=2000000000
// finds: out of bounds
extern "C" __global__ void overrun_d(int* a, int* b, int n) {
    a[n+threadIdx.x] = 1;
    b[-n] = 1;
}

// run: --grid 1 --block 96 --arg u8:16:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void bytes(unsigned char* d, int* o) {
    int w = threadIdx.x/32;
    if (threadIdx.x%32 == 0) {
        if (w == 0) d[0] = 1;
        else if (w == 1) d[1] = 2;
        else o[0] = d[0];
    }
}

// run: --grid 1 --block 96 --arg u8:16:zeros --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void bytes_b(unsigned char* d, int* o) {
    __shared__ unsigned char s[8];
    int w = threadIdx.x/32;
    if (threadIdx.x == 0) *(int*)s = 0;
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        if (w == 0) s[0] = 1;
        else if (w == 1) s[1] = 2;
        else o[0] = s[0];
    }
}

// run: --grid 1 --block 128 --arg u8:128:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void bytes_clean(unsigned char* d, int* o) {
    d[threadIdx.x] = threadIdx.x;
    __syncthreads();
    o[threadIdx.x] = d[127-threadIdx.x];
}

// run: --grid 1 --block 128 --arg u8:128:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void bytes_clean2(unsigned char* d, int* o) {
    int w = threadIdx.x/32;
    if (threadIdx.x%32 == 0) d[w] = w;
    __syncthreads();
    o[threadIdx.x] = *(int*)d;
}

// run: --grid 1 --block 96 --arg u16:16:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void bytes_short(unsigned short* d, int* o) {
    int w = threadIdx.x/32;
    if (threadIdx.x%32 == 0) {
        if (w == 0) d[0] = 1;
        else if (w == 1) d[1] = 2;
        else o[0] = d[0];
    }
}

// run: --grid 1 --block 96 --arg u8:16:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void bytes_word(unsigned char* d, int* o) {
    int w = threadIdx.x/32;
    if (threadIdx.x%32 == 0) {
        if (w == 0) d[0] = 1;
        else if (w == 1) d[1] = 2;
        else o[0] = *(int*)d;
    }
}

// run: --grid 1 --block 32 --arg u8:16:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void bytes_lanes(unsigned char* d, int* o) {
    int t = threadIdx.x;
    if (t == 0) d[0] = 1;
    if (t == 1) d[1] = 2;
    if (t == 2) o[0] = d[0];
}

// run: --grid 1 --block 32 --arg u8:64:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void bytes_lanes2(unsigned char* d, int* o) {
    int t = threadIdx.x;
    d[t] = t;
    o[t] = d[t^1];
}

// run: --grid 1 --block 32 --arg u8:64:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void byte_lanes_clean(unsigned char* d, int* o) {
    int t = threadIdx.x;
    d[t] = t;
    __syncwarp();
    o[t] = d[t^1];
}

// run: --grid 4 --block 3 --arg u8:64:zeros
// finds: nothing
extern "C" __global__ void byte_blocks(unsigned char* d) {
    d[blockIdx.x*3+threadIdx.x] = blockIdx.x*3+threadIdx.x;
}

// run: --grid 4 --block 4 --arg u8:64:zeros
// finds: between blocks
extern "C" __global__ void byte_blocks_bad(unsigned char* d) {
    d[blockIdx.x*3+threadIdx.x] = blockIdx.x+1;
}

// run: --grid 4 --block 33 --arg u16:256:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void halves_clean(unsigned short* d, unsigned* o) {
    d[blockIdx.x*33+threadIdx.x] = threadIdx.x;
}
