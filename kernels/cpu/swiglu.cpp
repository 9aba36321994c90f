#include "kernels/swiglu.h"

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {

template <class T>
void run(Cpu, const SwigluForward<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    const T *gate = a.x + r * 2 * a.cols, *up = gate + a.cols;
    T* y = a.y + r * a.cols;
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) {
      const A g = static_cast<A>(gate[c]);
      store(y[c], g * sigmoid(g) * static_cast<A>(up[c]));
    }
  });
}

// dgate = dy * up * s (1 + g (1 - s)),   dup = dy * g s,   s = sigmoid(g)
template <class T>
void run(Cpu, const SwigluBackward<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.cols, [=](int64_t r) {
    const T *gate = a.x + r * 2 * a.cols, *up = gate + a.cols, *dy = a.dy + r * a.cols;
    T *dgate = a.dx + r * 2 * a.cols, *dup = dgate + a.cols;
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) {
      const A g = static_cast<A>(gate[c]), d = static_cast<A>(dy[c]), s = sigmoid(g);
      store(dgate[c], d * static_cast<A>(up[c]) * s * (1 + g * (1 - s)));
      store(dup[c], d * g * s);
    }
  });
}

#define SWITCHYARD_INSTANTIATE(T)                  \
  template void run(Cpu, const SwigluForward<T>&); \
  template void run(Cpu, const SwigluBackward<T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
