#include "kernels/rms_norm.h"

#include <cmath>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"

namespace switchyard::kernels {
namespace {

// dx of one row; the row's share of dw is added to dw.
template <class T>
void backward_row(const RmsNormBackward<T>& a, int64_t row, Acc<T>* dw) {
  using A = Acc<T>;
  const int64_t cols = a.cols;
  const T *dy = a.dy + row * cols, *x = a.x + row * cols, *w = a.w;
  T* dx = a.dx + row * cols;
  const A rstd = a.rstd[row];
  A product = 0;  // sum of g * x
#pragma omp simd reduction(+ : product)
  for (int64_t c = 0; c < cols; ++c) {
    const A d = static_cast<A>(dy[c]) * static_cast<A>(x[c]);
    product += d * static_cast<A>(w[c]);
    dw[c] += d * rstd;
  }
  const A pull = rstd * rstd * product / static_cast<A>(cols);
#pragma omp simd
  for (int64_t c = 0; c < cols; ++c) {
    const A g = static_cast<A>(dy[c]) * static_cast<A>(w[c]);
    store(dx[c], rstd * (g - static_cast<A>(x[c]) * pull));
  }
  if (!a.dsum) return;
  const T* dsum = a.dsum + row * cols;
#pragma omp simd
  for (int64_t c = 0; c < cols; ++c) store(dx[c], static_cast<A>(dsum[c]) + static_cast<A>(dx[c]));
}

// sum = x + delta, where there is delta. What is to be normalised.
template <class T>
const T* row_of(const RmsNormForward<T>& a, int64_t row) {
  using A = Acc<T>;
  const T* x = a.x + row * a.cols;
  if (!a.delta) return x;
  const T* delta = a.delta + row * a.cols;
  T* sum = a.sum + row * a.cols;
#pragma omp simd
  for (int64_t c = 0; c < a.cols; ++c) store(sum[c], static_cast<A>(x[c]) + static_cast<A>(delta[c]));
  return sum;
}

}  // namespace

template <class T>
void run(Cpu, const RmsNormForward<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    const T *x = row_of(a, r), *w = a.w;
    T* y = a.y + r * a.cols;
    const A rstd = 1 / std::sqrt(dot(x, x, a.cols) / static_cast<A>(a.cols) + a.eps);
    a.rstd[r] = rstd;
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) {
      store(y[c], rounded<T>(static_cast<A>(x[c]) * rstd) * static_cast<A>(w[c]));
    }
  });
}

template <class T>
void run(Cpu, const RmsNormBackward<T>& a) {
  const int64_t blocks = std::min(a.kBlocks, a.rows);
  for_blocks(blocks, a.rows, a.rows * a.cols, [=](int64_t b, int64_t begin, int64_t end) {
    Acc<T>* dw = a.workspace + b * a.cols;
    std::fill_n(dw, a.cols, Acc<T>(0));
    for (int64_t r = begin; r < end; ++r) backward_row(a, r, dw);
  });
  add_blocks(a.dw, a.workspace, blocks, a.cols);
}

#define SWITCHYARD_INSTANTIATE(T)                   \
  template void run(Cpu, const RmsNormForward<T>&); \
  template void run(Cpu, const RmsNormBackward<T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
