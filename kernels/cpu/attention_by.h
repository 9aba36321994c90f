// Attention by given products (kernels/cpu/attention_products.h): the best that the processor has, and for
// tests those of the plain registers.
#pragma once

#include "kernels/attention.h"
#include "kernels/cpu/attention_products.h"

namespace switchyard::kernels {

template <class Products, class T>
void attention_by(const AttentionForward<T>&);
template <class Products, class T>
void attention_by(const AttentionBackward<T>&);

namespace attention {

template <class T>
struct Of {};

// f(Of<Products>())
template <class T, class F>
void by_best_products(const F& f) {
  if constexpr (std::is_same_v<T, double>) {
    f(Of<VectorProducts<double>>());
  } else {
    if constexpr (std::is_same_v<T, BF16>)
      if (has_matrix_registers()) return f(Of<MatrixProducts<MatrixRegisters>>());
    f(Of<VectorProducts<PanelElement<T>>>());
  }
}

}  // namespace attention
}  // namespace switchyard::kernels
