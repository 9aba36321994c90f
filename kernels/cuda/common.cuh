// What the CUDA kernels share: widening vector loads, narrowing vector stores, and
// reductions in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <class Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

template <class Integer>
__host__ __device__ constexpr Integer round_up(Integer a, Integer b) {
  return ceil_div(a, b) * b;
}

// A grid of `blocks` blocks along x. CUDA's limit is 2^31 - 1.
inline dim3 grid_of(int64_t blocks) {
  CHECK(blocks <= 0x7fffffff, "grid of ", blocks, " blocks");
  return dim3(static_cast<unsigned>(blocks));
}

// ---- Elements: memory holds T, arithmetic is in Acc<T>.

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(BF16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

template <class T>
__device__ T narrow(Acc<T> x) {
  if constexpr (std::is_same_v<T, BF16>) {
    BF16 out;
    out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return out;
  } else {
    return x;
  }
}

// x as T would hold it.
template <class T>
__device__ Acc<T> rounded(Acc<T> x) {
  return widen(narrow<T>(x));
}

// Elements in one 16-byte access.
template <class T>
inline constexpr int kVector = 16 / sizeof(T);

// V elements that move in 16-byte accesses (or one element at a time: V = 1, for odd sizes and addresses).
template <class T, int V>
union Pack {
  static_assert(V == 1 || V * sizeof(T) % 16 == 0);
  static constexpr int kWords = V == 1 ? 1 : V * sizeof(T) / 16;
  using Word = std::conditional_t<V == 1, T, uint4>;
  Word word[kWords];
  T element[V];
  __device__ Pack() {}
};

template <int V, class T>
__device__ void load(const T* p, Acc<T> (&out)[V]) {
  Pack<T, V> pack;
  using Word = typename Pack<T, V>::Word;
#pragma unroll
  for (int i = 0; i < Pack<T, V>::kWords; ++i) pack.word[i] = reinterpret_cast<const Word*>(p)[i];
#pragma unroll
  for (int i = 0; i < V; ++i) out[i] = widen(pack.element[i]);
}

template <int V, class T>
__device__ void store(T* p, const Acc<T> (&in)[V]) {
  Pack<T, V> pack;
  using Word = typename Pack<T, V>::Word;
#pragma unroll
  for (int i = 0; i < V; ++i) pack.element[i] = narrow<T>(in[i]);
#pragma unroll
  for (int i = 0; i < Pack<T, V>::kWords; ++i) {
    // The intrinsic, because the compiler takes some plain 16-byte stores apart.
    if constexpr (V > 1)
      __stwb(reinterpret_cast<Word*>(p) + i, pack.word[i]);
    else
      p[i] = pack.element[i];
  }
}

// Whether rows of `stride` elements that start at each of the pointers (null is fine) allow V-wide accesses.
template <int V, class... Pointers>
bool vectorizable(int64_t stride, const Pointers*... pointers) {
  return stride % V == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls f with the vector width as a compile-time constant: V if `wide`, else 1.
template <int V, class F>
void with_width(bool wide, F&& f) {
  if (wide)
    f(std::integral_constant<int, V>{});
  else
    f(std::integral_constant<int, 1>{});
}

// ---- Reductions. Every thread of the group gets the result; the order of the operations is fixed.

struct Add {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

struct Max {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a > b ? a : b;
  }
};

// Over aligned groups of `width` lanes, a power of two. All lanes of the warp must come here.
template <class A, class Op = Add>
__device__ A warp_reduce(A value, Op op = {}, int width = kWarp) {
  for (int lane = width / 2; lane > 0; lane /= 2) value = op(value, __shfl_xor_sync(kAllLanes, value, lane));
  return value;
}

// Over the threads of a block along x; whole warps. With blockDim.x = 32, rows of the block are separate
// groups and nothing is synchronised; else blockDim.y must be 1 and all threads must come here.
template <class A, class Op = Add>
__device__ A team_reduce(A value, Op op = {}) {
  value = warp_reduce(value, op);
  if (blockDim.x == kWarp) return value;
  __shared__ A warps[kWarp];
  __syncthreads();  // the last reduction's readers are done
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  A total = warps[0];
  for (unsigned i = 1; i < blockDim.x / kWarp; ++i) total = op(total, warps[i]);
  return total;
}

// ---- Teams: the threads that work on one row, a warp for short rows and a block for long ones.

// blockDim = (threads a row, rows a block) for rows of `vectors` vectors, of which each thread keeps `items`
// in registers.
inline dim3 team_block(int64_t vectors, int items) {
  const int64_t threads = round_up<int64_t>(ceil_div<int64_t>(vectors, items), kWarp);
  if (threads <= kWarp) return dim3(kWarp, 4);
  return dim3(static_cast<unsigned>(threads < 1024 ? threads : 1024));
}

inline dim3 team_grid(int64_t rows, dim3 block) { return grid_of(ceil_div<int64_t>(rows, block.y)); }

// The row of this thread's team.
__device__ inline int64_t team_row() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }

// ---- Maps: one thread per vector.

inline constexpr int kMapThreads = 256;

inline dim3 map_grid(int64_t units) { return grid_of(ceil_div<int64_t>(units, kMapThreads)); }

__device__ inline int64_t map_index() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

}  // namespace switchyard::kernels
