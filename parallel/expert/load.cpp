#include "parallel/expert/load.h"

#include <algorithm>
#include <numeric>

#include "core/launch.h"
#include "kernels/elementwise.h"

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

void sum_into(const Tensor& to, const Tensor& x, const Tensor& workspace) {
  launch_wide(x, [&]<class A>(auto on) {
    kernels::run(on, kernels::Sum<A>{.sum = to.data<double>(),
                                     .x = x.data<A>(),
                                     .workspace = workspace.data<double>(),
                                     .n = x.numel()});
  });
}

}  // namespace

void LoadRecorder::add(int64_t layer, const Sample& s) {
  if (is_recomputing()) return;
  const Device device = s.assigned.device();
  const int64_t experts = s.assigned.numel();
  Entry e{layer, experts, s.entropy.numel(), Tensor::empty({2 * experts}, DType::kI64, device),
          Tensor::zeros({3}, DType::kF64, device)};
  e.integers.slice(0, {experts}).copy_from(s.assigned);
  e.integers.slice(experts, {experts}).copy_from(s.kept);
  const Tensor workspace = Tensor::empty({kernels::Sum<float>::kBlocks}, DType::kF64, device);
  sum_into(e.reals.slice(0, {1}), s.entropy, workspace);
  if (s.aux.defined()) sum_into(e.reals.slice(1, {1}), s.aux, workspace);
  if (s.z.defined()) sum_into(e.reals.slice(2, {1}), s.z, workspace);
  entries_.push_back(std::move(e));
}

namespace {

// The tensors' values one after the other: joined on their device, so that the host waits once.
template <class T>
std::vector<T> joined(const std::vector<Tensor>& parts) {
  int64_t total = 0;
  for (const Tensor& part : parts) total += part.numel();
  if (total == 0) return {};
  const Tensor all = Tensor::empty({total}, parts[0].dtype(), parts[0].device());
  int64_t offset = 0;
  for (const Tensor& part : parts) {
    all.slice(offset, part.shape()).copy_from(part);
    offset += part.numel();
  }
  return all.to_vector<T>();
}

LayerLoad& load_of(std::vector<LayerLoad>& loads, int64_t layer, int64_t experts) {
  auto found = std::find_if(loads.begin(), loads.end(), [&](const LayerLoad& l) { return l.layer == layer; });
  if (found != loads.end()) return *found;
  loads.push_back(
      {.layer = layer, .assigned = std::vector<int64_t>(experts), .kept = std::vector<int64_t>(experts)});
  return loads.back();
}

}  // namespace

std::vector<LayerLoad> LoadRecorder::take() {
  std::vector<Tensor> integers, reals;
  for (const Entry& e : entries_) {
    integers.push_back(e.integers);
    reals.push_back(e.reals);
  }
  const std::vector<int64_t> counts = joined<int64_t>(integers);
  const std::vector<double> sums = joined<double>(reals);
  std::vector<LayerLoad> loads;
  auto count = counts.begin();
  auto sum = sums.begin();
  for (const Entry& e : entries_) {
    LayerLoad& load = load_of(loads, e.layer, e.experts);
    for (int64_t& n : load.assigned) n += *count++;
    for (int64_t& n : load.kept) n += *count++;
    load.entropy_sum += *sum++;
    load.aux_loss += *sum++;
    load.z_loss += *sum++;
    load.tokens += e.tokens;
  }
  entries_.clear();
  std::sort(loads.begin(), loads.end(),
            [](const LayerLoad& x, const LayerLoad& y) { return x.layer < y.layer; });
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
