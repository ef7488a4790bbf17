// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ unsigned next_;
__device__ unsigned done_;
__device__ int flag;
__device__ int L;

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
__device__ unsigned arr_pattern_cg;
__device__ void gs_pattern_cg() {
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned nb = 1;
        if (blockIdx.x == 0) nb = 0x80000000u-(gridDim.x-1);
        __threadfence();
        unsigned old = atomicAdd(&arr_pattern_cg, nb);
        while ((((old^*(volatile unsigned*)&arr_pattern_cg)&0x80000000u) == 0));
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void pattern_cg(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    for (int r = 0;r<5;r++) {
        a[i] = b[i]+r;
        gs_pattern_cg();
        b[i] = a[n-1-i];
        gs_pattern_cg();
    }
}

// run: --grid 4 --block 64 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
__device__ unsigned arr_pattern_cg_bad;
__device__ void gs_pattern_cg_bad() {
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned nb = 1;
        if (blockIdx.x == 0) nb = 0x80000000u-(gridDim.x-1);
        __threadfence();
        unsigned old = atomicAdd(&arr_pattern_cg_bad, nb);
        while ((((old^*(volatile unsigned*)&arr_pattern_cg_bad)&0x80000000u) == 0));
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void pattern_cg_bad(int* a, int* b) {
    int i = blockIdx.x*blockDim.x+threadIdx.x, n = gridDim.x*blockDim.x;
    for (int r = 0;r<5;r++) {
        a[i] = b[i]+r;
        gs_pattern_cg_bad();
        b[i] = a[n-1-i];
    }
}

// run: --grid 2 --block 32 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_stop(int* o) {
    if (blockIdx.x == 0) {
        *(volatile int*)&flag = 1;
    } else {
        int n = 0;
        while (!*(volatile int*)&flag) n++;
        o[threadIdx.x] = 1;
    }
}

// run: --grid 2 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_compact(int* x, int* o) {
    int t = blockIdx.x*64+threadIdx.x;
    bool p = x[t]%3 == 0;
    unsigned m = __ballot_sync(~0u, p);
    int lead = __ffs(m)-1, l = threadIdx.x%32;
    int base = 0;
    if (l == lead) base = atomicAdd((int*)&next_, __popc(m));
    base = __shfl_sync(~0u, base, lead);
    if (p) o[base+__popc(m&((1u<<l)-1))] = x[t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_syncor(int* x, int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = x[t];
    int any = __syncthreads_or(x[t] == 5);
    o[t] = s[63-t]+any;
}

// run: --grid 1 --block 64 --arg u16:64:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_half(unsigned short* d, int* o) {
    int t = threadIdx.x;
    atomicCAS(d+t/2, (unsigned short)0, (unsigned short)(t+1));
    __syncthreads();
    o[t] = d[t/2];
}

// run: --grid 1 --block 64 --arg f32:256:zeros --arg f32:64:zeros
// finds: nothing
extern "C" __global__ void pattern_vec(float4* d, float* o) {
    float* f = (float*)d;
    f[threadIdx.x*4+3] = threadIdx.x;
    float4 v = d[threadIdx.x];
    o[threadIdx.x] = v.w;
}

// run: --grid 1 --block 64 --arg f32:256:zeros --arg f32:64:zeros
// finds: something
extern "C" __global__ void pattern_vec_bad(float4* d, float* o) {
    float* f = (float*)d;
    f[((threadIdx.x*4)+4)%256] = threadIdx.x;
    float4 v = d[threadIdx.x];
    o[threadIdx.x] = v.x;
}

// run: --grid 1 --block 64 --arg u64:4:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_64(unsigned long long*d, unsigned* o) {
    atomicAdd(d, 1ull);
    __syncthreads();
    o[threadIdx.x] = ((unsigned*)d)[0];
}

// run: --grid 1 --block 64 --arg u64:4:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void pattern_64_bad(unsigned long long*d, unsigned* o) {
    atomicAdd(d, 1ull);
    o[threadIdx.x] = ((unsigned*)d)[0];
}

