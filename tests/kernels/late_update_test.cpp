#include "kernels/late_update.h"

#include "kernels/grouped_matmul.h"
#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

// Experts without rows, of few and of many; matrices of whole tiles, and ragged ones.
template <class Types>
struct Experts {
  using T = typename Types::first_type;
  using M = typename Types::second_type;
  using A = Acc<T>;

  int64_t n, k;
  std::vector<int64_t> offsets = {3};  // rows before and after belong to none
  int64_t groups;
  std::vector<T> x, y, p;
  std::vector<A> grad, master;
  std::vector<M> m, v;
  A clip = 0.7F;

  Experts(int64_t rows_of_matrix, int64_t cols_of_matrix) : n(rows_of_matrix), k(cols_of_matrix) {
    for (const int64_t rows : {200, 0, 1, 33, 600, 129, 0}) offsets.push_back(offsets.back() + rows);
    groups = std::ssize(offsets) - 1;
    const int64_t size = groups * n * k;
    x = random_values<T>(rows() * k, 1), p = random_values<T>(size, 2), grad = random_values<A>(size, 3);
    master = random_values<A>(size, 4), m = random_values<M>(size, 5), v = random_values<M>(size, 6);
    for (M& value : v) value = static_cast<M>(std::abs(static_cast<float>(value)));
    y.resize(rows() * n);
  }

  int64_t rows() const { return offsets.back() + 2; }
  AdamW<T, M> update() {
    A* const masters = std::is_same_v<T, A> ? nullptr : master.data();
    return {p.data(), masters, m.data(), v.data(), grad.data(), &clip, std::ssize(p),
            3,        1e-2,    0.9,      0.95,     1e-8,        0.1};
  }
  void multiply(bool transpose_w, const LateUpdate* late = nullptr) {
    run(Cpu{}, GroupedMatmul<T>{.y = y.data(),
                                .x = x.data(),
                                .w = p.data(),
                                .offsets = offsets.data(),
                                .groups = groups,
                                .rows = rows(),
                                .n = n,
                                .k = k,
                                .transpose_w = transpose_w,
                                .update = late});
  }
  bool operator==(const Experts& o) const {
    return same_bits(y, o.y) && same_bits(p, o.p) && same_bits(master, o.master) && same_bits(m, o.m) &&
           same_bits(v, o.v);
  }
};

template <class Types>
class LateUpdateTest : public ::testing::Test {};
using Kinds = ::testing::Types<std::pair<float, float>, std::pair<float, BF16>, std::pair<BF16, float>,
                               std::pair<BF16, BF16>>;
TYPED_TEST_SUITE(LateUpdateTest, Kinds);

TYPED_TEST(LateUpdateTest, ProductSeesToItWithTheSameBits) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{64, 1152}, {96, 128}, {45, 70}, {33, 1061}})
    for (const bool transpose_w : {true, false})
      for (const int threads : {1, 3}) {
        Experts<TypeParam> expected(n, k), late(n, k);
        run(Cpu{}, expected.update());
        with_threads(threads, [&] {
          expected.multiply(transpose_w);
          const auto update = update_later(Cpu{}, late.update(), late.groups);
          for (const int64_t early : {0, 4, 6}) update->finish(early);
          late.multiply(transpose_w, update.get());
          return 0;
        });
        EXPECT_TRUE(late == expected) << n << " x " << k << ", " << threads << " threads, " << transpose_w;
      }
}

TYPED_TEST(LateUpdateTest, NothingChangesBeforeIt) {
  Experts<TypeParam> expected(45, 70), late(45, 70);
  const auto update = update_later(Cpu{}, late.update(), late.groups);
  late.clip = std::nanf("");  // which was read
  EXPECT_TRUE(late == expected);
  run(Cpu{}, expected.update());
  update->update_all();
  EXPECT_TRUE(late == expected);
}

TYPED_TEST(LateUpdateTest, MatricesThatAreNeededFirstAreFinishedOnceAndAlone) {
  Experts<TypeParam> expected(45, 70), late(45, 70);
  const auto start = late.p;
  run(Cpu{}, expected.update());
  const auto update = update_later(Cpu{}, late.update(), late.groups);
  for (const int64_t early : {2, 5, 2}) update->finish(early);
  for (int64_t g = 0; g < late.groups; ++g) {
    const auto& now = g == 2 || g == 5 ? expected.p : start;
    const auto bytes = static_cast<size_t>(late.n * late.k) * sizeof(late.p[0]);
    EXPECT_EQ(std::memcmp(&late.p[g * late.n * late.k], &now[g * late.n * late.k], bytes), 0) << g;
    EXPECT_EQ(update->is_finished(g), g == 2 || g == 5);
  }
  update->update_all();
  EXPECT_TRUE(late == expected);
}

}  // namespace
}  // namespace switchyard::kernels
