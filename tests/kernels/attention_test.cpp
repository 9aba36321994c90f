#include "kernels/attention.h"

#include <omp.h>

#include "kernels/cpu/attention_by.h"
#include "tests/kernels/values.h"

namespace switchyard::kernels {
namespace {

AttentionShape shape_of(int64_t batch, int64_t seq, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {batch, seq, heads, kv_heads, head_dim, 1 / std::sqrt(static_cast<float>(head_dim))};
}

template <class T>
struct Result {
  std::vector<T> o, dqkv;
  std::vector<Acc<T>> lse;
};

// Who computes: what this processor has for T, or the products of matrices with the plain twin of their
// registers.
template <class T>
struct Best {
  using Type = T;
  static void compute(const auto& args) { run(Cpu{}, args); }
};
struct PlainMatrices {
  using Type = BF16;
  static void compute(const auto& args) { attention_by<attention::MatrixProducts<PlainRegisters>>(args); }
};

template <class T>
struct Inputs {
  AttentionShape shape;
  std::vector<T> qkv, d_o;
  std::vector<int32_t> document;  // empty: none

  explicit Inputs(const AttentionShape& s)
      : shape(s),
        qkv(random_values<T>(s.batch * s.seq * s.row(), 1)),
        d_o(random_values<T>(s.batch * s.seq * s.heads * s.head_dim, 2)) {
    for (T& x : qkv) x = static_cast<T>(static_cast<Acc<T>>(x) * 2);  // far from uniform probabilities
  }
};

template <class By, class T = typename By::Type>
Result<T> computed(const Inputs<T>& in) {
  const AttentionShape& s = in.shape;
  const int32_t* document = in.document.empty() ? nullptr : in.document.data();
  const auto poison = std::nanf("");
  Result<T> out{std::vector<T>(in.d_o.size(), T(poison)), std::vector<T>(in.qkv.size(), T(poison)),
                std::vector<Acc<T>>(static_cast<size_t>(s.batch * s.heads * s.seq), poison)};
  const int64_t bytes = attention_workspace_bytes<T>(Cpu{}, s);
  std::vector<double> workspace(static_cast<size_t>(bytes / 8 + 16), std::nan(""));
  void* aligned = workspace.data();
  size_t space = workspace.size() * sizeof(double);
  std::align(64, static_cast<size_t>(bytes), aligned, space);
  By::compute(AttentionForward<T>{out.o.data(), out.lse.data(), in.qkv.data(), document, s});
  By::compute(AttentionBackward<T>{out.dqkv.data(), in.d_o.data(), out.o.data(), in.qkv.data(),
                                   out.lse.data(), document, aligned, s});
  return out;
}

// The formulas of kernels/attention.h, and their derivative, one query at a time.
template <class T>
Result<double> brute_force(const Inputs<T>& in) {
  const AttentionShape& s = in.shape;
  Result<double> out{std::vector<double>(in.d_o.size()), std::vector<double>(in.qkv.size()), {}};
  const int64_t d = s.head_dim;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.seq; ++i) {
        const int64_t kv = s.heads + h / (s.heads / s.kv_heads);
        const auto at = [&](int64_t t, int64_t slot) { return ((b * s.seq + t) * s.row()) + slot * d; };
        const auto seen = [&](int64_t j) {
          return in.document.empty() || in.document[b * s.seq + i] == in.document[b * s.seq + j];
        };
        const int64_t q = at(i, h), o = ((b * s.seq + i) * s.heads + h) * d;
        std::vector<double> p(i + 1), dp(i + 1);
        double highest = -HUGE_VAL, sum = 0, mean = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t c = 0; c < d; ++c)
            score += to_double(in.qkv[q + c]) * to_double(in.qkv[at(j, kv) + c]);
          p[j] = seen(j) ? s.scale * score : -HUGE_VAL;
          highest = std::max(highest, p[j]);
        }
        for (double& x : p) sum += x = std::exp(x - highest);
        out.lse.push_back(highest + std::log(sum));
        for (int64_t j = 0; j <= i; ++j) {
          p[j] /= sum;
          const int64_t v = at(j, kv + s.kv_heads);
          for (int64_t c = 0; c < d; ++c) {
            out.o[o + c] += p[j] * to_double(in.qkv[v + c]);
            out.dqkv[v + c] += p[j] * to_double(in.d_o[o + c]);
            dp[j] += to_double(in.d_o[o + c]) * to_double(in.qkv[v + c]);
          }
          mean += p[j] * dp[j];
        }
        for (int64_t j = 0; j <= i; ++j)
          for (int64_t c = 0; c < d; ++c) {
            const double slope = s.scale * p[j] * (dp[j] - mean);
            out.dqkv[q + c] += slope * to_double(in.qkv[at(j, kv) + c]);
            out.dqkv[at(j, kv) + c] += slope * to_double(in.qkv[q + c]);
          }
      }
  return out;
}

