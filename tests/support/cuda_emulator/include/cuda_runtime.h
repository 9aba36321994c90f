// CUDA's device language for g++: blocks run in turn, the threads of a block are fibers (../emulator.cpp).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// One block at a time runs on a host thread, so its shared memory is that host thread's.
#define __shared__ thread_local

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace cuda_emulator {

// Where the running fiber is in its grid.
struct Place {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
};
extern thread_local Place place;

void sync_block();
// Leaves `value` for the other lanes of `mask`, waits for them, and gives back all 32
// values (of lanes in the mask).
const uint64_t* exchange(unsigned mask, uint64_t value);
int lane();
unsigned char* dynamic_shared();
// 16 bytes (or zeros, if from is null) that arrive when wait_copies() is called.
void copy_async(void* to, const void* from);
void commit_copies();
void wait_copies(size_t pending);

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// The value of lane `source` of the caller's group of `width` lanes, or the caller's
// own if it is outside the group.
template <class T>
T shuffle(unsigned mask, T value, int source, int width) {
  const uint64_t* values = exchange(mask, to_bits(value));
  const int base = lane() / width * width;
  return source < 0 || source >= width ? value : from_bits<T>(values[base + source]);
}

}  // namespace cuda_emulator

#define threadIdx (::cuda_emulator::place.thread)
#define blockIdx (::cuda_emulator::place.block)
#define blockDim (::cuda_emulator::place.block_dim)
#define gridDim (::cuda_emulator::place.grid_dim)

inline void __syncthreads() { cuda_emulator::sync_block(); }
inline void __syncwarp(unsigned mask = ~0u) { cuda_emulator::exchange(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return cuda_emulator::shuffle(mask, value, (source % width + width) % width, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  return cuda_emulator::shuffle(mask, value, (cuda_emulator::lane() % width) ^ distance, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_emulator::shuffle(mask, value, cuda_emulator::lane() % width - static_cast<int>(distance),
                                width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_emulator::shuffle(mask, value, cuda_emulator::lane() % width + static_cast<int>(distance),
                                width);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  const uint64_t* values = cuda_emulator::exchange(mask, cuda_emulator::to_bits(value));
  unsigned same = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u && values[i] == cuda_emulator::to_bits(value)) same |= 1u << i;
  return same;
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* values = cuda_emulator::exchange(mask, predicate != 0);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u && values[i]) votes |= 1u << i;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Fibers switch only at barriers, so plain updates are atomic.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "sums of floats in the order of arrival differ from run to run");
  const T old = *address;
  *address += value;
  return old;
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}

template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
template <class T>
void __stwb(T* pointer, std::type_identity_t<T> value) {
  *pointer = value;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }

template <class T>
constexpr T min(T a, std::type_identity_t<T> b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, std::type_identity_t<T> b) {
  return a < b ? b : a;
}
