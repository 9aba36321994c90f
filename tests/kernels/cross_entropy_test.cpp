#include "kernels/cross_entropy.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

template <class T>
struct Loss {
  using A = Acc<T>;
  int64_t rows, vocab;
  A scale = 0.25;
  std::vector<A> z = random_values<A>(rows * vocab, 1), loss = std::vector<A>(rows);
  std::vector<T> dz = std::vector<T>(z.size());
  std::vector<int32_t> target = std::vector<int32_t>(rows);

  Loss(int64_t r, int64_t v) : rows(r), vocab(v) {
    for (A& x : z) x *= 20;
    for (int64_t i = 0; i < r; ++i) target[i] = static_cast<int32_t>(i % 4 == 3 ? -1 : (i * 7919) % v);
  }
  void compute(bool gradient = true) {
    run(Cpu{}, CrossEntropy<T>{loss.data(), gradient ? dz.data() : nullptr, z.data(), target.data(), rows,
                               vocab, scale});
  }
};

template <class T>
class CrossEntropyTest : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(CrossEntropyTest, Types);

TYPED_TEST(CrossEntropyTest, LossAndGradientAreTheFormula) {
  for (const auto& [rows, vocab] : {std::pair{9, 131}, {5, 3000}, {1, 1}, {0, 7}}) {
    Loss<TypeParam> l(rows, vocab);
    l.compute();
    std::vector<double> loss, dz;
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < vocab; ++c) sum += std::exp(to_double(l.z[r * vocab + c]));
      const bool counts = l.target[r] >= 0;
      loss.push_back(counts ? std::log(sum) - to_double(l.z[r * vocab + l.target[r]]) : 0);
      for (int c = 0; c < vocab; ++c)
        dz.push_back(counts ? 0.25 * (std::exp(to_double(l.z[r * vocab + c])) / sum - (c == l.target[r]))
                            : 0);
    }
    expect_close(l.loss, loss, 1e-6);
    expect_close(l.dz, dz);
  }
}

TYPED_TEST(CrossEntropyTest, LossAloneIsTheSame) {
  Loss<TypeParam> with(9, 131), without(9, 131);
  with.compute();
  without.compute(false);
  EXPECT_TRUE(same_bits(with.loss, without.loss));
}

TYPED_TEST(CrossEntropyTest, SameBitsForEveryNumberOfThreads) {
  const auto result = [](int threads) {
    return with_threads(threads, [] {
      Loss<TypeParam> l(50, 1031);
      l.compute();
      return l;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(one.dz, three.dz) && same_bits(one.loss, three.loss));
}

TEST(CrossEntropyValues, GradientInPlace) {
  Loss<float> apart(5, 2000), in_place(5, 2000);
  apart.compute();
  run(Cpu{}, CrossEntropy<float>{in_place.loss.data(), in_place.z.data(), in_place.z.data(),
                                 in_place.target.data(), 5, 2000, 0.25f});
  EXPECT_TRUE(same_bits(apart.dz, in_place.z));
}

TEST(CrossEntropyValues, LargeLogitsAndMaskedOnes) {
  Loss<float> l(1, 3);
  l.z = {-INFINITY, 1e4f, -1e4f};
  l.target = {1};
  l.compute();
  EXPECT_EQ(l.loss[0], 0);
  EXPECT_EQ(l.dz, (std::vector<float>{0, 0, 0}));
}

TEST(CrossEntropyValues, ANaNIsNotLost) {
  Loss<float> l(1, 2000);
  l.z[1500] = NAN;
  l.compute();
  EXPECT_TRUE(std::isnan(l.loss[0]));
}

}  // namespace
}  // namespace switchyard::kernels
