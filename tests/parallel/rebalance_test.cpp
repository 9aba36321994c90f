// When experts change ranks. That they take everything along is tests/trainer/layout_test.cpp.
#include "parallel/expert/rebalance.h"

#include <gtest/gtest.h>

#include <random>

namespace switchyard::test {
namespace {

using Loads = std::vector<int64_t>;

// Experts 0 and 1 against 2 and 3 on two ranks; what is tried has one of the full ones on each.
ExpertTrial trial() { return {Loads(4, 0), {0, 2, 1, 3}}; }
const Slots kNow = {0, 1, 2, 3};

TEST(ExpertTrial, LoadsThatStayUnevenAreWorthIt) {
  ExpertTrial t = trial();
  for (int step = 0; step < 5; ++step) t.see(kNow, {300, 300, 100, 100}, 2);
  EXPECT_EQ(t.spared, 5 * 200);
  EXPECT_EQ(t.loads, (Loads{1500, 1500, 500, 500}));
  EXPECT_TRUE(t.worth_moving(kNow, 2, 5));
}

TEST(ExpertTrial, LoadsThatTurnAreNot) {
  ExpertTrial t = trial();
  for (int step = 0; step < 4; ++step) {
    const bool even = step % 2 == 0;
    t.see(kNow, even ? Loads{300, 300, 100, 100} : Loads{300, 100, 300, 100}, 2);
  }
  EXPECT_EQ(t.spared, 0);
  EXPECT_FALSE(t.worth_moving(kNow, 2, 4));
}

// Three hundredths of a rank's mean.
TEST(ExpertTrial, LittleIsNotWorthIt) {
  ExpertTrial little = trial(), enough = trial();
  little.see(kNow, {51400, 51400, 48600, 48600}, 2);  // 2.8 %
  enough.see(kNow, {51600, 51600, 48400, 48400}, 2);
  EXPECT_FALSE(little.worth_moving(kNow, 2, 1));
  EXPECT_TRUE(enough.worth_moving(kNow, 2, 1));
}

// Two experts change ranks, one from each: 100 pairs' time, which five pairs a step do not repay within 20.
TEST(ExpertTrial, WhatMovingCostsIsToBeRepaid) {
  ExpertTrial slow = trial(), fast = trial();
  slow.see(kNow, {9, 9, 4, 4}, 2);
  fast.see(kNow, {9, 9, 3, 3}, 2);
  EXPECT_FALSE(slow.worth_moving(kNow, 2, 1));
  EXPECT_TRUE(fast.worth_moving(kNow, 2, 1));
}

TEST(ExpertTrial, WhereEverythingStandsWellNothingMoves) {
  ExpertTrial t{Loads(4, 0), kNow};
  t.see(kNow, {400, 0, 0, 0}, 2);
  EXPECT_FALSE(t.worth_moving(kNow, 2, 1));
}

// Tokens that choose at random: what balanced the steps before is of no use to the next.
TEST(ExpertTrial, ChanceIsNotWorthIt) {
  std::mt19937 random(7);
  const auto draw = [&] {
    Loads load(16, 0);
    for (int pair = 0; pair < 1600; ++pair) ++load[random() % 16];
    return load;
  };
  int moves = 0;
  Slots now = first_slots(16);
  for (int look = 0; look < 50; ++look) {
    Loads seen(16, 0);
    for (int step = 0; step < 5; ++step) {
      const Loads load = draw();
      for (size_t e = 0; e < 16; ++e) seen[e] += load[e];
    }
    ExpertTrial t{Loads(16, 0), balanced_slots(now, seen, 4)};
    for (int step = 0; step < 5; ++step) t.see(now, draw(), 4);
    moves += t.worth_moving(now, 4, 5);
  }
  EXPECT_LE(moves, 1);
}

}  // namespace
}  // namespace switchyard::test
