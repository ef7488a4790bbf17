// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void exited(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t >= 32) return;
    s[t] = t;
    __syncthreads();
    o[t] = s[31-t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void exited_part(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t >= 40) return;
    s[t] = t;
    __syncthreads();
    o[t] = s[39-t];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void exited_bad(int* o) {
    __shared__ int s[96];
    int t = threadIdx.x;
    if (t >= 64) return;
    s[t] = t;
    o[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: divergent barrier
extern "C" __global__ void exited_div(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = t;
    if (t<40) __syncthreads();
    o[t] = s[t];
}

// run: --grid 1 --block 96 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void exited_late(int* o) {
    __shared__ int s[96];
    int t = threadIdx.x;
    s[t] = t;
    __syncthreads();
    if (t<32) {
        o[t] = s[t+32];
        return;
    }
    __syncthreads();
    s[t] = 1;
    __syncthreads();
    o[t] = s[127-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void leaving(int* o) {
    int t = threadIdx.x;
    if (t >= 16) return;
    int v = __shfl_xor_sync(~0u, t, 1);
    o[t] = v;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void leaving_b(int* o) {
    int t = threadIdx.x;
    if (t >= 16) return;
    o[t] = __ballot_sync(~0u, t&1);
    __syncwarp();
    o[t] += __any_sync(~0u, t == 3);
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32=3
// finds: divergent warp
extern "C" __global__ void leaving_bad(int* o, int n) {
    int t = threadIdx.x;
    int v = 0;
    if (t<16) v = __shfl_xor_sync(~0u, t, 1);
    o[t] = v+n;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32=32
// finds: nothing
extern "C" __global__ void exit_loop(int* o, int n) {
    int t = threadIdx.x;
    for (int i = 0;i<4;i++) {
        if (t >= n-i*8) return;
        o[t] += __popc(__ballot_sync(__activemask(), 1));
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32=128
// finds: nothing
extern "C" __global__ void exit_bar_loop(int* o, int n) {
    __shared__ int s[128];
    int t = threadIdx.x;
    for (int i = 0;i<3;i++) {
        if (t >= n-i*32) return;
        s[t] = t+i;
        __syncthreads();
        o[t] += s[n-i*32-1-t];
        __syncthreads();
    }
}

// run: --grid 2 --block 64 --arg i32:1024:zeros --arg i32:1024:iota --arg i32=100
// finds: nothing
extern "C" __global__ void exit_tail(int* o, int* x, int n) {
    int t = blockIdx.x*64+threadIdx.x;
    if (t >= n) return;
    __shared__ int s[64];
    s[threadIdx.x] = x[t];
    __syncthreads();
    o[t] = s[threadIdx.x];
}
