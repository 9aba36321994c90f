#include "parallel/expert/dispatcher.h"

#include <cmath>
#include <numeric>

#include "core/launch.h"

namespace switchyard {

namespace {

int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

RowGroups make_groups(const std::vector<int64_t>& counts, Device device) {
  auto offsets = std::make_shared<std::vector<int64_t>>(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets->begin() + 1);
  return {Tensor::from(*offsets, {static_cast<int64_t>(offsets->size())}, device), offsets};
}

// How probable it is that a token whose top_k different experts are drawn evenly has one of `held` among all.
double chance_of_any(int64_t experts, int64_t held, int64_t top_k) {
  double none = 1;
  for (int64_t j = 0; j < top_k; ++j)
    none *= std::max(0.0, static_cast<double>(experts - held - j) / static_cast<double>(experts - j));
  return 1 - none;
}

}  // namespace

Dispatcher::Dispatcher(Axis ep, int64_t experts, std::shared_ptr<ExchangeMeter> meter, std::string label,
                       double planned_load)
    : ep_(std::move(ep)),
      experts_(experts),
      begin_(first_expert(experts, ep_.size(), ep_.rank())),
      end_(first_expert(experts, ep_.size(), ep_.rank() + 1)),
      slots_(first_slots(experts)),
      meter_(std::move(meter)),
      label_(std::move(label)),
      planned_load_(planned_load) {}

ExpertHomes Dispatcher::homes(Device device, const std::vector<int64_t>& borrowed) const {
  const bool known = homes_.rank.defined() && homes_.rank.device() == device;
  if (borrowed.empty() && known) return homes_;
  std::vector<int32_t> rank(experts_), local(experts_);
  for (int r = 0; r < ep_.size(); ++r) {
    const int64_t first = first_expert(experts_, ep_.size(), r);
    for (int64_t s = first; s < first_expert(experts_, ep_.size(), r + 1); ++s) {
      rank[slots_[s]] = r;
      local[slots_[s]] = static_cast<int32_t>(s - first);
    }
  }
  for (size_t i = 0; i < borrowed.size(); ++i) {
    rank[slots_[borrowed[i]]] = ep_.rank();
    local[slots_[borrowed[i]]] = static_cast<int32_t>(local_experts() + static_cast<int64_t>(i));
  }
  const ExpertHomes homes{Tensor::from(rank, {experts_}, device), Tensor::from(local, {experts_}, device),
                          ep_.size()};
  if (borrowed.empty()) homes_ = homes;
  return homes;
}

void Dispatcher::place(Slots slots) {
  CHECK(std::ssize(slots) == experts_ && is_permutation(slots), label_, ": ", slots.size(), " slots for ",
        experts_, " experts");
  // Nothing travels there, and dispatch() sorts by the expert's number alone.
  CHECK(ep_.size() > 1 || slots == first_slots(experts_), label_,
        ": one rank keeps every expert in its slot");
  slots_ = std::move(slots);
  homes_ = {};
}

int64_t Dispatcher::to_others(const Counts& send) const { return total(send) - send[ep_.rank()]; }

// own_rows: of this rank's tokens, on either side of the exchange.
Tensor Dispatcher::move(const Tensor& x, const Counts& send, const Counts& recv, int64_t own_rows) const {
  const ExchangeTimer timer(*meter_);
  const CommLabel scope(label_ + " exchange");
  meter_->bytes += own_rows * x.cols() * size_of(x.dtype());
  return exchange_rows(x, send, recv, ep_.device);
}

Var Dispatcher::exchange(const Var& x, const Counts& send, const Counts& recv, int64_t own_rows) const {
  return record(
      "exchange", move(x.value(), send, recv, own_rows), {x},
      [=, self = *this](const Tensor& dy) -> Tensors { return {self.move(dy, recv, send, own_rows)}; });
}

// Before the host waits for the device.
void Dispatcher::meet() const {
  const ExchangeTimer timer(*meter_);
  const CommLabel scope(label_ + " counts");
  ep_.meet();
}

// The counts of all ranks' tokens decide, so that all ranks decide alike.
Lending Dispatcher::choose_shadows(const Tensor& expert, const SortedPairs& pairs) const {
  if (shadow_pairs_ == 0) return {};
  const int ranks = ep_.size();
  meter_->bytes += 2 * (ranks - 1) * experts_ * static_cast<int64_t>(sizeof(int64_t));
  if (expert.device() == Device::kMeta) return {assume_shadows(expert), experts_, ep_, meter_, label_};
  meet();
  const auto own = pairs.counts.to_vector<int64_t>();
  std::vector<int64_t> all(ranks * experts_);
  {
    const ExchangeTimer timer(*meter_);
    const CommLabel scope(label_ + " counts");
    ep_.host->all_gather(own.data(), all.data(), experts_, DType::kI64);
  }
  return {switchyard::choose_shadows(slots_, all, ranks, shadow_pairs_), experts_, ep_, meter_, label_};
}

// A plan's: this rank takes as many as it may, if its tokens are enough for one, and the loads can be uneven.
Shadows Dispatcher::assume_shadows(const Tensor& expert) const {
  if (planned_load_ <= 1 || expert.dim(0) < shadow_pairs_) return {};
  Shadows shadows;
  for (int64_t s = 0; s < experts_ && std::ssize(shadows) < most_shadows(local_experts()); ++s)
    if (rank_of(s, experts_, ep_.size()) != ep_.rank()) shadows.push_back({s, ep_.rank()});
  return shadows;
}

int64_t Dispatcher::exchange_counts(const Tensor& expert, const SortedPairs& pairs, const ExpertHomes& where,
                                    Dispatched& d) const {
  const int ranks = ep_.size();
  d.send.assign(ranks, 0);
  d.recv.assign(ranks, 0);
  meter_->bytes += 2 * (ranks - 1) * static_cast<int64_t>(sizeof(int64_t));
  if (expert.device() == Device::kMeta) return assume_counts(expert, d);
  const Tensor device_totals = totals_of_ranks(d.by_rank, pairs, where);
  meet();
  const auto totals = device_totals.to_vector<int64_t>();
  struct Total {
    int64_t rows, pairs;
  };
  std::vector<Total> out(ranks), in(ranks);
  for (int r = 0; r < ranks; ++r) out[r] = {totals[r], totals[ranks + r]};
  {
    const ExchangeTimer timer(*meter_);
    const CommLabel scope(label_ + " counts");
    const Counts two(ranks, 2);
    ep_.host->all_to_all(out.data(), two, in.data(), two, DType::kI64);
  }
  int64_t arriving = 0;
  for (int r = 0; r < ranks; ++r) {
    d.send[r] = out[r].rows;
    d.recv[r] = in[r].rows;
    arriving += in[r].pairs;
  }
  return arriving;
}

// A plan's: choices drawn evenly, and `planned_load_` times as many of them here.
int64_t Dispatcher::assume_counts(const Tensor& expert, Dispatched& d) const {
  const int ranks = ep_.size();
  const auto tokens = static_cast<double>(expert.dim(0));
  for (int r = 0; r < ranks; ++r) {
    const int64_t held = first_expert(experts_, ranks, r + 1) - first_expert(experts_, ranks, r);
    d.send[r] = std::llround(tokens * chance_of_any(experts_, held, expert.cols()));
  }
  const double share = static_cast<double>(local_experts()) / static_cast<double>(experts_);
  const auto rows = static_cast<double>(d.send[ep_.rank()]);
  d.recv.assign(ranks, std::llround(std::min(tokens, std::ceil(rows * planned_load_))));
  return std::llround(std::ceil(static_cast<double>(expert.numel() * ranks) * share * planned_load_));
}

void Dispatcher::gather_rows(const Var& x, int64_t rows, Dispatched& d) const {
  d.rows = permute(x, d.pairs, rows);
  if (x.device() == Device::kCpu)
    d.groups = make_groups(d.pairs.counts.to_vector<int64_t>(), x.device());
  else
    d.groups = {d.pairs.offsets, nullptr};  // they stay on the device: no host sync
}

Dispatched Dispatcher::dispatch(const Var& x, const Var& weight, const Tensor& expert,
                                const SortedPairs& pairs) const {
  Dispatched d;
  if (ep_.size() == 1) {
    d.pairs = pairs;
    d.weight = weight;
    // On a GPU the number of kept pairs is not known here without a host sync: room for all.
    gather_rows(x, x.device() == Device::kCpu ? total(pairs.counts.to_vector<int64_t>()) : expert.numel(), d);
    return d;
  }
  d.lending = choose_shadows(expert, pairs);
  const std::vector<int64_t>& borrowed = d.lending.borrowed();
  const ExpertHomes where = homes(x.device(), borrowed);
  d.by_rank = sort_by_rank(expert, where);
  const int64_t arriving = exchange_counts(expert, pairs, where, d);
  const int64_t rows = total(d.send), own = to_others(d.send);
  d.pairs = sort_by_expert(move(choices_of_rows(expert, d.by_rank, where, rows), d.send, d.recv, own),
                           local_experts() + std::ssize(borrowed));
  d.weight = exchange(permute(weight, d.by_rank, rows), d.send, d.recv, own);
  gather_rows(exchange(permute(x, d.by_rank, rows), d.send, d.recv, own), arriving, d);
  return d;
}

Var Dispatcher::collect(const Var& y, const Dispatched& d) const {
  const Var sums = combine(y, d.weight, d.pairs);
  if (ep_.size() == 1) return sums;
  return unpermute(exchange(sums, d.recv, d.send, to_others(d.send)), d.by_rank);
}

}  // namespace switchyard
