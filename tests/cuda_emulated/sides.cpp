#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {

void Results::expect_close_to(const Results& expected) const {
  ASSERT_EQ(arrays_.size(), expected.arrays_.size());
  for (size_t a = 0; a < arrays_.size(); ++a) {
    const auto& want = expected.arrays_[a].values;
    const auto& have = arrays_[a].values;
    ASSERT_EQ(have.size(), want.size());
    double largest = 1e-30;
    for (double x : want) largest = std::max(largest, std::abs(x));
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(have[i], want[i], arrays_[a].tolerance * largest) << "output " << a << ", element " << i;
  }
}

}  // namespace switchyard::kernels
