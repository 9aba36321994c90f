// When experts change ranks. That they take everything along is tests/trainer/layout_test.cpp.
#include "parallel/expert/rebalance.h"

#include <gtest/gtest.h>

#include <random>

namespace switchyard::test {
namespace {

using Loads = std::vector<int64_t>;

// Experts 0 and 1 against 2 and 3 on two ranks.
const Slots kNow = {0, 1, 2, 3};

// After `steps` of the same load.
ExpertTrial after(int steps, const Loads& load, int64_t over_steps = 4) {
  ExpertTrial trial{Loads(4, 0), kNow};
  for (int step = 0; step < steps; ++step) trial.observe(kNow, load, 2, over_steps);
  return trial;
}

TEST(ExpertTrial, LoadsThatStayUnevenAreWorthIt) {
  const Loads uneven = {300, 300, 100, 100};
  const ExpertTrial once = after(1, uneven), twice = after(2, uneven);
  EXPECT_EQ(fullest_rank(once.tried, uneven, 2), 400);
  EXPECT_EQ(once.spared, 0);  // nothing was tried yet
  EXPECT_FALSE(once.worth_moving(kNow, 2));
  EXPECT_EQ(twice.loads, (Loads{525, 525, 175, 175}));  // three quarters and one
  EXPECT_EQ(twice.spared, 200);
  EXPECT_TRUE(twice.worth_moving(kNow, 2));
}

// Every arrangement has the two full ones together once in three steps.
TEST(ExpertTrial, LoadsThatTurnAreNot) {
  const Loads turning[] = {{300, 300, 100, 100}, {300, 100, 300, 100}, {300, 100, 100, 300}};
  ExpertTrial trial{Loads(4, 0), kNow};
  for (int step = 0; step < 30; ++step) {
    trial.observe(kNow, turning[step % 3], 2, 4);
    EXPECT_FALSE(trial.worth_moving(kNow, 2)) << step;
  }
}

// Three hundredths of a rank's mean.
TEST(ExpertTrial, LittleIsNotWorthIt) {
  EXPECT_FALSE(after(40, {51400, 51400, 48600, 48600}).worth_moving(kNow, 2));  // 2.8 %
  EXPECT_TRUE(after(40, {51600, 51600, 48400, 48400}).worth_moving(kNow, 2));
}

// An expert from each rank: 100 pairs' time, to be spared within four steps, or eight.
TEST(ExpertTrial, WhatMovingCostsIsToBeRepaid) {
  EXPECT_FALSE(after(90, {36, 36, 16, 16}).worth_moving(kNow, 2));  // 20 pairs a step
  EXPECT_TRUE(after(90, {48, 48, 16, 16}).worth_moving(kNow, 2));
  EXPECT_TRUE(after(90, {36, 36, 16, 16}, 8).worth_moving(kNow, 2));
  EXPECT_FALSE(after(90, {48, 48, 16, 16}).worth_moving(kNow, 2, 2));  // their state comes from two ranks
}

TEST(ExpertTrial, WhereEverythingStandsWellNothingMoves) {
  EXPECT_FALSE(after(20, {400, 0, 0, 0}).worth_moving(kNow, 2));
}

// Tokens that choose at random: what balanced the steps before is of no use to the next.
TEST(ExpertTrial, ChanceIsNotWorthIt) {
  std::mt19937 random(7);
  ExpertTrial trial{Loads(16, 0), first_slots(16)};
  int worth = 0;
  for (int step = 0; step < 500; ++step) {
    Loads load(16, 0);
    for (int pair = 0; pair < 1600; ++pair) ++load[random() % 16];
    trial.observe(first_slots(16), load, 4, 4);
    worth += trial.worth_moving(first_slots(16), 4);
  }
  EXPECT_LE(worth, 5);
}

}  // namespace
}  // namespace switchyard::test
