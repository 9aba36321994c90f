#include "kernels/embedding.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kRunThreads = 64;
constexpr int kRowsInFlight = 8;

template <int V, class T>
__global__ void forward_kernel(EmbeddingForward<T> a) {
  const int64_t i = map_index() * V;
  if (i >= a.tokens * a.cols) return;
  const int64_t token = i / a.cols, c = i % a.cols;
  Acc<T> v[V];
  load<V>(a.table + int64_t{a.ids[token]} * a.cols + c, v);
  store<V>(a.y + i, v);
}

// Block (i, tile) does nothing unless sorted_ids[i] starts a run; then it adds the
// whole run's rows, in token order.
template <int V, class T>
__global__ void backward_kernel(EmbeddingBackward<T> a) {
  using A = Acc<T>;
  const int64_t begin = blockIdx.x;
  const int32_t id = a.sorted_ids[begin];
  if (begin > 0 && a.sorted_ids[begin - 1] == id) return;
  const int64_t c = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * V;
  if (c >= a.cols) return;
  A sum[V] = {};
  for (int64_t i = begin; i < a.tokens && a.sorted_ids[i] == id; i += kRowsInFlight) {
    A row[kRowsInFlight][V] = {};
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k)
      if (i + k < a.tokens && a.sorted_ids[i + k] == id) load<V>(a.dy + a.order[i + k] * a.cols + c, row[k]);
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k)
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] += row[k][j];
  }
  A* out = a.dtable + int64_t{id} * a.cols + c;
  A old[V];
  load<V>(out, old);
#pragma unroll
  for (int j = 0; j < V; ++j) old[j] += sum[j];
  store<V>(out, old);
}

}  // namespace

template <class T>
void run(Cuda on, const EmbeddingForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.table), [&](auto v) {
    launch_kernel(forward_kernel<v, T>, map_grid(a.tokens * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const EmbeddingBackward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.dtable, a.dy), [&](auto v) {
    dim3 grid = grid_of(a.tokens);
    grid.y = static_cast<unsigned>(ceil_div<int64_t>(a.cols, kRunThreads * v));
    launch_kernel(backward_kernel<v, T>, grid, kRunThreads, 0, on.stream, a);
  });
}

template void run(Cuda, const EmbeddingForward<float>&);
template void run(Cuda, const EmbeddingForward<BF16>&);
template void run(Cuda, const EmbeddingForward<double>&);
template void run(Cuda, const EmbeddingBackward<float>&);
template void run(Cuda, const EmbeddingBackward<BF16>&);
template void run(Cuda, const EmbeddingBackward<double>&);

}  // namespace switchyard::kernels
