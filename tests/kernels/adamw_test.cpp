// The expected values are PyTorch 2.15's (CPU, one thread), printed with 17 digits by:
//   p = torch.nn.Parameter(torch.tensor([0.5, -1.25, 2.0, -0.03125, 1e-3, 0.75], dtype=dtype))
//   o = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
//   for s in range(5):
//       p.grad = torch.tensor([((7 * s + 3 * i) % 11 - 5) / 8 for i in range(6)], dtype=dtype); o.step()
//   p, o.state[p]["exp_avg"], o.state[p]["exp_avg_sq"]
#include "kernels/adamw.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

using Values = std::vector<double>;
const Values kStart = {0.5, -1.25, 2.0, -0.03125, 1e-3, 0.75};

template <class T, class M = Acc<T>>
struct Optimizer {
  using A = Acc<T>;
  static constexpr bool kHasMaster = !std::is_same_v<T, A>;
  std::vector<A> master = std::vector<A>(kStart.begin(), kStart.end());
  std::vector<T> p = std::vector<T>(6);
  std::vector<M> m = std::vector<M>(6), v = m;
  A clip = 1;

  Optimizer() {
    for (size_t i = 0; i < 6; ++i) p[i] = static_cast<T>(master[i]);
  }
  void step(int64_t s, A gradient_scale = 1) {
    std::vector<A> grad;
    for (int64_t i = 0; i < 6; ++i)
      grad.push_back(gradient_scale * static_cast<A>((7 * (s - 1) + 3 * i) % 11 - 5) / 8);
    run(Cpu{}, AdamW<T, M>{p.data(), kHasMaster ? master.data() : nullptr, m.data(), v.data(), grad.data(),
                           &clip, 6, s, 1e-2, 0.9, 0.95, 1e-8, 0.1});
  }
  void five_steps() {
    for (int64_t s = 1; s <= 5; ++s) step(s);
  }
};

TEST(AdamWTest, FiveStepsInDoubleAreTorchs) {
  Optimizer<double> o;
  o.five_steps();
  expect_close(o.p,
               {0.51336404545225034, -1.2464213437018661, 1.9820822485466798, -0.049993597611584034,
                0.021742319553603652, 0.77317174191867788},
               1e-15);
  expect_close(o.m,
               {0.025718749999999988, 0.055534999999999994, -0.028636249999999992, 0.013554999999999996,
                -0.046842499999999988, 0.006486249999999992},
               1e-15);
  expect_close(o.v,
               {0.040743872070312534, 0.03917570312500003, 0.030446000976562526, 0.028923515625000024,
                0.03859451171875003, 0.042702250976562536},
               1e-15);
}

TEST(AdamWTest, FiveStepsInFloatAreTorchs) {
  Optimizer<float> o;
  o.five_steps();
  const std::vector<float> p = {0.51336407661437988f,   -1.2464214563369751f, 1.9820824861526489f,
                                -0.049993600696325302f, 0.0217423215508461f,  0.77317172288894653f};
  // PyTorch's vector sqrt is not always the nearest float, so p may differ in its last bits.
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(o.p[i], p[i], 2.5e-7 * std::max(std::abs(kStart[i]), 0.05)) << i;
}

TEST(AdamWTest, MomentsInFloatAreTorchsBits) {
  Optimizer<float> o;
  o.five_steps();
  EXPECT_EQ(o.m, (std::vector<float>{0.025718752294778824f, 0.055534996092319489f, -0.028636248782277107f,
                                     0.013554999604821205f, -0.046842504292726517f, 0.0064862500876188278f}));
  EXPECT_EQ(o.v, (std::vector<float>{0.0407438725233078f, 0.039175704121589661f, 0.030446000397205353f,
                                     0.028923517093062401f, 0.038594510406255722f, 0.042702250182628632f}));
}

TEST(AdamWTest, Bf16MovesItsMasterAndRoundsIt) {
  Optimizer<float> f;
  Optimizer<BF16> b;
  f.five_steps();
  b.five_steps();
  EXPECT_TRUE(same_bits(b.master, f.p));
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(b.p[i].bits, BF16(f.p[i]).bits);
}

// Five steps in double, of which the next finds the moments rounded.
struct RoundedReference {
  Values p = kStart, m = Values(6), v = m;

  void step(int64_t s) {
    const double correction1 = 1 - std::pow(0.9, s), correction2 = 1 - std::pow(0.95, s);
    for (int64_t i = 0; i < 6; ++i) {
      const double g = static_cast<double>((7 * (s - 1) + 3 * i) % 11 - 5) / 8;
      const double first = 0.9 * m[i] + 0.1 * g, second = 0.95 * v[i] + 0.05 * g * g;
      p[i] = p[i] * (1 - 1e-3) - 1e-2 / correction1 * first / (std::sqrt(second / correction2) + 1e-8);
      m[i] = static_cast<float>(BF16(static_cast<float>(first)));
      v[i] = static_cast<float>(BF16(static_cast<float>(second)));
    }
  }
};

template <class T>
void expect_rounded_moments() {
  RoundedReference reference;
  Optimizer<T, BF16> o;
  for (int64_t s = 1; s <= 5; ++s) {
    reference.step(s);
    o.step(s);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(static_cast<float>(o.m[i]), reference.m[i]) << s << " " << i;
      EXPECT_EQ(static_cast<float>(o.v[i]), reference.v[i]) << s << " " << i;
      const double p = o.kHasMaster ? o.master[i] : static_cast<double>(static_cast<float>(o.p[i]));
      EXPECT_NEAR(p, reference.p[i], 2.5e-7 * std::max(std::abs(kStart[i]), 0.05)) << s << " " << i;
    }
  }
}

