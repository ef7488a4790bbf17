// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int L;

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lanes_a(int* o) {
    o[0]++;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void lanes_b(int* o) {
    __shared__ int n;
    if (!threadIdx.x) n = 0;
    __syncthreads();
    n += 1;
    __syncthreads();
    o[0] = n;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lanes_b_hist(int* o, int* x) {
    __shared__ int h[16];
    if (threadIdx.x<16) h[threadIdx.x] = 0;
    __syncthreads();
    h[x[threadIdx.x]&3]++;
    __syncthreads();
    if (threadIdx.x<16) o[threadIdx.x] = h[threadIdx.x];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lanes_b_hist_clean(int* o, int* x) {
    __shared__ int h[32];
    if (threadIdx.x<32) h[threadIdx.x] = 0;
    __syncthreads();
    h[x[threadIdx.x]&31]++;
    __syncthreads();
    if (threadIdx.x<32) o[threadIdx.x] = h[threadIdx.x];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lanes_b_atomic(int* o, int* x) {
    __shared__ int h[16];
    if (threadIdx.x<16) h[threadIdx.x] = 0;
    __syncwarp();
    atomicAdd(&h[x[threadIdx.x]&3], 1);
    __syncwarp();
    if (threadIdx.x<16) o[threadIdx.x] = h[threadIdx.x];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void lanes_c(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = t;
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_c_clean(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = t;
    __syncwarp();
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_c_half(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = t;
    if (t<16) __syncwarp(0xffff);
    else __syncwarp(0xffff0000u);
    o[t] = s[t^8];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void lanes_c_half_bad(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = t;
    if (t<16) __syncwarp(0xffff);
    else __syncwarp(0xffff0000u);
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lanes_d_volred(int* o, int* x) {
    __shared__ volatile int s[64];
    int t = threadIdx.x;
    s[t] = x[t];
    s[t+32] = x[t+32];
    s[t] += s[t+32];
    s[t] += s[t+16];
    s[t] += s[t+8];
    s[t] += s[t+4];
    s[t] += s[t+2];
    s[t] += s[t+1];
    if (t == 0) *o = s[0];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lanes_d_volred_clean(int* o, int* x) {
    __shared__ volatile int s[64];
    int t = threadIdx.x;
    s[t] = x[t];
    s[t+32] = x[t+32];
    __syncwarp();
    for (int h = 32;h>0;h >>= 1) {
        int v = s[t+h<64?t+h:0];
        __syncwarp();
        if (t<h) s[t] += v;
        __syncwarp();
    }
    if (t == 0) *o = s[0];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: within a block
extern "C" __global__ void lanes_e(int* o, int* x) {
    int t = threadIdx.x;
    if (t == 0) o[0] = x[0];
    else if (t == 5) o[0] = x[1]+1;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void lanes_f_war(int* o) {
    __shared__ int s[33];
    int t = threadIdx.x;
    s[t] = t;
    if (!t) s[32] = 5;
    __syncwarp();
    int v = s[t+1];
    s[t] = v;
    __syncwarp();
    o[t] = s[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_f_war_clean(int* o) {
    __shared__ int s[33];
    int t = threadIdx.x;
    s[t] = t;
    if (!t) s[32] = 5;
    __syncwarp();
    int v = s[t+1];
    __syncwarp();
    s[t] = v;
    __syncwarp();
    o[t] = s[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_g_bcast_clean(int* o) {
    __shared__ int s;
    if (threadIdx.x == 3) s = 7;
    __syncwarp();
    o[threadIdx.x] = s;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void lanes_h_global(int* o, int* x) {
    int t = threadIdx.x;
    x[t] = t;
    o[t] = x[t^1];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_h_global_clean(int* o, int* x) {
    int t = threadIdx.x;
    x[t] = t;
    __syncwarp();
    o[t] = x[t^1];
}

// run: --grid 2 --block 64 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void lanes_i_lane_lock(int* d) {
    bool done = false;
    while (!done) {
        if (atomicCAS(&L, 0, 1) == 0) {
            __threadfence();
            d[0] += 1;
            __threadfence();
            atomicExch(&L, 0);
            done = true;
        }
    }
}

// run: --grid 1 --block 32 --arg f32:8:zeros --arg f32:32:ones
// finds: within a block
extern "C" __global__ void lanes_j_f32(float* o, float* x) {
    o[0] += x[threadIdx.x];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: within a block
extern "C" __global__ void lanes_k_max(int* o, int* x) {
    if (x[threadIdx.x]>o[0]) o[0] = x[threadIdx.x];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void arms(int* o) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<16) {
        s[t] = t;
        __syncwarp();
    } else {
        s[t] = 2*t;
        __syncwarp();
    }
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void arms_b(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<16) {
        s[t] = t;
        __syncwarp();
        o[t] = s[t+16];
        __syncwarp();
        s[t] = x[t];
        __syncwarp();
    } else {
        s[t] = 2*t;
        __syncwarp();
        o[t] = s[t-16];
        __syncwarp();
        __syncwarp();
        o[t] += s[t-16];
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void arms_c_three(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<8) {
        s[t] = t;
        __syncwarp();
    } else if (t<16) {
        s[t] = 2*t;
        __syncwarp();
    } else {
        s[t] = x[t];
        __syncwarp();
    }
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: divergent warp
extern "C" __global__ void arms_bad(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<16) {
        s[t] = t;
        __syncwarp();
    } else {
        s[t] = 2*t;
    }
    o[t] = s[t]+x[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void arms_loop(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = 0;
    for (int i = 0;i<4;i++) {
        if (t<16) {
            s[t] += s[t]+x[i];
            __syncwarp();
            o[t] += s[t+16];
            __syncwarp();
        } else {
            s[t] += i;
            __syncwarp();
            __syncwarp();
        }
    }
    o[t] = s[t];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void reduce_shfl(int* o, int* x) {
    int v = x[threadIdx.x];
    for (int s = 16;s;s >>= 1) v += __shfl_down_sync(~0u, v, s);
    __shared__ int p[4];
    if (threadIdx.x%32 == 0) p[threadIdx.x/32] = v;
    __syncthreads();
    if (threadIdx.x<4) {
        v = p[threadIdx.x];
        v += __shfl_down_sync(0xf, v, 2);
        v += __shfl_down_sync(0xf, v, 1);
        if (threadIdx.x == 0) *o = v;
    }
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void reduce_unroll(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int h = 64;h>0;h >>= 1) {
        if (t<h) s[t] += s[t+h];
        __syncthreads();
    }
    if (!t) *o = s[0];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void reduce_unroll_bad(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int h = 64;h>0;h >>= 1) {
        if (t<h) s[t] += s[t+h];
        if (h>32) __syncthreads();
    }
    if (!t) *o = s[0];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void reduce_warp_clean(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int h = 64;h>0;h >>= 1) {
        if (t<h) s[t] += s[t+h];
        if (h>32) __syncthreads();
        else __syncwarp();
    }
    if (!t) *o = s[0];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void transpose(int* o, int* x) {
    __shared__ int s[32][33];
    int t = threadIdx.x%32, w = threadIdx.x/32;
    for (int r = w;r<32;r += 4) s[r][t] = x[r*32+t];
    __syncthreads();
    for (int r = w;r<32;r += 4) o[r*32+t] = s[t][r];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void transpose_bad(int* o, int* x) {
    __shared__ int s[32][33];
    int t = threadIdx.x;
    for (int r = 0;r<32;r++) s[r][t] = x[r*32+t];
    for (int r = 0;r<32;r++) o[r*32+t] = s[t][r];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void scan_warp(int* o, int* x) {
    int v = x[threadIdx.x];
    for (int s = 1;s<32;s <<= 1) {
        int u = __shfl_up_sync(~0u, v, s);
        if (threadIdx.x >= s) v += u;
    }
    o[threadIdx.x] = v;
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void hillis(int* o, int* x) {
    __shared__ int s[2][128];
    int t = threadIdx.x, p = 0;
    s[0][t] = x[t];
    __syncthreads();
    for (int d = 1;d<128;d <<= 1) {
        s[1-p][t] = s[p][t]+(t >= d?s[p][t-d]:0);
        p = 1-p;
        __syncthreads();
    }
    o[t] = s[p][t];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void hillis_bad(int* o, int* x) {
    __shared__ int s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int d = 1;d<128;d <<= 1) {
        int v = t >= d?s[t-d]:0;
        s[t] += v;
        __syncthreads();
    }
    o[t] = s[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lane_any(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = x[t];
    while (__any_sync(~0u, s[t]>0)) {
        s[t] -= 1;
        __syncwarp();
    }
    o[t] = s[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lane_leader(int* o, int* x) {
    __shared__ int s;
    int t = threadIdx.x;
    for (int i = 0;i<4;i++) {
        if (t == i) s = x[i];
        __syncwarp();
        o[t] += s;
        __syncwarp();
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lane_leader_bad(int* o, int* x) {
    __shared__ int s;
    int t = threadIdx.x;
    for (int i = 0;i<4;i++) {
        if (t == i) s = x[i]+1;
        __syncwarp();
        o[t] += s;
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lane_tile(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    unsigned m = 0xffu<<(t/8*8);
    s[t] = x[t];
    __syncwarp(m);
    o[t] = s[t^7];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lane_tile_bad(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    unsigned m = 0xffu<<(t/8*8);
    s[t] = x[t];
    __syncwarp(m);
    o[t] = s[t^15];
}

// run: --grid 1 --block 3 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void lane_three(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<3) s[t] = x[t];
    o[t] = s[t<3?(t+1)%3:0];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: within a block
extern "C" __global__ void lane_write2(int* o, int* x) {
    int t = threadIdx.x;
    if (t&1) o[t/2] = x[t]+1;
    else o[t/2] = x[t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: within a block
extern "C" __global__ void lane_atomic_plain(int* o, int* x) {
    int t = threadIdx.x;
    atomicAdd(&o[0], x[t]);
    o[1+t] = o[0];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void lane_exited(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (x[t]>20) return;
    s[t] = t;
    __syncwarp(__activemask());
    o[t] = s[(t+1)%21];
}

// run: --grid 1 --block 128 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void readers(int* o, int* x) {
    __shared__ int s;
    int w = threadIdx.x/32;
    if (threadIdx.x == 0) s = x[0];
    __syncthreads();
    int v = s;
    if (w == 3) {
        s = 9;
    }
    o[threadIdx.x] = v;
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void graph_max(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            if (o[n]<u) o[n] = u;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void graph_sum(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            o[n] += u;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void graph_max_atomic(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            atomicMax(&o[n], u);
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void graph_sum_atomic(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            atomicAdd(&o[n], u);
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void graph_push(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            o[u] = v;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void graph_own(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            o[v] += u;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void graph_flag(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            o[n] = 1;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void graph_capture(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            int p = o[20];
            o[20] = p+1;
            o[21+p] = u;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:iota --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void graph_capture_atomic(const int* x, int* o) {
    int v = threadIdx.x;
    if (v<20) {
        int n = x[v]%5;
        for (int e = 0;e<4;e++) {
            int u = (x[v]*7+e*3)%20;
            int p = atomicAdd(&o[20], 1);
            o[21+p] = u;
        }
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void syncwarp_nested(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t<16) {
        if (t<8) {
            s[t] = x[t];
            __syncwarp();
        } else {
            s[t] = x[t]+1;
            __syncwarp();
        }
    } else {
        s[t] = 2*x[t];
        __syncwarp();
    }
    o[t] = s[31-t];
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void syncwarp_pairs(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t&1) {
        s[t] = x[t];
        __syncwarp(3u<<(t&30));
        o[t] = s[t-1];
    } else {
        s[t] = x[t]*2;
        __syncwarp(3u<<(t&30));
        o[t] = s[t+1];
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: shared memory
extern "C" __global__ void syncwarp_pairs_bad(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    if (t&1) {
        s[t] = x[t];
        __syncwarp(3u<<(t&30));
        o[t] = s[t^2];
    } else {
        s[t] = x[t]*2;
        __syncwarp(3u<<(t&30));
        o[t] = s[t^2];
    }
}

// run: --grid 1 --block 32 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void syncwarp_guard(int* o, int* x) {
    __shared__ int s[32];
    int t = threadIdx.x;
    s[t] = x[t];
    if (t<20) __syncwarp(0xfffff);
    o[t] = t<20?s[19-t]:0;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void counter_noinit(int* o) {
    __shared__ int c;
    if (!threadIdx.x) c = 0;
    atomicAdd(&c, 1);
    __syncthreads();
    o[threadIdx.x] = c;
}

// run: --grid 1 --block 32 --arg i32:1024:zeros
// finds: shared memory
extern "C" __global__ void counter_noinit1(int* o) {
    __shared__ int c;
    if (!threadIdx.x) c = 0;
    atomicAdd(&c, 1);
    __syncwarp();
    o[threadIdx.x] = c;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void counter_init(int* o) {
    __shared__ int c;
    if (!threadIdx.x) c = 0;
    __syncthreads();
    atomicAdd(&c, 1);
    __syncthreads();
    o[threadIdx.x] = c;
    __syncthreads();
    if (!threadIdx.x) c = 0;
    __syncthreads();
    atomicAdd(&c, 2);
    __syncthreads();
    o[threadIdx.x] += c;
}

// run: --grid 1 --block 64 --arg i32:1024:zeros
// finds: within a block
extern "C" __global__ void counter_global(int* o) {
    if (!threadIdx.x) o[0] = 5;
    atomicAdd(o, 1);
}

// run: --grid 3 --block 1 --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void counter_blocks(int* o) {
    if (!blockIdx.x) o[0] = 5;
    atomicAdd(o, 1);
}
