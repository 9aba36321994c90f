// A block per head: each warp walks every kWarps-th key with a running maximum and sum, and the warps'
// results are put together in their order.
#include "kernels/attention_last.h"

#include <cmath>

#include "kernels/cuda/attention_simt.cuh"
#include "kernels/cuda/launch.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kWarps = 8;

// What was summed under one maximum: sum of exp(score - top), and the same with the values.
template <class A, int kParts>
struct Sums {
  A top, sum;
  A out[kParts];

  __device__ void add(A score, const A (&value)[kParts]) {
    const A highest = top > score ? top : score;
    const A keep = exp(top - highest), weight = exp(score - highest);
    sum = sum * keep + weight;
#pragma unroll
    for (int i = 0; i < kParts; ++i) out[i] = out[i] * keep + weight * value[i];
    top = highest;
  }
};

template <int kParts, class T>
__global__ void last_kernel(AttentionLast<T> p) {
  using A = Acc<T>;
  const AttentionShape& s = p.shape;
  const int dim = static_cast<int>(s.head_dim), warp = threadIdx.x / 32;
  const int64_t head = blockIdx.x, row = s.row();
  const T* keys = p.qkv + (s.heads + head / (s.heads / s.kv_heads)) * dim;
  const T* values = keys + s.kv_heads * dim;
  A query[kParts], key[kParts], value[kParts];
  simt::load_row(query, p.qkv + (s.seq - 1) * row + head * dim, dim);
  Sums<A, kParts> own{-INFINITY, 0, {}};
  for (int64_t j = warp; j < s.seq; j += kWarps) {
    simt::load_row(key, keys + j * row, dim);
    simt::load_row(value, values + j * row, dim);
    own.add(A(s.scale) * simt::dot(query, key), value);
  }
  __shared__ A tops[kWarps], sums[kWarps], outs[kWarps][32 * kParts];
  const int lane = threadIdx.x % 32;
  if (lane == 0) {
    tops[warp] = own.top;
    sums[warp] = own.sum;
  }
#pragma unroll
  for (int i = 0; i < kParts; ++i) outs[warp][lane + 32 * i] = own.out[i];
  __syncthreads();
  if (warp > 0) return;
  A top = tops[0], sum = 0, out[kParts] = {};
  for (int w = 1; w < kWarps; ++w) top = top > tops[w] ? top : tops[w];
  for (int w = 0; w < kWarps; ++w) {
    const A keep = exp(tops[w] - top);  // 0 for a warp that met no key
    sum += keep * sums[w];
#pragma unroll
    for (int i = 0; i < kParts; ++i) out[i] += keep * outs[w][lane + 32 * i];
  }
#pragma unroll
  for (int i = 0; i < kParts; ++i) out[i] /= sum;
  simt::store_row(p.o + head * dim, out, dim);
}

}  // namespace

template <class T>
void run(Cuda on, const AttentionLast<T>& a) {
  CHECK(a.shape.head_dim > 0 && a.shape.head_dim <= simt::kMaxHeadDim, "head_dim ", a.shape.head_dim);
  const dim3 grid(static_cast<unsigned>(a.shape.heads)), block(32 * kWarps);
  if (a.shape.head_dim <= 64)
    launch_kernel(last_kernel<2, T>, grid, block, 0, on.stream, a);
  else if (a.shape.head_dim <= 128)
    launch_kernel(last_kernel<4, T>, grid, block, 0, on.stream, a);
  else
    launch_kernel(last_kernel<8, T>, grid, block, 0, on.stream, a);
}

template void run(Cuda, const AttentionLast<float>&);
template void run(Cuda, const AttentionLast<BF16>&);
template void run(Cuda, const AttentionLast<double>&);

}  // namespace switchyard::kernels
