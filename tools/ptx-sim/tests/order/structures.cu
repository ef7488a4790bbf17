// Kernels for `tests/order.rs`: how each is launched, and what must be found, stands before it. The PTX beside it is NVRTC's
// for compute_80.

__device__ int flag;
__device__ int L;

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_volarr(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<8;i++) d[i] = i+1;
        __threadfence();
        *(volatile int*)&flag = 1;
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        int s = 0;
        for (int i = 0;i<8;i++) s += d[i];
        o[0] = s;
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void structure_volarr_bad(volatile int* d, int* o) {
    if (blockIdx.x == 0) {
        for (int i = 0;i<8;i++) d[i] = i+1;
        *(volatile int*)&flag = 1;
        __threadfence();
    } else {
        while (*(volatile int*)&flag == 0);
        __threadfence();
        int s = 0;
        for (int i = 0;i<8;i++) s += d[i];
        o[0] = s;
    }
}

// run: --grid 2 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_nanosleep(int* d, int* o) {
    if (blockIdx.x == 0) {
        d[0] = 3;
        __threadfence();
        *(volatile int*)&flag = 1;
    } else {
        while (*(volatile int*)&flag == 0) {
            o[1]++;
        }
        __threadfence();
        o[0] = d[0];
    }
}

// run: --grid 3 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_backoff(int* d) {
    int tries = 0;
    while (atomicCAS(&L, 0, 1) != 0) {
        tries++;
    }
    __threadfence();
    d[0] += tries+1;
    __threadfence();
    atomicExch(&L, 0);
}

// run: --grid 3 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_trylock(int* d) {
    bool ok = false;
    while (!ok) {
        if (atomicCAS(&L, 0, 1) == 0) {
            __threadfence();
            d[0]++;
            __threadfence();
            atomicExch(&L, 0);
            ok = true;
        }
    }
}

// run: --grid 3 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_once(int* d, int* o) {
    if (atomicCAS(&L, 0, 1) == 0) {
        d[0] = 42;
        __threadfence();
        atomicExch(&flag, 1);
    } while (atomicAdd(&flag, 0) == 0);
    __threadfence();
    o[blockIdx.x] = d[0];
}

// run: --grid 3 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: between blocks
extern "C" __global__ void structure_once_bad(int* d, int* o) {
    if (atomicCAS(&L, 0, 1) == 0) {
        d[0] = 42;
        atomicExch(&flag, 1);
    } while (atomicAdd(&flag, 0) == 0);
    __threadfence();
    o[blockIdx.x] = d[0];
}

// run: --grid 4 --block 1 --cooperative --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_rwlock(int* d, int* o) {
    if (blockIdx.x == 0) {
        while (atomicCAS(&L, 0, -1) != 0);
        __threadfence();
        d[0] = 7;
        __threadfence();
        atomicExch(&L, 0);
    } else {
        int c;
        do {
            c = *(volatile int*)&L;
        } while (c<0 || atomicCAS(&L, c, c+1) != c);
        __threadfence();
        o[blockIdx.x] = d[0];
        __threadfence();
        atomicSub(&L, 1);
    }
}

// run: --grid 3 --block 1 --cooperative --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_semaphore(int* d) {
    if (blockIdx.x == 0) {
        d[0] = 1;
        __threadfence();
        atomicAdd(&flag, 2);
    } else {
        int v;
        do {
            v = atomicAdd(&flag, 0);
        } while (v <= 0 || atomicCAS(&flag, v, v-1) != v);
        __threadfence();
        d[blockIdx.x] = d[0];
    }
}

// run: --grid 2 --block 64 --arg i32:1024:iota --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_hash(int* x, int* tab, int* val) {
    int t = blockIdx.x*64+threadIdx.x;
    int key = x[t]%37+1;
    int h = key%64;
    while (true) {
        int old = atomicCAS(&tab[h], 0, key);
        if (old == 0 || old == key) {
            atomicAdd(&val[h], 1);
            break;
        }
        h = (h+1)%64;
    }
}

// run: --grid 2 --block 32 --arg i32:1024:zeros --arg i32:1024:zeros
// finds: nothing
extern "C" __global__ void structure_list(int* next, int* o) {
    int i = blockIdx.x*32+threadIdx.x+1;
    int h;
    do {
        h = *(volatile int*)&L;
        next[i] = h;
        __threadfence();
    } while (atomicCAS(&L, h, i) != h);
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: something
extern "C" __global__ void structure_floatmax(int* o, int* x) {
    int v = x[threadIdx.x];
    int old = o[0], as;
    while (v>old) {
        as = old;
        old = atomicCAS(o, as, v);
        if (old == as) break;
    }
}

// run: --grid 2 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void structure_floatmax_clean(int* o, int* x) {
    int v = x[threadIdx.x];
    int old = *(volatile int*)o, as;
    while (v>old) {
        as = old;
        old = atomicCAS(o, as, v);
        if (old == as) break;
    }
}

// run: --grid 2 --block 64 --arg f64:8:zeros
// finds: nothing
__device__ double ad(double*a, double v) {
    unsigned long long*p = (unsigned long long*)a, o = *(volatile unsigned long long*)p, s;
    do {
        s = o;
        o = atomicCAS(p, s, __double_as_longlong(v+__longlong_as_double(s)));
    } while (s != o);
    return __longlong_as_double(o);
}
extern "C" __global__ void structure_dadd(double*d) {
    ad(d, 1.0);
}

// run: --grid 1 --block 64 --arg i32:1024:zeros --arg i32:1024:iota
// finds: nothing
extern "C" __global__ void structure_blockscopefence_shared(int* o, int* x) {
    __shared__ int d;
    __shared__ int f;
    if (!threadIdx.x) f = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        d = x[1];
        __threadfence();
        atomicExch(&f, 1);
    } else if (threadIdx.x == 32) {
        while (atomicAdd(&f, 0) == 0);
        __threadfence();
        o[0] = d;
    }
}
