// Types and small functions shared by all kernels. They need no toolkit header, so NVRTC alone compiles them.
//
// Activations are stored as bf16 or f16 (or as f32 on the checking path) and computed in f32. A kernel that
// exists for several is a template over the stored type `T`, instantiated by name: `name_bf16`, `name_f16`,
// `name_f32`.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

// A bfloat16: the upper half of an f32.
struct bf16 {
    u16 bits;
};

// An IEEE half: 11 significant bits, largest value 65504, least normal one 2^-14.
struct f16 {
    u16 bits;
};

// Round to nearest even, the hardware's conversion.
__device__ __forceinline__ bf16 to_bf16(float value) {
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

// Round to nearest even; beyond 65504 by half a unit of its last bit and more, infinity.
__device__ __forceinline__ f16 to_f16(float value) {
    f16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

__device__ __forceinline__ float to_float(f16 value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ __forceinline__ float to_float(bf16 value) { return __uint_as_float((u32)value.bits << 16); }
__device__ __forceinline__ float to_float(float value) { return value; }

// Two values of T in 32 bits, `low` in the lower half.
template <typename T> struct Packed;

template <> struct Packed<bf16> {
    // Two floats rounded.
    static __device__ __forceinline__ u32 pack(float low, float high) {
        u32 result;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
        return result;
    }
    static __device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
    static __device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
};

template <> struct Packed<f16> {
    static __device__ __forceinline__ u32 pack(float low, float high) {
        u32 result;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
        return result;
    }
    static __device__ __forceinline__ float low(u32 pair) {
        float result;
        asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(result) : "r"(pair));
        return result;
    }
    static __device__ __forceinline__ float high(u32 pair) {
        float result;
        asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(result) : "r"(pair));
        return result;
    }
};

template <typename T> __device__ __forceinline__ T from_float(float value);
template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float value) { return to_bf16(value); }
template <> __device__ __forceinline__ f16 from_float<f16>(float value) { return to_f16(value); }

// Sixteen bytes of activations as floats: eight bf16 or f16, or four f32. Addresses are 16-byte aligned.
template <typename T> struct Vector;

template <typename T> struct HalfVector {
    static constexpr int LEN = 8;
    typedef uint4 Raw;
    static __device__ __forceinline__ void load(const T* from, float (&values)[8]) {
        unpack(*reinterpret_cast<const uint4*>(from), values);
    }
    static __device__ __forceinline__ void unpack(const uint4& raw, float (&values)[8]) {
        const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            values[2 * i] = Packed<T>::low(words[i]);
            values[2 * i + 1] = Packed<T>::high(words[i]);
        }
    }
    // The values rounded.
    static __device__ __forceinline__ uint4 packed(const float (&values)[8]) {
        return make_uint4(Packed<T>::pack(values[0], values[1]), Packed<T>::pack(values[2], values[3]),
                          Packed<T>::pack(values[4], values[5]), Packed<T>::pack(values[6], values[7]));
    }
    static __device__ __forceinline__ void store(T* to, const float (&values)[8]) {
        *reinterpret_cast<uint4*>(to) = packed(values);
    }
};

template <> struct Vector<bf16> : HalfVector<bf16> {};
template <> struct Vector<f16> : HalfVector<f16> {};

template <> struct Vector<float> {
    static constexpr int LEN = 4;
    typedef float4 Raw;
    static __device__ __forceinline__ void load(const float* from, float (&values)[4]) {
        unpack(*reinterpret_cast<const float4*>(from), values);
    }
    static __device__ __forceinline__ void unpack(const float4& raw, float (&values)[4]) {
        values[0] = raw.x, values[1] = raw.y, values[2] = raw.z, values[3] = raw.w;
    }
    static __device__ __forceinline__ float4 packed(const float (&values)[4]) {
        return make_float4(values[0], values[1], values[2], values[3]);
    }
    static __device__ __forceinline__ void store(float* to, const float (&values)[4]) {
        *reinterpret_cast<float4*>(to) = packed(values);
    }
};

// Sum and maximum over the 32 lanes of a warp, the same value in every lane. The order of the additions is
// fixed.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

__device__ __forceinline__ int ceiling_divide(int a, int b) { return (a + b - 1) / b; }

// A step, clamped to 0..steps: a kernel cannot refuse a step beyond the uploaded ones.
__device__ __forceinline__ int bounded_step(const int* step, int steps) {
    return min(max(*step, 0), steps - 1);
}
