// What every backend of Communicator does, as one suite. A backend is a type with
//   static std::vector<int> sizes();                                          group sizes it can make here
//   static void run(int ranks, const std::function<void(Group)>& body);      body on every rank of one
// and is tested by INSTANTIATE_TYPED_TEST_SUITE_P(Name, CommConformance, Backend).
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "parallel/comm/communicator.h"

namespace switchyard {

// Sums of such values depend on the order of the terms.
inline double test_value(int rank, int64_t i) {
  uint64_t x = (static_cast<uint64_t>(rank) << 32) + static_cast<uint64_t>(i);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return (static_cast<double>(x >> 40) / (1 << 24) - 0.5) * static_cast<double>(1 << (x & 7));
}

template <class T>
T typed_value(int rank, int64_t i) {
  if constexpr (std::is_same_v<T, BF16>)
    return BF16(static_cast<float>(test_value(rank, i)));
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(test_value(rank, i) * 1000);
  else
    return static_cast<T>(test_value(rank, i));
}

template <class T>
std::vector<T> typed_values(int rank, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = typed_value<T>(rank, i);
  return values;
}

// The sum over ranks of element i, in rank order.
template <class T>
T expected_sum(int ranks, int64_t i) {
  using Running = std::conditional_t<std::is_same_v<T, BF16>, float, T>;
  auto running = static_cast<Running>(typed_value<T>(0, i));
  for (int r = 1; r < ranks; ++r) running += static_cast<Running>(typed_value<T>(r, i));
  return static_cast<T>(running);
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// Around the limits of the small path and of one piece, uneven blocks, fewer elements
// than ranks, several pieces.
inline const std::vector<int64_t> kTestCounts = {0, 1, 3, 1000, 1025, 4099, 300007};

template <class Backend>
class CommConformance : public testing::Test {
 protected:
  void SetUp() override {
    if (Backend::sizes().empty()) GTEST_SKIP() << "no group of this backend can be made here";
  }

  static void on_each_size(const std::function<void(Group)>& body) {
    for (int ranks : Backend::sizes()) {
      SCOPED_TRACE(concat(ranks, " ranks"));
      Backend::run(ranks, body);
    }
  }

  template <class T>
  static void check_all_reduce() {
    on_each_size([](const Group& group) {
      for (int64_t count : kTestCounts) {
        auto data = typed_values<T>(group->rank(), count);
        group->all_reduce(data.data(), count, dtype_of<T>());
        int64_t wrong = 0;
        for (int64_t i = 0; i < count; ++i) wrong += !same_bits(data[i], expected_sum<T>(group->size(), i));
        EXPECT_EQ(wrong, 0) << "of " << count << " on rank " << group->rank() << " of " << group->size();
      }
    });
  }
};

TYPED_TEST_SUITE_P(CommConformance);

TYPED_TEST_P(CommConformance, AllReduceAddsFloatsInRankOrder) { this->template check_all_reduce<float>(); }
TYPED_TEST_P(CommConformance, AllReduceAddsBf16InFloatAndRoundsOnce) {
  this->template check_all_reduce<BF16>();
}
TYPED_TEST_P(CommConformance, AllReduceAddsDoubles) { this->template check_all_reduce<double>(); }
TYPED_TEST_P(CommConformance, AllReduceAddsInt32) { this->template check_all_reduce<int32_t>(); }
TYPED_TEST_P(CommConformance, AllReduceAddsInt64) { this->template check_all_reduce<int64_t>(); }

TYPED_TEST_P(CommConformance, AllReduceFindsMaximaAndMinima) {
  this->on_each_size([](const Group& group) {
    for (int64_t count : {5, 5000}) {
      auto most = typed_values<float>(group->rank(), count), least = most;
      group->all_reduce(most.data(), count, DType::kF32, ReduceOp::kMax);
      group->all_reduce(least.data(), count, DType::kF32, ReduceOp::kMin);
      for (int64_t i = 0; i < count; ++i) {
        float max = typed_value<float>(0, i), min = max;
        for (int r = 1; r < group->size(); ++r) {
          max = std::max(max, typed_value<float>(r, i));
          min = std::min(min, typed_value<float>(r, i));
        }
        ASSERT_EQ(most[i], max) << i;
        ASSERT_EQ(least[i], min) << i;
      }
    }
  });
}

TYPED_TEST_P(CommConformance, AllReduceRepeatsBitForBit) {
  this->on_each_size([](const Group& group) {
    std::vector<float> first;
    for (int run = 0; run < 5; ++run) {
      auto data = typed_values<float>(group->rank(), 100003);
      group->all_reduce(data.data(), std::ssize(data), DType::kF32);
      if (run == 0) first = data;
      EXPECT_EQ(std::memcmp(data.data(), first.data(), data.size() * sizeof(float)), 0);
    }
  });
}

TYPED_TEST_P(CommConformance, AllGatherPutsBlocksInRankOrder) {
  this->on_each_size([](const Group& group) {
    for (int64_t count : kTestCounts) {
      const auto mine = typed_values<double>(group->rank(), count);
      std::vector<double> all(count * group->size() + 1, -1);
      group->all_gather(mine.data(), all.data(), count, DType::kF64);
      for (int r = 0; r < group->size(); ++r) {
        const auto expected = typed_values<double>(r, count);
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), all.begin() + r * count, same_bits<double>))
            << r;
      }
      ASSERT_EQ(all.back(), -1);
    }
  });
}

