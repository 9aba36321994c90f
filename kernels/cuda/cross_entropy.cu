#include "kernels/cross_entropy.h"

#include <limits>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

// Calls f(width, column) for every column of a row whose first element has number `start`: in vectors where
// the address allows it, one by one before and after. A row of an odd vocabulary starts anywhere.
template <int V, class F>
__device__ void over_row(int64_t start, int64_t vocab, F&& f) {
  using One = std::integral_constant<int, 1>;
  const int64_t lead = (V - start % V) % V, head = lead < vocab ? lead : vocab;
  const int64_t tail = vocab - (vocab - head) % V;
  if (threadIdx.x < head) f(One{}, int64_t{threadIdx.x});
#pragma unroll 2
  for (int64_t c = head + int64_t{threadIdx.x} * V; c < tail; c += int64_t{blockDim.x} * V)
    f(std::integral_constant<int, V>{}, c);
  if (V > 1 && tail + threadIdx.x < vocab) f(One{}, tail + threadIdx.x);
}

// A block a row. The first pass keeps a running maximum and sum of exponentials, the
// second writes the gradient.
template <int V, class T>
__global__ void cross_entropy_kernel(CrossEntropy<T> a) {
  using A = Acc<T>;
  const int64_t row = blockIdx.x, start = row * a.vocab;
  const A* z = a.logits + start;
  T* dz = a.dlogits ? a.dlogits + start : nullptr;
  const int32_t target = a.target[row];
  if (target < 0) {
    if (threadIdx.x == 0) a.loss[row] = 0;
    if (!dz) return;
    over_row<V>(start, a.vocab, [&](auto width, int64_t c) {
      A zero[width] = {};
      store<width>(dz + c, zero);
    });
    return;
  }
  const A picked = z[target];  // now: dlogits may be the same memory

  A top = std::numeric_limits<A>::lowest(), sum = 0;
  over_row<V>(start, a.vocab, [&](auto width, int64_t c) {
    A x[width];
    load<width>(z + c, x);
    A next = top;
#pragma unroll
    for (int j = 0; j < width; ++j) next = x[j] > next ? x[j] : next;
    sum *= std::exp(top - next);
    top = next;
#pragma unroll
    for (int j = 0; j < width; ++j) sum += std::exp(x[j] - top);
  });
  const A row_top = team_reduce(top, Max{});
  const A row_sum = team_reduce(sum * std::exp(top - row_top));
  if (threadIdx.x == 0) a.loss[row] = std::log(row_sum) + (row_top - picked);
  if (!dz) return;

  const A share = a.scale / row_sum;
  over_row<V>(start, a.vocab, [&](auto width, int64_t c) {
    A x[width];
    load<width>(z + c, x);
#pragma unroll
    for (int j = 0; j < width; ++j)
      x[j] = std::exp(x[j] - row_top) * share - (c + j == target ? a.scale : A{0});
    store<width>(dz + c, x);
  });
}

}  // namespace

template <class T>
void run(Cuda on, const CrossEntropy<T>& a) {
  // Stride 0: a row may start anywhere, because both matrices are misaligned alike.
  with_width<kVector<T>>(vectorizable<kVector<T>>(0, a.dlogits, a.logits), [&](auto v) {
    const int64_t wanted = round_up<int64_t>(ceil_div<int64_t>(a.vocab, 2 * v), kWarp);
    const dim3 block(static_cast<unsigned>(wanted < kWarp ? kWarp : wanted > 1024 ? 1024 : wanted));
    launch_kernel(cross_entropy_kernel<v, T>, grid_of(a.rows), block, 0, on.stream, a);
  });
}

template void run(Cuda, const CrossEntropy<float>&);
template void run(Cuda, const CrossEntropy<BF16>&);
template void run(Cuda, const CrossEntropy<double>&);

}  // namespace switchyard::kernels