TEST(AdamWTest, MomentsInBf16AreRoundedAfterTheStepThatUsesThem) {
  expect_rounded_moments<float>();
  expect_rounded_moments<BF16>();
}

// Blocks and what is left over; the bits of a step with float moments, which are rounded afterwards.
TEST(AdamWTest, MomentsInBf16ChangeNothingButTheirOwnBits) {
  constexpr int64_t kN = 9013;
  const float clip = 0.7f;
  auto p = random_values<float>(kN, 1), expected = p;
  std::vector<BF16> m(kN), v(kN);
  std::vector<float> wide_m(kN), wide_v(kN);
  for (int64_t s = 1; s <= 4; ++s) {
    const auto grad = random_values<float>(kN, static_cast<uint32_t>(10 + s));
    run(Cpu{}, AdamW<float, BF16>{p.data(), nullptr, m.data(), v.data(), grad.data(), &clip, kN, s, 1e-3, 0.9,
                                  0.95, 1e-8, 0.1});
    run(Cpu{}, AdamW<float>{expected.data(), nullptr, wide_m.data(), wide_v.data(), grad.data(), &clip, kN, s,
                            1e-3, 0.9, 0.95, 1e-8, 0.1});
    const auto round = [](float x) { return static_cast<float>(BF16(x)); };
    std::transform(wide_m.begin(), wide_m.end(), wide_m.begin(), round);
    std::transform(wide_v.begin(), wide_v.end(), wide_v.begin(), round);
    ASSERT_TRUE(same_bits(p, expected)) << s;
    for (int64_t i = 0; i < kN; ++i) {
      ASSERT_EQ(static_cast<float>(m[i]), wide_m[i]) << s << " " << i;
      ASSERT_EQ(static_cast<float>(v[i]), wide_v[i]) << s << " " << i;
    }
  }
}

// What the bound on the betas is for (trainer/config/conflicts.cpp): without gradients moments fall to 1e-5
// in about as many steps as unrounded ones. With 0.999 they would stay.
TEST(AdamWTest, MomentsInBf16Decay) {
  const auto after = [](double beta, int64_t steps) {
    BF16 m(1.0f), v(1.0f);
    float p = 0;
    const float grad = 0, clip = 1;
    for (int64_t s = 1; s <= steps; ++s)
      run(Cpu{}, AdamW<float, BF16>{&p, nullptr, &m, &v, &grad, &clip, 1, s, 0, beta, beta, 1e-8, 0});
    EXPECT_EQ(m.bits, v.bits) << beta;
    return static_cast<double>(static_cast<float>(v));
  };
  for (const double beta : {0.5, 0.9, 0.95, 0.99, 1 - 0x1p-7}) {
    const double tenfold = std::log(0.1) / std::log(beta), steps = 5 * tenfold;  // to 1e-5
    EXPECT_LT(after(beta, std::llround(steps * 1.5)), 1e-5) << beta;
    EXPECT_GT(after(beta, std::llround(steps / 1.5)), 1e-5) << beta;
  }
  EXPECT_GT(after(0.999, 20000), 0.4);
}

TEST(AdamWTest, ClipScalesTheGradient) {
  Optimizer<double> clipped, small;
  clipped.clip = 0.25;
  clipped.step(1);
  small.step(1, 0.25);
  EXPECT_TRUE(same_bits(clipped.m, small.m) && same_bits(clipped.p, small.p));
}

TEST(AdamWTest, SameBitsForEveryNumberOfThreads) {
  constexpr int64_t kN = 50021;
  const auto grad = random_values<float>(kN, 1);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      auto p = random_values<float>(kN, 2);
      std::vector<float> m(kN), v(kN);
      const float clip = 0.7f;
      for (int64_t s = 1; s <= 3; ++s)
        run(Cpu{}, AdamW<float>{p.data(), nullptr, m.data(), v.data(), grad.data(), &clip, kN, s, 1e-3, 0.9,
                                0.95, 1e-8, 0.1});
      return p;
    });
  };
  EXPECT_TRUE(same_bits(result(1), result(3)));
}

// Beyond a million parameters bf16 is written past the cache, where whole lines are.
TEST(AdamWTest, PastTheCacheGoTheSameBits) {
  constexpr int64_t kN = (1 << 20) + 4133;
  const auto grad = random_values<float>(kN, 1);
  const float clip = 0.7f;
  for (const int64_t first : {0, 1, 24}) {  // of the parameters: where they begin in a line
    std::vector<BF16> p(first + kN), expected = p;
    std::vector<float> master = random_values<float>(kN, 2), m(kN), v(kN);
    const auto update = [&](std::vector<BF16>& to, int64_t begin, int64_t n) {
      run(Cpu{}, AdamW<BF16>{to.data() + first + begin, master.data() + begin, m.data() + begin,
                             v.data() + begin, grad.data() + begin, &clip, n, 1, 1e-3, 0.9, 0.95, 1e-8, 0.1});
    };
    update(p, 0, kN);
    const std::vector<float> moved = master;
    master = random_values<float>(kN, 2), m.assign(kN, 0), v.assign(kN, 0);
    for (int64_t i = 0; i < kN; i += 100003) update(expected, i, std::min<int64_t>(100003, kN - i));
    EXPECT_TRUE(same_bits(p, expected)) << first;
    EXPECT_TRUE(same_bits(moved, master)) << first;
  }
}

}  // namespace
}  // namespace switchyard::kernels
