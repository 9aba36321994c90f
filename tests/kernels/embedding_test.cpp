#include "kernels/embedding.h"

#include <numeric>

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

struct Tokens {
  std::vector<int32_t> ids, order, sorted;
};

// Half of the tokens have one id, as a space has among bytes.
Tokens tokens_of(int64_t n, int32_t vocab) {
  std::mt19937 engine(4);
  Tokens t;
  for (int64_t i = 0; i < n; ++i)
    t.ids.push_back(i % 2 ? vocab / 2 : static_cast<int32_t>(engine() % static_cast<uint32_t>(vocab)));
  t.order.resize(t.ids.size());
  std::iota(t.order.begin(), t.order.end(), 0);
  std::stable_sort(t.order.begin(), t.order.end(), [&](int32_t a, int32_t b) { return t.ids[a] < t.ids[b]; });
  for (int32_t i : t.order) t.sorted.push_back(t.ids[i]);
  return t;
}

template <class T>
class Embedding : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(Embedding, Types);

TYPED_TEST(Embedding, ForwardCopiesRows) {
  const auto table = random_values<TypeParam>(9 * 5, 1);
  const std::vector<int32_t> ids = {8, 0, 3, 3};
  std::vector<TypeParam> y(4 * 5);
  run(Cpu{}, EmbeddingForward<TypeParam>{y.data(), table.data(), ids.data(), 4, 5});
  std::vector<TypeParam> expected;
  for (int32_t id : ids) expected.insert(expected.end(), &table[id * 5], &table[id * 5] + 5);
  EXPECT_TRUE(same_bits(y, expected));
}

TYPED_TEST(Embedding, BackwardAddsTheRowsOfEveryId) {
  for (const auto& [n, cols] : {std::pair{0, 3}, {1, 1}, {301, 131}}) {
    const Tokens t = tokens_of(n, 17);
    const auto dy = random_values<TypeParam>(n * cols, 2);
    std::vector<Acc<TypeParam>> dtable(17 * cols, 2);
    std::vector<double> expected(dtable.size(), 2);
    for (int i = 0; i < n; ++i)
      for (int c = 0; c < cols; ++c) expected[t.ids[i] * cols + c] += to_double(dy[i * cols + c]);
    run(Cpu{},
        EmbeddingBackward<TypeParam>{dtable.data(), dy.data(), t.sorted.data(), t.order.data(), n, cols});
    expect_close(dtable, expected, 1e-5);
  }
}

TYPED_TEST(Embedding, SameBitsForEveryNumberOfThreads) {
  const Tokens t = tokens_of(400, 30);
  const auto dy = random_values<TypeParam>(400 * 150, 2);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      std::vector<Acc<TypeParam>> d(30 * 150);
      run(Cpu{},
          EmbeddingBackward<TypeParam>{d.data(), dy.data(), t.sorted.data(), t.order.data(), 400, 150});
      return d;
    });
  };
  EXPECT_TRUE(same_bits(result(1), result(3)));
}

}  // namespace
}  // namespace switchyard::kernels
