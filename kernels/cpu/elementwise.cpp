#include "kernels/elementwise.h"

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {
namespace {

template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>)
    return x;
  else if constexpr (std::is_same_v<To, BF16> || std::is_same_v<From, BF16>)
    return static_cast<To>(static_cast<float>(x));
  else
    return static_cast<To>(x);
}

// Sum of f(x) in double, four quarters side by side.
template <class T, class F>
double sum_of(const T* x, int64_t n, F f) {
  const int64_t q = n / 4;
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (int64_t i = 0; i < q; ++i) {
    s0 += f(static_cast<double>(static_cast<Acc<T>>(x[i])));
    s1 += f(static_cast<double>(static_cast<Acc<T>>(x[i + q])));
    s2 += f(static_cast<double>(static_cast<Acc<T>>(x[i + 2 * q])));
    s3 += f(static_cast<double>(static_cast<Acc<T>>(x[i + 3 * q])));
  }
  for (int64_t i = 4 * q; i < n; ++i) s0 += f(static_cast<double>(static_cast<Acc<T>>(x[i])));
  return (s0 + s1) + (s2 + s3);
}

}  // namespace

template <class T>
void run(Cpu, const Axpby<T>& a) {
  using A = Acc<T>;
  const A alpha = a.alpha, beta = a.beta;
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    T* y = a.y;
    const T *p = a.a, *q = a.b;
    if (q) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i)
        store(y[i], alpha * static_cast<A>(p[i]) + beta * static_cast<A>(q[i]));
    } else {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) store(y[i], alpha * static_cast<A>(p[i]));
    }
  });
}

template <class To, class From>
void run(Cpu, const Cast<To, From>& a) {
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    To* y = a.y;
    const From* x = a.x;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = convert<To>(x[i]);
  });
}

template <class T>
void run(Cpu, const Accumulate<T>& a) {
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    Acc<T>* y = a.y;
    const T* x = a.x;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] += static_cast<Acc<T>>(x[i]);
  });
}

template <class T>
void run(Cpu, const ScaleBy<T>& a) {
  using A = Acc<T>;
  if (a.n == 0) return;
  const A factor = *a.factor;
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    T* y = a.y;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) store(y[i], static_cast<A>(y[i]) * factor);
  });
}

template <class T>
void run(Cpu, const Multiply<T>& a) {
  using A = Acc<T>;
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    T* y = a.y;
    const T *p = a.a, *q = a.b;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) store(y[i], static_cast<A>(p[i]) * static_cast<A>(q[i]));
  });
}

template <class T>
void run(Cpu, const AddBias<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    T* y = a.y + r * a.cols;
    const T *x = a.x + r * a.cols, *b = a.b;
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) store(y[c], static_cast<A>(x[c]) + static_cast<A>(b[c]));
  });
}

template <class T>
void run(Cpu, const ColumnSum<T>& a) {
  using A = Acc<T>;
  const int64_t blocks = std::min(a.kBlocks, a.rows);
  for_blocks(blocks, a.rows, a.rows * a.cols, [=](int64_t b, int64_t begin, int64_t end) {
    A* sum = a.workspace + b * a.cols;
    std::fill_n(sum, a.cols, A(0));
    for (int64_t r = begin; r < end; ++r) {
      const T* x = a.x + r * a.cols;
#pragma omp simd
      for (int64_t c = 0; c < a.cols; ++c) sum[c] += static_cast<A>(x[c]);
    }
  });
  add_blocks(a.out, a.workspace, blocks, a.cols);
}

template <class T>
void run(Cpu, const SigmoidGateForward<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    const A gate = sigmoid(static_cast<A>(a.g[r]));
    T* y = a.y + r * a.cols;
    const T* x = a.x + r * a.cols;
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) store(y[c], gate * static_cast<A>(x[c]));
  });
}

template <class T>
void run(Cpu, const SigmoidGateBackward<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    const A gate = sigmoid(static_cast<A>(a.g[r]));
    T* dx = a.dx + r * a.cols;
    const T *dy = a.dy + r * a.cols, *x = a.x + r * a.cols;
    store(a.dg[r], gate * (1 - gate) * dot(dy, x, a.cols));
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) store(dx[c], gate * static_cast<A>(dy[c]));
  });
}

template <class T>
void run(Cpu, const Sum<T>& a) {
  const int64_t blocks = std::min(a.kBlocks, a.n);
  for_blocks(blocks, a.n, a.n, [=](int64_t b, int64_t begin, int64_t end) {
    const T* x = a.x + begin;
    a.workspace[b] = a.square ? sum_of(x, end - begin, [](double v) { return v * v; })
                              : sum_of(x, end - begin, [](double v) { return v; });
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += a.workspace[b];
  *a.sum = a.scale * total + (a.accumulate ? *a.sum : 0);
}

#define SWITCHYARD_INSTANTIATE(T)                        \
  template void run(Cpu, const Axpby<T>&);               \
  template void run(Cpu, const Accumulate<T>&);          \
  template void run(Cpu, const ScaleBy<T>&);             \
  template void run(Cpu, const Multiply<T>&);            \
  template void run(Cpu, const AddBias<T>&);             \
  template void run(Cpu, const ColumnSum<T>&);           \
  template void run(Cpu, const SigmoidGateForward<T>&);  \
  template void run(Cpu, const SigmoidGateBackward<T>&); \
  template void run(Cpu, const Sum<T>&);                 \
  template void run(Cpu, const Cast<float, T>&);         \
  template void run(Cpu, const Cast<BF16, T>&);          \
  template void run(Cpu, const Cast<double, T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
