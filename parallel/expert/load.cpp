#include "parallel/expert/load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/launch.h"
#include "kernels/elementwise.h"
#include "kernels/load_sums.h"

namespace switchyard {

LayerLoad& LayerLoad::operator+=(const LayerLoad& other) {
  for (size_t e = 0; e < assigned.size(); ++e) {
    assigned[e] += other.assigned[e];
    kept[e] += other.kept[e];
  }
  entropy_sum += other.entropy_sum;
  tokens += other.tokens;
  aux_loss += other.aux_loss;
  z_loss += other.z_loss;
  return *this;
}

int64_t LayerLoad::pairs() const { return std::accumulate(assigned.begin(), assigned.end(), int64_t{0}); }

double LayerLoad::max_violation() const {
  const double mean = static_cast<double>(pairs()) / static_cast<double>(assigned.size());
  if (mean == 0) return 0;
  return (static_cast<double>(*std::max_element(assigned.begin(), assigned.end())) - mean) / mean;
}

double LayerLoad::drop_rate() const {
  const int64_t all = pairs();
  const int64_t stayed = std::accumulate(kept.begin(), kept.end(), int64_t{0});
  return all == 0 ? 0 : static_cast<double>(all - stayed) / static_cast<double>(all);
}

double LayerLoad::router_entropy() const {
  return tokens == 0 ? 0 : entropy_sum / static_cast<double>(tokens);
}
int64_t LayerLoad::dead_experts() const { return std::count(assigned.begin(), assigned.end(), 0); }

namespace {

constexpr int64_t kReals = 3;  // entropy, aux, z

void add_sum(const Tensor& to, const Tensor& x, const Tensor& workspace) {
  launch_wide(x, [&]<class A>(auto on) {
    kernels::run(on, kernels::Sum<A>{.sum = to.data<double>(),
                                     .x = x.data<A>(),
                                     .workspace = workspace.data<double>(),
                                     .n = x.numel(),
                                     .accumulate = true});
  });
}

// The tensors' values one after the other: joined on their device, so that the host waits once.
std::vector<double> joined(const std::vector<Tensor>& parts) {
  int64_t total = 0;
  for (const Tensor& part : parts) total += part.numel();
  if (total == 0) return {};
  const Tensor all = Tensor::empty({total}, DType::kF64, parts[0].device());
  int64_t offset = 0;
  for (const Tensor& part : parts) {
    all.slice(offset, part.shape()).copy_from(part);
    offset += part.numel();
  }
  return all.to_vector<double>();
}

}  // namespace

LoadRecorder::Entry& LoadRecorder::entry_of(int64_t layer, int64_t experts, Device device) {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), layer,
                                   [](const Entry& e, int64_t wanted) { return e.layer < wanted; });
  if (at != entries_.end() && at->layer == layer) return *at;
  if (!workspace_.defined()) workspace_ = Tensor::empty({kernels::Sum<float>::kBlocks}, DType::kF64, device);
  return *entries_.insert(at,
                          {layer, experts, Tensor::zeros({2 * experts + 1 + kReals}, DType::kF64, device)});
}

void LoadRecorder::add(int64_t layer, const Sample& s) {
  if (is_recomputing()) return;
  const int64_t experts = s.assigned.numel();
  const Tensor sums = entry_of(layer, experts, s.assigned.device()).sums;
  launch_on(sums.device(), [&](auto on) {
    kernels::run(on, kernels::AddLoads{.sums = sums.data<double>(),
                                       .assigned = s.assigned.data<int64_t>(),
                                       .kept = s.kept.data<int64_t>(),
                                       .experts = experts,
                                       .tokens = s.entropy.numel()});
  });
  int64_t at = 2 * experts + 1;
  for (const Tensor* x : {&s.entropy, &s.aux, &s.z}) {
    if (x->defined()) add_sum(sums.slice(at, {1}), *x, workspace_);
    ++at;
  }
}

std::vector<LayerLoad> LoadRecorder::take() {
  std::vector<Tensor> sums;
  for (const Entry& e : entries_) sums.push_back(e.sums);
  const std::vector<double> values = joined(sums);
  std::vector<LayerLoad> loads;
  auto value = values.begin();
  for (const Entry& e : entries_) {
    LayerLoad load;
    load.layer = e.layer;
    for (auto* counts : {&load.assigned, &load.kept}) {
      for (int64_t i = 0; i < e.experts; ++i) counts->push_back(std::llround(*value++));
    }
    load.tokens = std::llround(*value++);
    load.entropy_sum = *value++;
    load.aux_loss = *value++;
    load.z_loss = *value++;
    loads.push_back(std::move(load));
    e.sums.zero();
  }
  return loads;
}

void reduce(std::vector<LayerLoad>& loads, const Group& world) {
  std::vector<int64_t> integers;
  std::vector<double> reals;
  for (const LayerLoad& l : loads) {
    integers.insert(integers.end(), l.assigned.begin(), l.assigned.end());
    integers.insert(integers.end(), l.kept.begin(), l.kept.end());
    integers.push_back(l.tokens);
    reals.insert(reals.end(), {l.entropy_sum, l.aux_loss, l.z_loss});
  }
  world->all_reduce(integers.data(), static_cast<int64_t>(integers.size()), DType::kI64);
  world->all_reduce(reals.data(), static_cast<int64_t>(reals.size()), DType::kF64);
  auto next = integers.begin();
  auto real = reals.begin();
  for (LayerLoad& l : loads) {
    for (auto* counts : {&l.assigned, &l.kept}) {
      for (int64_t& n : *counts) n = *next++;
    }
    l.tokens = *next++;
    l.entropy_sum = *real++;
    l.aux_loss = *real++;
    l.z_loss = *real++;
  }
}

}  // namespace switchyard
