// For checks of <A x, s> = <x, A' s>: tensors of whole numbers, so that both sides are exact, and the product
// over all ranks.
#pragma once

#include <gtest/gtest.h>

#include <numeric>

#include "core/tensor.h"
#include "parallel/comm/communicator.h"

namespace switchyard::test {

inline Tensor whole_numbers(int64_t rows, int64_t cols, int seed) {
  std::vector<double> values(rows * cols);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<double>((seed * 31 + static_cast<int>(i) * 7) % 23 - 11);
  return Tensor::from(values, {rows, cols});
}

// Over all ranks.
inline double dot(const Tensor& a, const Tensor& b, const Group& group) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  EXPECT_EQ(x.size(), y.size());
  double sum = std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  group->all_reduce(&sum, 1, DType::kF64);
  return sum;
}

}  // namespace switchyard::test
