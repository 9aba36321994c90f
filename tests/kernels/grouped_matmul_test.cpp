#include "kernels/grouped_matmul.h"

#include <omp.h>

#include "tests/kernels/values.h"

namespace switchyard::kernels {
namespace {

// Five groups, the first, third and last empty; rows 0, 1 and 330 .. 332 belong to none.
const std::vector<int64_t> kOffsets = {2, 2, 9, 9, 330, 330};
constexpr int64_t kGroups = 5, kRows = 333, kN = 19, kK = 23;

template <class T>
class GroupedMatmulTest : public ::testing::Test {};
using Floats = ::testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(GroupedMatmulTest, Floats);

// Rows that belong to no group hold NaN: whoever reads one spoils the result.
template <class T>
std::vector<T> rows_with_poison(int64_t cols, uint32_t seed) {
  std::vector<T> x = random_values<T>(kRows * cols, seed);
  const auto poison = static_cast<T>(std::nanf(""));
  std::fill_n(x.begin(), kOffsets.front() * cols, poison);
  std::fill(x.begin() + kOffsets.back() * cols, x.end(), poison);
  return x;
}

template <class T>
std::vector<T> forward(bool transpose_w) {
  const auto x = rows_with_poison<T>(kK, 1), w = random_values<T>(kGroups * kN * kK, 2);
  std::vector<T> y(kRows * kN, T(7));
  run(Cpu{}, GroupedMatmul<T>{.y = y.data(),
                              .x = x.data(),
                              .w = w.data(),
                              .offsets = kOffsets.data(),
                              .groups = kGroups,
                              .rows = kRows,
                              .n = kN,
                              .k = kK,
                              .transpose_w = transpose_w});
  return y;
}

template <class T>
std::vector<Acc<T>> weight_gradient(bool accumulate) {
  const auto x = rows_with_poison<T>(kK, 1), dy = rows_with_poison<T>(kN, 2);
  std::vector<Acc<T>> dw(kGroups * kN * kK, Acc<T>(0.5));
  run(Cpu{}, GroupedMatmulWeight<T>{.dw = dw.data(),
                                    .dy = dy.data(),
                                    .x = x.data(),
                                    .offsets = kOffsets.data(),
                                    .groups = kGroups,
                                    .rows = kRows,
                                    .n = kN,
                                    .k = kK,
                                    .accumulate = accumulate});
  return dw;
}

TYPED_TEST(GroupedMatmulTest, EachRowMeetsTheWeightOfItsGroupAndOtherRowsAreUntouched) {
  const auto x = rows_with_poison<TypeParam>(kK, 1), w = random_values<TypeParam>(kGroups * kN * kK, 2);
  for (bool transpose_w : {true, false}) {
    std::vector<double> expected(kRows * kN, 7);
    for (int64_t g = 0; g < kGroups; ++g)
      for (int64_t r = kOffsets[g]; r < kOffsets[g + 1]; ++r)
        for (int64_t j = 0; j < kN; ++j) {
          double sum = 0;
          for (int64_t l = 0; l < kK; ++l)
            sum += to_double(x[r * kK + l]) *
                   to_double(w[g * kN * kK + (transpose_w ? j * kK + l : l * kN + j)]);
          expected[r * kN + j] = sum;
        }
    expect_close(forward<TypeParam>(transpose_w), expected);
  }
}

TYPED_TEST(GroupedMatmulTest, WeightGradientSumsTheRowsOfEachGroup) {
  const auto x = rows_with_poison<TypeParam>(kK, 1), dy = rows_with_poison<TypeParam>(kN, 2);
  for (bool accumulate : {true, false}) {
    std::vector<double> expected(kGroups * kN * kK, accumulate ? 0.5 : 0);
    for (int64_t g = 0; g < kGroups; ++g)
      for (int64_t r = kOffsets[g]; r < kOffsets[g + 1]; ++r)
        for (int64_t j = 0; j < kN; ++j)
          for (int64_t l = 0; l < kK; ++l)
            expected[(g * kN + j) * kK + l] += to_double(dy[r * kN + j]) * to_double(x[r * kK + l]);
    expect_close(weight_gradient<TypeParam>(accumulate), expected, 2e-6);
  }
}

TYPED_TEST(GroupedMatmulTest, SameBitsForEveryNumberOfThreads) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto y = forward<TypeParam>(true);
  const auto dw = weight_gradient<TypeParam>(false);
  omp_set_num_threads(2);
  EXPECT_TRUE(same_bits(forward<TypeParam>(true), y));
  EXPECT_TRUE(same_bits(weight_gradient<TypeParam>(false), dw));
  omp_set_num_threads(threads);
}

// dW [groups, n, k] of rows without poison, and the squares that came with it.
template <class T>
struct WithSquares {
  static constexpr int64_t kGroups = 3, kN = 300, kK = 70;  // several blocks a group, ragged tiles
  std::vector<int64_t> offsets{0, 40, 40, 75};
  std::vector<Acc<T>> dw = std::vector<Acc<T>>(kGroups * kN * kK, Acc<T>(0.25));
  std::vector<double> squares = std::vector<double>(kGroups, -1);

