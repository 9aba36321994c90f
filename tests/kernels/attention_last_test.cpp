#include "kernels/attention_last.h"

#include "tests/kernels/values.h"

namespace switchyard::kernels {
namespace {

template <class T>
class AttentionLastTest : public ::testing::Test {};
using Types = ::testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(AttentionLastTest, Types);

// As the last row of the attention of all tokens.
TYPED_TEST(AttentionLastTest, IsTheLastRowOfAll) {
  using T = TypeParam;
  for (const AttentionShape& s : {AttentionShape{1, 1, 2, 1, 8, 0.4f}, AttentionShape{1, 7, 3, 3, 10, 0.3f},
                                  AttentionShape{1, 300, 4, 2, 64, 0.125f}}) {
    const auto qkv = random_values<T>(s.seq * s.row(), 1);
    std::vector<T> all(static_cast<size_t>(s.seq * s.heads * s.head_dim)),
        last(static_cast<size_t>(s.heads * s.head_dim));
    std::vector<Acc<T>> lse(static_cast<size_t>(s.heads * s.seq));
    run(Cpu{}, AttentionForward<T>{all.data(), lse.data(), qkv.data(), nullptr, s});
    run(Cpu{}, AttentionLast<T>{last.data(), qkv.data(), s});
    std::vector<double> expected;
    for (size_t i = all.size() - last.size(); i < all.size(); ++i) expected.push_back(to_double(all[i]));
    expect_close(last, expected, 2 * kTolerance<T>);
  }
}

TYPED_TEST(AttentionLastTest, FarScoresDoNotOverflow) {
  using T = TypeParam;
  const AttentionShape s{1, 5, 1, 1, 4, 50.0f};
  const auto qkv = random_values<T>(s.seq * s.row(), 2);
  std::vector<T> last(4);
  run(Cpu{}, AttentionLast<T>{last.data(), qkv.data(), s});
  for (const T x : last) EXPECT_TRUE(std::isfinite(to_double(x)));
}

}  // namespace
}  // namespace switchyard::kernels