// run: --grid 8 --block 32 --arg i32:1024:iota --arg i64:64:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_scanblocks(int* x, volatile long long*st, int* o) {
    __shared__ int pre;
    int b = blockIdx.x;
    if (threadIdx.x == 0) {
        int v = x[b];
        long long s;
        int p = 0;
        if (b>0) {
            do {
                s = st[b-1];
            } while (!(s>>32));
            p = (int)s;
        }
        st[b] = (1ll<<32)|(unsigned)(p+v);
        pre = p;
    }
    __syncthreads();
    o[b*32+threadIdx.x] = pre;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_warpred_mask(int* x, int* o) {
    int t = threadIdx.x;
    if (t<20) {
        int v = x[t];
        v = __reduce_add_sync(0xfffff, v);
        if (t == 0) o[0] = v;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_dblbuf(int* x, int* o) {
    __shared__ int s[2][64];
    int t = threadIdx.x;
    s[0][t] = x[t];
    for (int i = 0;i<6;i++) {
        __syncthreads();
        int v = s[i&1][63-t];
        s[(i+1)&1][t] = v+1;
    }
    o[t] = s[0][t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void pattern_dblbuf_bad(int* x, int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = x[t];
    for (int i = 0;i<6;i++) {
        __syncthreads();
        int v = s[63-t];
        s[t] = v+1;
    }
    o[t] = s[t];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void pattern_sharedlockbad(int* o) {
    __shared__ int L, d;
    if (!threadIdx.x) {
        L = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        while (atomicCAS(&L, 0, 1));
        d += 1;
        atomicExch(&L, 0);
    }
    __syncthreads();
    o[0] = d;
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void pattern_sharedvollock(int* o) {
    __shared__ int L;
    __shared__ volatile int d;
    if (!threadIdx.x) {
        L = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        while (atomicCAS(&L, 0, 1));
        d += 1;
        atomicExch(&L, 0);
    }
    __syncthreads();
    o[0] = d;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_uniform_while(int* x, int* o) {
    __shared__ bool done;
    int t = threadIdx.x;
    int v = x[t];
    do {
        __syncthreads();
        if (t == 0) done = true;
        __syncthreads();
        if (v>0) {
            v -= 7;
            done = false;
        }
        __syncthreads();
    } while (!done);
    o[t] = v;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: something
extern "C" __global__ void pattern_uniform_while_bad(int* x, int* o) {
    __shared__ bool done;
    int t = threadIdx.x;
    int v = x[t];
    do {
        if (t == 0) done = true;
        __syncthreads();
        if (v>0) {
            v -= 7;
            done = false;
        }
        __syncthreads();
    } while (!done);
    o[t] = v;
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_bitonic(int* x, int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = x[63-t];
    __syncthreads();
    for (int k = 2;k <= 64;k <<= 1) for (int j = k>>1;j>0;j >>= 1) {
        int u = t^j;
        if (u>t) {
            bool up = (t&k) == 0;
            int a = s[t], b = s[u];
            if ((a>b) == up) {
                s[t] = b;
                s[u] = a;
            }
        }
        __syncthreads();
    }
    o[t] = s[t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void pattern_bitonic_bad(int* x, int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = x[63-t];
    __syncthreads();
    for (int k = 2;k <= 64;k <<= 1) for (int j = k>>1;j>0;j >>= 1) {
        int u = t^j;
        if (u>t) {
            bool up = (t&k) == 0;
            int a = s[t], b = s[u];
            if ((a>b) == up) {
                s[t] = b;
                s[u] = a;
            }
        }
        if (j >= 32) __syncthreads();
    }
    o[t] = s[t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_exited_write(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = t;
    if (t >= 32) return;
    __syncthreads();
    o[t] = s[t+32];
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void pattern_stale_flag_reuse(int* d, int* o) {
    if (blockIdx.x == 0) {
        for (int i = 1;i <= 4;i++) {
            d[0] = i;
            __threadfence();
            atomicExch(&flag, i);
            while (atomicAdd((int*)&done_, 0)<i);
            __threadfence();
        }
    } else {
        for (int i = 1;i <= 4;i++) {
            while (atomicAdd(&flag, 0)<i);
            __threadfence();
            o[i] = d[0];
            __threadfence();
            atomicAdd((int*)&done_, 1);
        }
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_shvol(int* o) {
    __shared__ int L, d;
    if (!threadIdx.x) {
        L = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        while (atomicCAS(&L, 0, 1));
        __threadfence_block();
        d += 1;
        __threadfence_block();
        *(volatile int*)&L = 0;
    }
    __syncthreads();
    o[0] = d;
}

// run: --grid 1 --block 128 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void loop_shvol_bad(int* o) {
    __shared__ int L, d;
    if (!threadIdx.x) {
        L = 0;
        d = 0;
    }
    __syncthreads();
    if (threadIdx.x%32 == 0) {
        while (atomicCAS(&L, 0, 1));
        d += 1;
        __threadfence_block();
        *(volatile int*)&L = 0;
    }
    __syncthreads();
    o[0] = d;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32=500
// finds: nothing
extern "C" __global__ void loop_strided(int* a, int n) {
    for (int i = threadIdx.x;i<n;i += blockDim.x) a[i] = i;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32=500
// finds: within a block
extern "C" __global__ void loop_strided_bad(int* a, int n) {
    for (int i = threadIdx.x;i<n;i += blockDim.x-1) a[i] = threadIdx.x;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_2d(int* a) {
    int x = threadIdx.x%8, y = threadIdx.x/8;
    a[y*8+x] = x;
    __syncthreads();
    a[x*8+y] += 1;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void loop_2d_bad(int* a) {
    int x = threadIdx.x%8, y = threadIdx.x/8;
    a[y*8+x] = x;
    a[x*8+y] += 1;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_offbyone(int* a) {
    int t = threadIdx.x;
    int v = a[t+1];
    __syncthreads();
    a[t] = v;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void loop_offbyone_bad(int* a) {
    int t = threadIdx.x;
    int v = a[t+1];
    a[t] = v;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void loop_offbyone_warp(int* a) {
    int t = threadIdx.x;
    int v = a[t+1];
    a[t] = v;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32=5
// finds: nothing
extern "C" __global__ void loop_cond_bar(int* a, int n) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = a[t];
    if (n>3) __syncthreads();
    a[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32=1
// finds: something
extern "C" __global__ void loop_cond_bar_bad(int* a, int n) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = a[t];
    if (n>3) __syncthreads();
    a[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_ptrswap(int* a, int* b) {
    int t = threadIdx.x;
    int* p = a, *q = b;
    for (int i = 0;i<4;i++) {
        q[t] = p[(t+1)%64];
        __syncthreads();
        int* r = p;
        p = q;
        q = r;
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void loop_loop_missing(int* a) {
    __shared__ int s[64];
    int t = threadIdx.x;
    for (int i = 0;i<4;i++) {
        s[t] = a[t]+i;
        __syncthreads();
        a[t] = s[(t+40)%64];
    }
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void loop_two_kernels_flagless(int* a) {
    int t = threadIdx.x;
    if (t<32) a[t] = t;
    else a[t-32] += 1;
}

// run: --grid 4 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_reduce_atomics(int* a, int* o) {
    __shared__ int s;
    if (threadIdx.x == 0) s = 0;
    __syncthreads();
    atomicAdd(&s, a[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(o, s);
}

// run: --grid 4 --block 64 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void loop_block_plain(int* a, int* o) {
    __shared__ int s;
    if (threadIdx.x == 0) s = 0;
    __syncthreads();
    atomicAdd(&s, a[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) *o += s+1;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void loop_syncwarp_in_block(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = t;
    __syncwarp();
    o[t] = s[63-t];
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: something
extern "C" __global__ void loop_fence_no_barrier(int* o) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = t;
    __threadfence_block();
    o[t] = s[63-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void loop_fence_warp(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = t;
    __threadfence_block();
    o[t] = s[31-t];
}

// run: --grid 1 --block 64 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_1d_halo(int* x, int* o) {
    __shared__ int s[66];
    int t = threadIdx.x;
    s[t+1] = x[t];
    if (t == 0) s[0] = 0;
    if (t == 63) s[65] = 0;
    __syncthreads();
    o[t] = s[t]+s[t+1]+s[t+2];
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void loop_graph2(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            if (o[u] == 0) {
                o[u] = 1;
            }
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void loop_graph3(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            int old = atomicCAS(&o[u], 0, v+1);
            if (old == 0) o[30+v] += 1;
        }
    }
}
