// ColumnSum and Sum of elementwise.h: fixed blocks, then the blocks in order.
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/elementwise.h"

namespace switchyard::kernels {
namespace {

template <class T>
struct Element {
  const T* x;
  int64_t cols;
  template <int V>
  __device__ void operator()(int64_t r, int64_t c, Acc<T> (&out)[V]) const {
    load<V>(x + r * cols + c, out);
  }
};

template <class T>
__device__ void write_sum(const Sum<T>& a, double sum) {
  const double total = a.scale * sum;
  a.sum[0] = a.accumulate ? a.sum[0] + total : total;
}

// Block b sums elements b * per_block .. ; per_block is a multiple of V. A block that is alone needs nobody
// to finish.
template <int V, class T>
__global__ void sum_blocks(Sum<T> a, int64_t per_block) {
  const int64_t begin = blockIdx.x * per_block;
  const int64_t end = begin + per_block < a.n ? begin + per_block : a.n;
  double sum = 0;
  auto add = [&](Acc<T> x) {
    const double value = x;
    sum += a.square ? value * value : value;
  };
#pragma unroll 4
  for (int64_t i = begin + int64_t{threadIdx.x} * V; i + V <= end; i += int64_t{blockDim.x} * V) {
    Acc<T> x[V];
    load<V>(a.x + i, x);
#pragma unroll
    for (int j = 0; j < V; ++j) add(x[j]);
  }
  if (begin < end && threadIdx.x < (end - begin) % V) add(widen(a.x[end - 1 - threadIdx.x]));
  sum = team_reduce(sum);
  if (threadIdx.x > 0) return;
  if (gridDim.x == 1) {
    write_sum(a, sum);
  } else {
    a.workspace[blockIdx.x] = sum;
  }
}

template <class T>
__global__ void finish_sum(Sum<T> a) {
  const double sum = team_reduce(a.workspace[threadIdx.x]);
  if (threadIdx.x == 0) write_sum(a, sum);
}

}  // namespace

template <class T>
void run(Cuda on, const ColumnSum<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.x), [&](auto v) {
    launch_column_sum<v>(on, a.out, a.workspace, a.cols, a.rows, a.cols, ColumnSum<T>::kBlocks,
                         Element<T>{a.x, a.cols});
  });
}

template <class T>
void run(Cuda on, const Sum<T>& a) {
  constexpr int64_t kFew = 16 * 1024;  // elements that one block sums as fast
  const int64_t blocks = a.n <= kFew ? 1 : Sum<T>::kBlocks;
  with_width<kVector<T>>(vectorizable<kVector<T>>(0, a.x), [&](auto v) {
    const int64_t per_block = round_up<int64_t>(ceil_div(a.n, blocks), v);
    launch_kernel(sum_blocks<v, T>, grid_of(blocks), dim3(512), 0, on.stream, a, per_block);
  });
  if (blocks > 1) launch_kernel(finish_sum<T>, dim3(1), dim3(Sum<T>::kBlocks), 0, on.stream, a);
}

#define SWITCHYARD_INSTANTIATE(T)               \
  template void run(Cuda, const ColumnSum<T>&); \
  template void run(Cuda, const Sum<T>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
