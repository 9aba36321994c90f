#include "kernels/norm_rope.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int64_t tokens, seq, heads, kv_heads, head_dim, rotary_dim;
  int64_t row() const { return (heads + 2 * kv_heads) * head_dim; }
};

template <class T>
struct Rope {
  using A = Acc<T>;
  Shape s;
  bool norm = true;
  std::vector<T> x = random_values<T>(s.tokens * s.row(), 1), y = std::vector<T>(x.size()), dx = y;
  std::vector<T> qw = random_values<T>(s.head_dim, 2), kw = random_values<T>(s.head_dim, 3);
  std::vector<A> rstd = std::vector<A>(s.tokens * (s.heads + s.kv_heads));
  std::vector<A> dqw = std::vector<A>(s.head_dim), dkw = dqw, cos = {}, sin = {};
  std::vector<A> workspace = std::vector<A>(NormRopeBackward<T>::kBlocks * 2 * s.head_dim);

  void tables() {
    for (int64_t p = 0; p < s.seq; ++p) {
      for (int64_t j = 0; j < s.rotary_dim / 2; ++j) {
        const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * j / s.rotary_dim);
        cos.push_back(static_cast<A>(std::cos(angle)));
        sin.push_back(static_cast<A>(std::sin(angle)));
      }
    }
  }
  void forward() {
    if (cos.empty()) tables();
    run(Cpu{},
        NormRopeForward<T>{y.data(), norm ? rstd.data() : nullptr, x.data(), norm ? qw.data() : nullptr,
                           norm ? kw.data() : nullptr, cos.data(), sin.data(), s.tokens, s.seq, s.heads,
                           s.kv_heads, s.head_dim, s.rotary_dim, A(1e-6)});
  }
  void backward(const std::vector<T>& dy) {
    run(Cpu{}, NormRopeBackward<T>{dx.data(), norm ? dqw.data() : nullptr, norm ? dkw.data() : nullptr,
                                   dy.data(), x.data(), norm ? qw.data() : nullptr,
                                   norm ? kw.data() : nullptr, norm ? rstd.data() : nullptr, cos.data(),
                                   sin.data(), norm ? workspace.data() : nullptr, s.tokens, s.seq, s.heads,
                                   s.kv_heads, s.head_dim, s.rotary_dim});
  }

  std::vector<double> expected() const {
    std::vector<double> out = doubles(x);
    const int64_t half = s.rotary_dim / 2;
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t h = 0; h < s.heads + s.kv_heads; ++h) {
        double* n = out.data() + t * s.row() + h * s.head_dim;
        double mean = 0;
        for (int64_t i = 0; i < s.head_dim; ++i) mean += n[i] * n[i] / static_cast<double>(s.head_dim);
        for (int64_t i = 0; norm && i < s.head_dim; ++i)
          n[i] *= to_double(h < s.heads ? qw[i] : kw[i]) / std::sqrt(mean + 1e-6);
        for (int64_t j = 0; j < half; ++j) {
          const double c = cos[t % s.seq * half + j], d = sin[t % s.seq * half + j], a = n[j],
                       b = n[j + half];
          n[j] = a * c - b * d;
          n[j + half] = b * c + a * d;
        }
      }
    }
    return out;
  }
};

template <class T>
class NormRope : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(NormRope, Types);

TYPED_TEST(NormRope, ForwardIsTheFormula) {
  for (const bool norm : {true, false}) {
    for (const Shape& s : {Shape{10, 5, 4, 2, 24, 24}, {6, 6, 1, 1, 10, 4}, {0, 4, 2, 2, 8, 8}}) {
      Rope<TypeParam> r{s, norm};
      r.forward();
      expect_close(r.y, r.expected());
    }
  }
}

TYPED_TEST(NormRope, SameBitsForEveryNumberOfThreads) {
  const Shape s{202, 101, 3, 1, 38, 20};
  const auto dy = random_values<TypeParam>(s.tokens * s.row(), 5);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      Rope<TypeParam> r{s};
      r.forward();
      r.backward(dy);
      return r;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(one.y, three.y) && same_bits(one.dx, three.dx));
  EXPECT_TRUE(same_bits(one.dqw, three.dqw) && same_bits(one.dkw, three.dkw));
}

TEST(NormRopeGradient, MatchesFiniteDifferences) {
  for (const bool norm : {true, false}) {
    Rope<double> r{{4, 2, 2, 1, 10, 6}, norm};
    const auto dy = random_values<double>(4 * r.s.row(), 5);
    const auto loss = [&] {
      r.forward();
      return dot_of(r.y, dy);
    };
    r.forward();
    r.backward(dy);
    expect_close(r.dx, numeric_gradient(r.x, loss), kNumericTolerance);
    if (!norm) continue;
    expect_close(r.dqw, numeric_gradient(r.qw, loss), kNumericTolerance);
    expect_close(r.dkw, numeric_gradient(r.kw, loss), kNumericTolerance);
  }
}

TEST(NormRopeGradient, Bf16IsCloseToDouble) {
  const Shape s{70, 35, 4, 2, 64, 64};
  Rope<BF16> r{s};
  Rope<double> d{s};
  d.x = doubles(r.x), d.qw = doubles(r.qw), d.kw = doubles(r.kw);
  const auto dy = random_values<BF16>(s.tokens * s.row(), 5);
  r.forward(), r.backward(dy);
  d.forward(), d.backward(doubles(dy));
  expect_close(r.dx, d.dx);
  expect_close(r.dqw, d.dqw, 1e-5);
}

}  // namespace
}  // namespace switchyard::kernels