template <class By, class T = typename By::Type>
void expect_right(const Inputs<T>& in) {
  const Result<T> actual = computed<By>(in);
  const Result<double> expected = brute_force(in);
  expect_close(actual.o, expected.o);
  expect_close(actual.lse, expected.lse);
  // In bf16 D = rowsum(dO * O) is made from the rounded output.
  expect_close(actual.dqkv, expected.dqkv, std::is_same_v<T, BF16> ? 1.0 / 64 : kTolerance<T>);
}

template <class T>
class AttentionTest : public ::testing::Test {};
using Ways = ::testing::Types<Best<float>, Best<BF16>, Best<double>, PlainMatrices>;
TYPED_TEST_SUITE(AttentionTest, Ways);

TYPED_TEST(AttentionTest, EveryHeadDimension) {
  for (int64_t head_dim : {8, 24, 40, 64, 72, 96, 128})
    expect_right<TypeParam>(Inputs<typename TypeParam::Type>(shape_of(1, 21, 2, 1, head_dim)));
}

TYPED_TEST(AttentionTest, QueryHeadsShareKeyValueHeads) {
  for (int64_t kv_heads : {1, 2, 3, 6})
    expect_right<TypeParam>(Inputs<typename TypeParam::Type>(shape_of(2, 19, 6, kv_heads, 16)));
}

TYPED_TEST(AttentionTest, SequencesAcrossTileEdges) {
  for (int64_t seq : {1, 63, 64, 65, 257})
    expect_right<TypeParam>(Inputs<typename TypeParam::Type>(shape_of(1, seq, 2, 1, 8)));
}

TYPED_TEST(AttentionTest, SequenceOfSeveralTasks) {
  expect_right<TypeParam>(Inputs<typename TypeParam::Type>(shape_of(1, 700, 1, 1, 8)));
}

TYPED_TEST(AttentionTest, TokensSeeOnlyTheirOwnDocument) {
  Inputs<typename TypeParam::Type> in(shape_of(2, 300, 2, 1, 8));
  for (int64_t t = 0; t < 600; ++t)
    in.document.push_back(t < 5 ? 0 : t < 290 ? 3 : 3 + static_cast<int32_t>(t) / 100);
  expect_right<TypeParam>(in);
}

TYPED_TEST(AttentionTest, DocumentsMayBeInterleaved) {
  Inputs<typename TypeParam::Type> in(shape_of(1, 270, 2, 1, 8));
  for (int32_t t = 0; t < 270; ++t) in.document.push_back(t % 3);
  expect_right<TypeParam>(in);
}

TYPED_TEST(AttentionTest, NothingForNoSequences) {
  EXPECT_TRUE(computed<TypeParam>(Inputs<typename TypeParam::Type>(shape_of(0, 16, 2, 1, 8))).o.empty());
}

TYPED_TEST(AttentionTest, SameBitsForARepeatAndForEveryNumberOfThreads) {
  const Inputs<typename TypeParam::Type> in(shape_of(2, 130, 4, 2, 16));
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Result<typename TypeParam::Type> one = computed<TypeParam>(in);
  for (int n : {1, 2}) {
    omp_set_num_threads(n);
    const Result<typename TypeParam::Type> again = computed<TypeParam>(in);
    EXPECT_TRUE(same_bits(one.o, again.o));
    EXPECT_TRUE(same_bits(one.lse, again.lse));
    EXPECT_TRUE(same_bits(one.dqkv, again.dqkv));
  }
  omp_set_num_threads(threads);
}

TEST(AttentionForward, LargeScoresDoNotOverflow) {
  Inputs<float> in(shape_of(1, 40, 1, 1, 8));
  for (float& x : in.qkv) x *= 30;
  expect_close(computed<Best<float>>(in).o, brute_force(in).o, 1e-3);
}

TEST(AttentionForward, NotANumberIsNotHidden) {
  Inputs<float> in(shape_of(1, 4, 1, 1, 8));
  in.qkv[0] = std::nanf("");
  EXPECT_TRUE(std::isnan(computed<Best<float>>(in).o[0]));
}

}  // namespace
}  // namespace switchyard::kernels
