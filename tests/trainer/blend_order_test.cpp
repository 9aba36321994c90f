#include "trainer/data/blend_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

namespace switchyard {
namespace {

using Weights = std::vector<double>;

std::vector<size_t> first_sets(const Weights& weights, uint64_t samples) {
  BlendOrder order(weights);
  std::vector<size_t> sets;
  for (uint64_t i = 0; i < samples; ++i) sets.push_back(order.at(i).set);
  return sets;
}

// How far any set's count is ever from its share.
double worst_distance(const Weights& weights, uint64_t samples) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  BlendOrder order(weights);
  std::vector<uint64_t> counts(weights.size());
  double worst = 0;
  for (uint64_t n = 1; n <= samples; ++n) {
    ++counts[order.at(n - 1).set];
    for (size_t j = 0; j < weights.size(); ++j) {
      const double due = static_cast<double>(n) * weights[j] / sum;
      worst = std::max(worst, std::abs(static_cast<double>(counts[j]) - due));
    }
  }
  return worst;
}

TEST(BlendOrder, InterleavesByWeight) {
  EXPECT_EQ(first_sets({1, 1}, 6), (std::vector<size_t>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(first_sets({2, 1, 1}, 8), (std::vector<size_t>{0, 1, 0, 2, 0, 1, 0, 2}));
}

TEST(BlendOrder, CountsStayWithinOneOfTheirShare) {
  for (const Weights& weights :
       {Weights{0.7, 0.3}, {0.98, 0.01, 0.01}, {1, 1, 1, 1, 1, 1, 1}, {5, 3, 2, 1e-3}, {1e12, 1}}) {
    EXPECT_LT(worst_distance(weights, 20'000), 1 + 1e-6) << weights[0];
  }
}

// Where the set that is furthest behind always came next, some of these would be off by more than one.
TEST(BlendOrder, CountsStayWithinOneForManySets) {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    Weights weights;
    const size_t sets = 3 + random() % 20;
    for (size_t j = 0; j < sets; ++j) weights.push_back(std::pow(1.5, static_cast<double>(random() % 16)));
    EXPECT_LT(worst_distance(weights, 3'000), 1 + 1e-6) << "round " << round;
  }
}

TEST(BlendOrder, OnlyRatiosOfWeightsMatter) {
  EXPECT_EQ(first_sets({0.25, 0.5, 1}, 100), first_sets({1, 2, 4}, 100));
}

TEST(BlendOrder, EachSetCountsItsOwnSamples) {
  BlendOrder order({3, 2, 1});
  std::vector<uint64_t> counts(3);
  for (uint64_t i = 0; i < 1000; ++i) {
    const BlendOrder::Place place = order.at(i);
    EXPECT_EQ(place.counter, counts[place.set]++);
  }
  EXPECT_EQ(order.counts(1000), counts);
  EXPECT_EQ(counts[0], 500U);
}

TEST(BlendOrder, AnyStartGivesTheSamePlaces) {
  const Weights weights = {0.61, 0.29, 0.1};
  BlendOrder whole(weights), jumping(weights);
  std::vector<BlendOrder::Place> places;
  for (uint64_t i = 0; i < 500; ++i) places.push_back(whole.at(i));
  for (const uint64_t i : {17, 400, 3, 499, 0, 250}) EXPECT_EQ(jumping.at(i), places[i]) << i;
}

TEST(BlendOrder, OneSetGivesEverySample) {
  BlendOrder order({0.3});
  const uint64_t far = uint64_t{1} << 60;
  EXPECT_EQ(order.at(far), (BlendOrder::Place{0, far}));
  EXPECT_EQ(order.counts(far + 1), std::vector<uint64_t>{far + 1});
}

}  // namespace
}  // namespace switchyard
