// <A x, s> = <x, A' s> over all ranks: the gradient of every differentiable collective is its transpose.
// Whole numbers, so that both sides are exact.
#include "parallel/collectives.h"

#include <gtest/gtest.h>

#include <numeric>

#include "parallel/comm/make.h"
#include "tests/support/adjoint.h"

namespace switchyard::test {
namespace {

constexpr int64_t kCols = 3;

using Collective = std::function<Var(const Var& x, const Group& group)>;
using Rows = std::function<int64_t(const Group& group)>;

// `collective` of a matrix with rows(group) rows on each rank, on groups of 1 to 4.
void expect_transpose(const Rows& rows, const Collective& collective) {
  for (int ranks = 1; ranks <= 4; ++ranks) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    run_ranks(ranks, [&](const Group& group) {
      const Var x(whole_numbers(rows(group), kCols, group->rank()), true);
      const Var y = collective(x, group);
      const Tensor seed = whole_numbers(y.dim(0), kCols, 10 + group->rank());
      backward(y, seed);
      ASSERT_EQ(x.grad().shape(), x.shape());
      EXPECT_EQ(dot(y.value(), seed, group), dot(x.value(), x.grad(), group));
    });
  }
}

Rows rows_per_rank(int64_t each) {
  return [each](const Group& group) { return each * group->size(); };
}
Rows always(int64_t rows) {
  return [rows](const Group&) { return rows; };
}

TEST(Collectives, AllReduceIsItsOwnTranspose) {
  for (const int64_t rows : {0, 5}) expect_transpose(always(rows), all_reduce);
}

TEST(Collectives, AllGatherIsTransposedByReduceScatter) {
  for (const int64_t rows : {0, 5}) expect_transpose(always(rows), all_gather);
}

TEST(Collectives, ReduceScatterIsTransposedByAllGather) {
  for (const int64_t rows : {0, 5}) expect_transpose(rows_per_rank(rows), reduce_scatter);
}

TEST(Collectives, BroadcastIsTransposedByReduceFromEveryRoot) {
  for (const int64_t rows : {0, 5}) {
    for (int root = 0; root < 4; ++root) {
      expect_transpose(always(rows), [root](const Var& x, const Group& group) {
        return broadcast(x, group, root % group->size());
      });
    }
  }
}

// Rank a sends rank b this many rows: uneven, none for some, and none at all from rank 1.
int64_t rows_between(int a, int b) { return a == 1 || (a + b) % 3 == 2 ? 0 : a + 2 * b + 1; }

Counts rows_out(const Group& group) {
  Counts rows;
  for (int r = 0; r < group->size(); ++r) rows.push_back(rows_between(group->rank(), r));
  return rows;
}
Counts rows_in(const Group& group) {
  Counts rows;
  for (int r = 0; r < group->size(); ++r) rows.push_back(rows_between(r, group->rank()));
  return rows;
}

TEST(Collectives, AllToAllIsTransposedByExchangingTheCounts) {
  auto rows = [](const Group& group) {
    const Counts out = rows_out(group);
    return std::accumulate(out.begin(), out.end(), int64_t{0});
  };
  expect_transpose(rows, [](const Var& x, const Group& group) {
    return all_to_all(x, rows_out(group), rows_in(group), group);
  });
}

TEST(Collectives, AllToAllOfNothingHasAGradient) {
  expect_transpose(always(0), [](const Var& x, const Group& group) {
    const Counts none(group->size(), 0);
    return all_to_all(x, none, none, group);
  });
}

TEST(Collectives, ExchangeRowsKeepsTheOrderOfRanksAndRows) {
  run_ranks(3, [](const Group& group) {
    const double me = group->rank();
    const Tensor x = Tensor::from<double>({me, 0, me, 1, me, 2, me, 3, me, 4, me, 5}, {6, 2});
    const Tensor y = exchange_rows(x, {1, 2, 3}, Counts(3, group->rank() + 1), group);
    std::vector<double> expected;
    for (int source = 0; source < 3; ++source) {
      const int first = group->rank() * (group->rank() + 1) / 2;
      for (int i = 0; i <= group->rank(); ++i) {
        expected.push_back(source);
        expected.push_back(first + i);
      }
    }
    EXPECT_EQ(y.to_vector<double>(), expected);
  });
}

}  // namespace
}  // namespace switchyard::test