  void multiply(bool accumulate, float scale = 1) {
    std::vector<T> x = random_values<T>(offsets.back() * kK, 1),
                   dy = random_values<T>(offsets.back() * kN, 2);
    for (T& v : dy) v = static_cast<T>(static_cast<float>(v) * scale);
    run(Cpu{}, GroupedMatmulWeight<T>{.dw = dw.data(),
                                      .dy = dy.data(),
                                      .x = x.data(),
                                      .offsets = offsets.data(),
                                      .groups = kGroups,
                                      .rows = offsets.back(),
                                      .n = kN,
                                      .k = kK,
                                      .accumulate = accumulate,
                                      .squares = squares.data()});
  }
  double expected(int64_t group) const {
    double sum = 0;
    for (int64_t i = group * kN * kK; i < (group + 1) * kN * kK; ++i)
      sum += static_cast<double>(dw[i]) * dw[i];
    return sum;
  }
};

TYPED_TEST(GroupedMatmulTest, SquaresOfAWeightGradient) {
  if (!sums_squares<TypeParam>(Cpu{})) GTEST_SKIP() << "this product sums no squares up";
  WithSquares<TypeParam> w;
  // Of sums that float32 cannot hold the square of, too.
  for (const float scale : {1.0f, 1e22f, 1e-22f}) {
    w.multiply(false, scale);
    EXPECT_EQ(w.squares[1], 0);
    for (const int64_t g : {0, 2}) {
      EXPECT_GT(w.squares[g], 0);
      EXPECT_NEAR(w.squares[g] / w.expected(g), 1, 1e-6);
    }
  }
  w.multiply(false);
  w.squares[1] = 7;  // nothing is added to this one, so it stays
  w.multiply(true);
  EXPECT_EQ(w.squares[1], 7);
  for (const int64_t g : {0, 2}) EXPECT_NEAR(w.squares[g] / w.expected(g), 1, 1e-6);
}

TYPED_TEST(GroupedMatmulTest, SquaresHaveTheSameBitsForEveryNumberOfThreads) {
  if (!sums_squares<TypeParam>(Cpu{})) GTEST_SKIP() << "this product sums no squares up";
  const int threads = omp_get_max_threads();
  WithSquares<TypeParam> w;
  omp_set_num_threads(1);
  w.multiply(false);
  const std::vector<double> alone = w.squares;
  for (const int several : {2, 5}) {
    omp_set_num_threads(several);
    w.multiply(false);
    EXPECT_EQ(w.squares, alone);
  }
  omp_set_num_threads(threads);
}

TYPED_TEST(GroupedMatmulTest, NoRowsAtAll) {
  const std::vector<int64_t> offsets = {0, 0, 0};
  const std::vector<TypeParam> w(2 * 3 * 4);
  std::vector<Acc<TypeParam>> dw(2 * 3 * 4, 1);
  run(Cpu{}, GroupedMatmul<TypeParam>{.y = nullptr,
                                      .x = nullptr,
                                      .w = w.data(),
                                      .offsets = offsets.data(),
                                      .groups = 2,
                                      .rows = 0,
                                      .n = 3,
                                      .k = 4});
  run(Cpu{}, GroupedMatmulWeight<TypeParam>{.dw = dw.data(),
                                            .dy = nullptr,
                                            .x = nullptr,
                                            .offsets = offsets.data(),
                                            .groups = 2,
                                            .rows = 0,
                                            .n = 3,
                                            .k = 4});
  EXPECT_EQ(dw, std::vector<Acc<TypeParam>>(dw.size(), 0));
}

}  // namespace
}  // namespace switchyard::kernels
