#include "kernels/gradient_factors.h"

#include <numeric>

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

// Groups without rows, of one, of few and of many; n and k are no multiples of a tile.
template <class Types>
struct Experts {
  using T = typename Types::first_type;
  using M = typename Types::second_type;
  using A = Acc<T>;
  static constexpr bool kHasMaster = !std::is_same_v<T, A>;
  static constexpr int64_t kN = 45, kK = 70, kSize = kN * kK;
  const std::vector<int64_t> rows = {0, 1, 7, 33, kFewRows, kFewRows + 1, 2};
  const int64_t groups = std::ssize(rows);
  std::vector<int64_t> offsets = {3};  // rows before and after belong to none
  std::vector<T> dy, x;

  explicit Experts(float scale = 1) {
    for (const int64_t count : rows) offsets.push_back(offsets.back() + count);
    dy = random_values<T>((offsets.back() + 2) * kN, 1);
    x = random_values<T>((offsets.back() + 2) * kK, 2);
    for (T& v : dy) v = static_cast<T>(static_cast<float>(v) * scale);
  }

  GradientFactors<T> factors() const { return {dy.data(), x.data(), offsets.data(), groups, kN, kK}; }

  void multiply(std::vector<A>& dw, std::vector<double>& squares, GroupsOf which) const {
    run(Cpu{}, GroupedMatmulWeight<T>{.dw = dw.data(),
                                      .dy = dy.data(),
                                      .x = x.data(),
                                      .offsets = offsets.data(),
                                      .groups = groups,
                                      .rows = offsets.back() + 2,
                                      .n = kN,
                                      .k = kK,
                                      .squares = squares.data(),
                                      .which = which});
  }

  struct State {
    std::vector<T> p;
    std::vector<A> master;
    std::vector<M> m, v;
    bool operator==(const State& o) const {
      return same_bits(p, o.p) && same_bits(master, o.master) && same_bits(m, o.m) && same_bits(v, o.v);
    }
  };
  State start() const {
    const int64_t n = groups * kSize;
    State s{random_values<T>(n, 3), random_values<A>(n, 4), random_values<M>(n, 5), random_values<M>(n, 6)};
    for (M& v : s.v) v = static_cast<M>(std::abs(static_cast<float>(v)));
    return s;
  }
  AdamW<T, M> update(State& s, const std::vector<A>& grad, const A& clip) const {
    A* const master = kHasMaster ? s.master.data() : nullptr;
    return {s.p.data(), master, s.m.data(), s.v.data(), grad.data(), &clip, std::ssize(s.p),
            3,          1e-2,   0.9,        0.95,       1e-8,        0.1};
  }
};

template <class Types>
class GradientFactorsTest : public ::testing::Test {
  void SetUp() override {
    if (!sums_squares<typename Types::first_type>(Cpu{})) GTEST_SKIP() << "the product sums no squares up";
  }
};
using Kinds = ::testing::Types<std::pair<float, float>, std::pair<float, BF16>, std::pair<BF16, float>,
                               std::pair<BF16, BF16>>;
TYPED_TEST_SUITE(GradientFactorsTest, Kinds);

TYPED_TEST(GradientFactorsTest, AdamWHasTheBitsOfThatWithTheProduct) {
  const Experts<TypeParam> e;
  const auto clip = static_cast<typename Experts<TypeParam>::A>(0.7);
  std::vector<typename Experts<TypeParam>::A> dw(e.groups * e.kSize, 9);
  std::vector<double> squares(e.groups);
  e.multiply(dw, squares, GroupsOf::kAnyRows);
  auto expected = e.start();
  run(Cpu{}, e.update(expected, dw, clip));

  std::fill(dw.begin(), dw.end(), std::nanf(""));
  e.multiply(dw, squares, GroupsOf::kManyRows);
  for (const int threads : {1, 2, 5}) {
    auto s = e.start();
    with_threads(threads, [&] {
      run(Cpu{}, FactoredAdamW<typename TypeParam::first_type, typename TypeParam::second_type>{
                     e.update(s, dw, clip), e.factors()});
      return 0;
    });
    EXPECT_TRUE(s == expected) << threads << " threads";
  }
}

TYPED_TEST(GradientFactorsTest, FewAndManyRowsAreAllGroups) {
  const Experts<TypeParam> e;
  using A = typename Experts<TypeParam>::A;
  std::vector<A> all(e.groups * e.kSize), parts = all;
  std::vector<double> squares(e.groups), in_parts(e.groups, -1);
  e.multiply(all, squares, GroupsOf::kAnyRows);
  e.multiply(parts, in_parts, GroupsOf::kManyRows);
  EXPECT_EQ(std::count(in_parts.begin(), in_parts.end(), -1), e.groups - 1);
  e.multiply(parts, in_parts, GroupsOf::kFewRows);
  EXPECT_TRUE(same_bits(parts, all));
  EXPECT_EQ(in_parts, squares);
}

// |dW[g]|^2 of groups of few rows, beside those of the products; -1 of others.
template <class Types>
void expect_squares(const Experts<Types>& e) {
  std::vector<typename Experts<Types>::A> dw(e.groups * e.kSize);
  std::vector<double> unused(e.groups), squares(e.groups, -1);
  e.multiply(dw, unused, GroupsOf::kAnyRows);
  run(Cpu{}, FactorSquares<typename Types::first_type>{squares.data(), e.factors()});
  for (int64_t g = 0; g < e.groups; ++g) {
    const auto begin = dw.begin() + g * e.kSize;
    const double expected =
        std::accumulate(begin, begin + e.kSize, 0.0, [](double sum, double x) { return sum + x * x; });
    if (e.rows[g] > kFewRows)
      EXPECT_EQ(squares[g], -1);
    else
      EXPECT_NEAR(squares[g], expected, 2e-6 * expected) << e.rows[g] << " rows";
  }
}

TYPED_TEST(GradientFactorsTest, SquaresAreThoseOfTheProduct) {
  for (const float scale : {1.0f, 1e18f, 1e-20f})
    expect_squares(Experts<TypeParam>(scale));  // also beyond float32
}

TYPED_TEST(GradientFactorsTest, SquaresOfRowsThatCancelEachOtherOut) {
  using T = typename TypeParam::first_type;
  Experts<TypeParam> e;
  // Pairs of rows whose products differ by a thousandth.
  for (int64_t r = e.offsets[4]; r < e.offsets[5]; r += 2) {
    std::copy_n(e.x.begin() + r * e.kK, e.kK, e.x.begin() + (r + 1) * e.kK);
    for (int64_t i = 0; i < e.kN; ++i)
      e.dy[(r + 1) * e.kN + i] = static_cast<T>(-static_cast<float>(e.dy[r * e.kN + i]) * 1.001f);
  }
  expect_squares(e);
}

TYPED_TEST(GradientFactorsTest, SquaresHaveTheSameBitsForEveryNumberOfThreads) {
  const Experts<TypeParam> e;
  const auto squares = [&] {
    std::vector<double> sums(e.groups);
    run(Cpu{}, FactorSquares<typename TypeParam::first_type>{sums.data(), e.factors()});
    return sums;
  };
  EXPECT_EQ(with_threads(1, squares), with_threads(3, squares));
}

}  // namespace
}  // namespace switchyard::kernels
