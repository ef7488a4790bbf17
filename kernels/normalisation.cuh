// From uint8 pixels to normalised activations: (v/255 - mean) / std, each of the three operations rounded
// once to f32, as the reference does. A table of 256 values per channel in shared memory holds the results,
// so a value costs one lookup. As pixel values are irregular, lanes collide in banks: about 3 to 4 wavefronts
// per lookup are expected.
#pragma once
#include "common.cuh"

// Values of the table.
constexpr int NORMALISATION_LEN = 3 * 256;

// table [3, 256] from normalisation [6] = mean, standard deviation. Called by all threads of the block; a
// barrier must follow.
__device__ __forceinline__ void make_normalisation_table(const float* __restrict__ normalisation,
                                                         float* table) {
    for (int i = threadIdx.x; i < NORMALISATION_LEN; i += blockDim.x) {
        const int channel = i / 256;
        const float unit = __fdiv_rn((float)(i % 256), 255.0f);
        table[i] = __fdiv_rn(__fsub_rn(unit, normalisation[channel]), normalisation[3 + channel]);
    }
}

// Loads `Vector<T>::LEN` bytes from an address aligned to that many.
__device__ __forceinline__ void load_bytes(const u8* from, u32 (&bytes)[4]) {
    const u32 word = *reinterpret_cast<const u32*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) bytes[i] = (word >> (8 * i)) & 255u;
}

__device__ __forceinline__ void load_bytes(const u8* from, u32 (&bytes)[8]) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        bytes[i] = (words.x >> (8 * i)) & 255u;
        bytes[4 + i] = (words.y >> (8 * i)) & 255u;
    }
}

// out [len] from pixels [len], whole RGB images of `len` values, by all threads of the block. Where `len` is
// a multiple of a vector's length, both must be aligned to a vector; then stores are of 128 bits.
template <typename T>
__device__ __forceinline__ void normalise(const u8* pixels, int len, const float* table, T* out) {
    const int LEN = Vector<T>::LEN;
    if (len % LEN != 0) {
        for (int i = threadIdx.x; i < len; i += blockDim.x) {
            out[i] = from_float<T>(table[i % 3 * 256 + pixels[i]]);
        }
        return;
    }
    for (int i = threadIdx.x * LEN; i < len; i += blockDim.x * LEN) {
        // The channel of the first value determines those of the others: the tables for three consecutive
        // values.
        const int channel = i % 3;
        const float* tables[3];
        tables[0] = table + channel * 256;
        tables[1] = channel == 2 ? table : tables[0] + 256;
        tables[2] = channel == 0 ? tables[1] + 256 : tables[0] - 256;
        u32 bytes[LEN];
        float values[LEN];
        load_bytes(pixels + i, bytes);
#pragma unroll
        for (int j = 0; j < LEN; ++j) values[j] = tables[j % 3][bytes[j]];
        Vector<T>::store(out + i, values);
    }
}
