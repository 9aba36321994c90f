#include "parallel/expert/rebalance.h"

namespace switchyard {

namespace {

// Not worth a move, relative to an even load: less than this too much on the fullest rank, or less of it
// gained.
constexpr double kTolerated = 0.05, kWorthMoving = 0.03;

int64_t differences(const Slots& a, const Slots& b) {
  int64_t n = 0;
  for (size_t s = 0; s < a.size(); ++s) n += a[s] != b[s];
  return n;
}

}  // namespace

Rebalancer::Rebalancer(ParameterStore& store, std::vector<MoeLayer*> layers, int64_t every_steps)
    : store_(store), layers_(std::move(layers)), every_steps_(every_steps) {
  for (const MoeLayer* layer : layers_) seen_.emplace_back(layer->options().num_experts, 0);
}

int64_t Rebalancer::after_step(int64_t step, const std::vector<LayerLoad>& loads) {
  if (every_steps_ == 0) return 0;
  int64_t moved = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    for (size_t e = 0; e < seen_[i].size(); ++e) seen_[i][e] += loads[i].kept[e];
    if (step % every_steps_ != 0) continue;
    const Slots now = layers_[i]->slots();
    const int ranks = layers_[i]->ranks();
    const double overload = rank_overload(now, seen_[i], ranks);
    if (overload > kTolerated) {
      const Slots better = balanced_slots(now, seen_[i], ranks);
      if (overload - rank_overload(better, seen_[i], ranks) > kWorthMoving) {
        layers_[i]->move_experts(store_, better);
        moved += differences(now, better);
      }
    }
    seen_[i].assign(seen_[i].size(), 0);
  }
  return moved;
}

}  // namespace switchyard