TYPED_TEST_P(CommConformance, AllGatherWorksInPlace) {
  this->on_each_size([](const Group& group) {
    std::vector<int32_t> all(group->size() * 3, -1);
    std::fill_n(all.begin() + group->rank() * 3, 3, group->rank());
    group->all_gather(all.data() + group->rank() * 3, all.data(), 3, DType::kI32);
    for (int i = 0; i < group->size() * 3; ++i) EXPECT_EQ(all[i], i / 3);
  });
}

TYPED_TEST_P(CommConformance, ReduceScatterGivesEachRankItsBlockOfTheSum) {
  this->on_each_size([](const Group& group) {
    for (int64_t count : kTestCounts) {
      const auto send = typed_values<float>(group->rank(), count * group->size());
      std::vector<float> sum(count);
      group->reduce_scatter(send.data(), sum.data(), count, DType::kF32);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_TRUE(same_bits(sum[i], expected_sum<float>(group->size(), group->rank() * count + i))) << i;
      }
    }
  });
}

TYPED_TEST_P(CommConformance, ReduceScatterWorksInPlace) {
  this->on_each_size([](const Group& group) {
    for (int64_t count : kTestCounts) {
      auto data = typed_values<float>(group->rank(), count * group->size());
      float* own = data.data() + group->rank() * count;
      group->reduce_scatter(data.data(), own, count, DType::kF32);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_TRUE(same_bits(own[i], expected_sum<float>(group->size(), group->rank() * count + i))) << i;
      }
    }
  });
}

TYPED_TEST_P(CommConformance, BroadcastReachesAllFromEveryRoot) {
  this->on_each_size([](const Group& group) {
    for (int root = 0; root < group->size(); ++root) {
      for (int64_t count : kTestCounts) {
        auto data = typed_values<float>(group->rank(), count);
        group->broadcast(data.data(), count, DType::kF32, root);
        ASSERT_EQ(data, typed_values<float>(root, count)) << root;
      }
    }
  });
}

// Rank a sends rank b this many elements: uneven, and nothing at all for some pairs.
inline int64_t exchange_count(int a, int b) { return (a + 2 * b) % 3 == 0 ? 0 : (a * 7 + b * 3 + 1) * 4211; }

TYPED_TEST_P(CommConformance, AllToAllSendsUnevenAndEmptyBlocks) {
  this->on_each_size([](const Group& group) {
    const int me = group->rank();
    std::vector<int64_t> send_counts, recv_counts;
    std::vector<BF16> send, expected;
    for (int r = 0; r < group->size(); ++r) {
      send_counts.push_back(exchange_count(me, r));
      recv_counts.push_back(exchange_count(r, me));
      for (int64_t i = 0; i < send_counts[r]; ++i) send.push_back(typed_value<BF16>(me, i * 8 + r));
      for (int64_t i = 0; i < recv_counts[r]; ++i) expected.push_back(typed_value<BF16>(r, i * 8 + me));
    }
    std::vector<BF16> received(expected.size());
    group->all_to_all(send.data(), send_counts, received.data(), recv_counts, DType::kBF16);
    EXPECT_TRUE(received.empty() ||
                std::memcmp(received.data(), expected.data(), received.size() * sizeof(BF16)) == 0);
  });
}

TYPED_TEST_P(CommConformance, AllToAllOfNothingReturns) {
  this->on_each_size([](const Group& group) {
    const std::vector<int64_t> none(group->size(), 0);
    group->all_to_all(nullptr, none, nullptr, none, DType::kF32);
  });
}

TYPED_TEST_P(CommConformance, BarrierHoldsUntilAllAreThere) {
  this->on_each_size([](const Group& group) {
    auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
    for (int late = 0; late < group->size(); ++late) {
      const auto patience = now() + (group->rank() == late ? 2'000'000 : 0);  // ns
      while (now() < patience) {
      }
      int64_t entered = now();
      group->barrier();
      int64_t left = now();
      group->all_reduce(&entered, 1, DType::kI64, ReduceOp::kMax);
      group->all_reduce(&left, 1, DType::kI64, ReduceOp::kMin);
      EXPECT_GE(left, entered);
    }
  });
}

// The members' ranks in `parent`, as the group itself tells them.
inline std::vector<int32_t> members_of(const Group& group, int parent_rank) {
  std::vector<int32_t> members(group->size());
  const int32_t mine = parent_rank;
  group->all_gather(&mine, members.data(), 1, DType::kI32);
  return members;
}

