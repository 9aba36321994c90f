#include "parallel/expert/rebalance.h"

#include <algorithm>
#include <numeric>

namespace switchyard {

namespace {

// Experts move if that spares the fullest rank more than this part of a rank's mean load, and the time it
// takes. An expert's weights, masters and moments are 12 to 14 bytes a parameter (8 to 10 with bf16
// moments), a pair is 6 operations a parameter: where a core multiplies at 100 GF/s and sends 3 GB/s, an
// expert takes as long as 80 pairs: 100, with what starting costs. (An H100 over NVLink: some thousands.
// There a step has tens of thousands of pairs a rank, and the part is the stricter condition.) What ranks
// hold in parts, five sixths of the bytes, is summed before it travels: twice (N-1)/N of it among N.
constexpr double kWorthMoving = 0.03;
constexpr double kPairsPerMove = 100;
constexpr double kInParts = 5.0 / 6;

double pairs_per_move(int holders) { return kPairsPerMove * (1 + 2 * kInParts * (holders - 1) / holders); }

int64_t differences(const Slots& a, const Slots& b) {
  int64_t n = 0;
  for (size_t s = 0; s < a.size(); ++s) n += a[s] != b[s];
  return n;
}

}  // namespace

void ExpertTrial::observe(const Slots& now, const std::vector<int64_t>& load, int ranks, int64_t steps) {
  spared += fullest_rank(now, load, ranks) - fullest_rank(tried, load, ranks) - spared / steps;
  for (size_t e = 0; e < load.size(); ++e) loads[e] += load[e] - loads[e] / steps;
  tried = balanced_slots(now, loads, ranks);
}

bool ExpertTrial::worth_moving(const Slots& now, int ranks, int holders) const {
  const int64_t pairs = std::accumulate(loads.begin(), loads.end(), int64_t{0});
  const double worth = kWorthMoving * static_cast<double>(pairs) / ranks;
  const double cost = pairs_per_move(holders) * static_cast<double>(differences(now, tried)) / ranks;
  const int64_t gain = fullest_rank(now, loads, ranks) - fullest_rank(tried, loads, ranks);
  return static_cast<double>(std::min(spared, gain)) > std::max(worth, cost);
}

Rebalancer::Rebalancer(ParameterStore& store, std::vector<MoeLayer*> layers, Axis edp, int64_t over_steps)
    : store_(store), layers_(std::move(layers)), edp_(std::move(edp)), over_steps_(over_steps) {
  for (const MoeLayer* layer : layers_)
    trials_.push_back({std::vector<int64_t>(layer->options().num_experts, 0), layer->slots()});
}

int64_t Rebalancer::after_step(const std::vector<LayerLoad>& loads) {
  if (!active()) return 0;
  int64_t moved = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    MoeLayer& layer = *layers_[i];
    ExpertTrial& trial = trials_[i];
    trial.observe(layer.slots(), loads[i].kept, layer.ranks(), over_steps_);
    if (!trial.worth_moving(layer.slots(), layer.ranks(), edp_.size())) continue;
    moved += differences(layer.slots(), trial.tried);
    layer.move_experts(store_, trial.tried, edp_);
    trial.spared = 0;
  }
  if (moved > 0) edp_.meet();
  return moved;
}

}  // namespace switchyard