TYPED_TEST_P(CommConformance, SplitGroupsByColorAndOrdersByKey) {
  this->on_each_size([](const Group& world) {
    const Group half = world->split(world->rank() % 2, -world->rank(), "half");
    std::vector<int32_t> expected;
    for (int r = world->size() - 1; r >= 0; --r) {
      if (r % 2 == world->rank() % 2) expected.push_back(r);
    }
    EXPECT_EQ(half->name(), "half");
    EXPECT_EQ(members_of(half, world->rank()), expected);
    EXPECT_EQ(expected[half->rank()], world->rank());
    constexpr int64_t kLong = 30000;
    std::vector<int32_t> own(kLong, world->rank()), all(kLong * half->size());
    half->all_gather(own.data(), all.data(), kLong, DType::kI32);
    for (int64_t i = 0; i < std::ssize(all); i += kLong) {
      EXPECT_EQ(all[i], expected[i / kLong]);
      EXPECT_EQ(all[i + kLong - 1], expected[i / kLong]);
    }
  });
}

TYPED_TEST_P(CommConformance, SplitTakesGroupsOfDifferentSizes) {
  this->on_each_size([](const Group& world) {
    const Group part = world->split(world->rank() == 0 ? 17 : 3, 0, "part");
    EXPECT_EQ(part->size(), world->rank() == 0 ? 1 : world->size() - 1);
    int32_t ones = 1;
    part->all_reduce(&ones, 1, DType::kI32);
    EXPECT_EQ(ones, part->size());
  });
}

TYPED_TEST_P(CommConformance, NestedSplitsAndTheirParentsTakeTurns) {
  this->on_each_size([](const Group& world) {
    const Group half = world->split(world->rank() / 2, world->rank(), "half");
    const Group alone = half->split(half->rank(), 0, "alone");
    for (int turn = 0; turn < 3; ++turn) {
      for (const Group& group : {world, half, alone, half}) {
        std::vector<int64_t> ones(40000, 1);
        group->all_reduce(ones.data(), 40000, DType::kI64);
        EXPECT_EQ(ones, std::vector<int64_t>(40000, group->size()));
      }
    }
  });
}

inline double dot(const Group& group, const std::vector<double>& a, const std::vector<double>& b) {
  double sum = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  group->all_reduce(&sum, 1, DType::kF64);
  return sum;
}

inline std::vector<double> whole_numbers(int rank, int64_t count) {
  std::vector<double> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<double>((rank * 31 + i * 7) % 23 - 11);
  return values;
}

// <A x, s> = <x, A' s> over all ranks together, exact in whole numbers.
TYPED_TEST_P(CommConformance, AllGatherAndReduceScatterAreTransposes) {
  this->on_each_size([](const Group& group) {
    const int64_t count = 501;
    const auto x = whole_numbers(group->rank(), count);
    const auto s = whole_numbers(group->rank() + 9, count * group->size());
    std::vector<double> ax(s.size()), ats(x.size());
    group->all_gather(x.data(), ax.data(), count, DType::kF64);
    group->reduce_scatter(s.data(), ats.data(), count, DType::kF64);
    EXPECT_EQ(dot(group, ax, s), dot(group, x, ats));
  });
}

TYPED_TEST_P(CommConformance, AllToAllIsTransposedByExchangingTheCounts) {
  this->on_each_size([](const Group& group) {
    std::vector<int64_t> out, in;
    for (int r = 0; r < group->size(); ++r) {
      out.push_back(exchange_count(group->rank(), r));
      in.push_back(exchange_count(r, group->rank()));
    }
    const auto x = whole_numbers(group->rank(), std::accumulate(out.begin(), out.end(), int64_t{0}));
    const auto s = whole_numbers(group->rank() + 9, std::accumulate(in.begin(), in.end(), int64_t{0}));
    std::vector<double> ax(s.size()), ats(x.size());
    group->all_to_all(x.data(), out, ax.data(), in, DType::kF64);
    group->all_to_all(s.data(), in, ats.data(), out, DType::kF64);
    EXPECT_EQ(dot(group, ax, s), dot(group, x, ats));
  });
}

REGISTER_TYPED_TEST_SUITE_P(CommConformance, AllReduceAddsFloatsInRankOrder,
                            AllReduceAddsBf16InFloatAndRoundsOnce, AllReduceAddsDoubles, AllReduceAddsInt32,
                            AllReduceAddsInt64, AllReduceFindsMaximaAndMinima, AllReduceRepeatsBitForBit,
                            AllGatherPutsBlocksInRankOrder, AllGatherWorksInPlace,
                            ReduceScatterGivesEachRankItsBlockOfTheSum, ReduceScatterWorksInPlace,
                            BroadcastReachesAllFromEveryRoot, AllToAllSendsUnevenAndEmptyBlocks,
                            AllToAllOfNothingReturns, BarrierHoldsUntilAllAreThere,
                            SplitGroupsByColorAndOrdersByKey, SplitTakesGroupsOfDifferentSizes,
                            NestedSplitsAndTheirParentsTakeTurns, AllGatherAndReduceScatterAreTransposes,
                            AllToAllIsTransposedByExchangingTheCounts);

}  // namespace switchyard
