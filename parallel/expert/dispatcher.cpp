#include "parallel/expert/dispatcher.h"

#include <chrono>
#include <cmath>
#include <numeric>

#include "core/launch.h"

namespace switchyard {

namespace {

class Stopwatch {
 public:
  explicit Stopwatch(ExchangeMeter& meter) : meter_(meter) {}
  ~Stopwatch() {
    const auto taken = std::chrono::steady_clock::now() - begin_;
    meter_.seconds.push_back(std::chrono::duration<double>(taken).count());
  }

 private:
  ExchangeMeter& meter_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

RowGroups make_groups(const std::vector<int64_t>& counts, Device device) {
  auto offsets = std::make_shared<std::vector<int64_t>>(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets->begin() + 1);
  return {Tensor::from(*offsets, {static_cast<int64_t>(offsets->size())}, device), offsets};
}

// Arrival order is [source rank][local expert]; expert order is [local expert][source rank]. received[s][e]:
// rows.
void expert_order(const std::vector<int64_t>& received, int64_t experts, int ranks, Device device,
                  Dispatched& d) {
  std::vector<int32_t> begin(received.size());
  std::exclusive_scan(received.begin(), received.end(), begin.begin(), 0);
  std::vector<int32_t> order, inverse(total(received));
  order.reserve(inverse.size());
  for (int64_t e = 0; e < experts; ++e) {
    for (int s = 0; s < ranks; ++s) {
      const int64_t block = s * experts + e;
      for (int64_t i = 0; i < received[block]; ++i) order.push_back(begin[block] + static_cast<int32_t>(i));
    }
  }
  for (size_t i = 0; i < order.size(); ++i) inverse[order[i]] = static_cast<int32_t>(i);
  const Shape shape{static_cast<int64_t>(order.size())};
  d.order = Tensor::from(order, shape, device);
  d.inverse = Tensor::from(inverse, shape, device);
}

}  // namespace

Dispatcher::Dispatcher(Axis ep, int64_t experts, std::shared_ptr<ExchangeMeter> meter, std::string label,
                       double planned_load)
    : ep_(std::move(ep)),
      experts_(experts),
      begin_(first_expert(experts, ep_.size(), ep_.rank())),
      end_(first_expert(experts, ep_.size(), ep_.rank() + 1)),
      meter_(std::move(meter)),
      label_(std::move(label)),
      planned_load_(planned_load) {}

std::vector<int64_t> Dispatcher::host_counts(const SortedPairs& pairs) const {
  if (pairs.counts.device() != Device::kMeta) return pairs.counts.to_vector<int64_t>();
  // A plan assumes an even load.
  std::vector<int64_t> counts(experts_);
  for (int64_t e = 0; e < experts_; ++e) {
    counts[e] = pairs.source.numel() * (e + 1) / experts_ - pairs.source.numel() * e / experts_;
  }
  return counts;
}

// own_rows: of this rank's tokens, on either side of the exchange.
Var Dispatcher::exchange(const Var& x, const Counts& send, const Counts& recv, int64_t own_rows) const {
  auto move = [ep = ep_, meter = meter_, label = label_, own_rows](const Tensor& t, const Counts& out,
                                                                   const Counts& in) {
    const Stopwatch watch(*meter);
    const CommLabel scope(label + " exchange");
    meter->bytes += own_rows * t.cols() * size_of(t.dtype());
    return exchange_rows(t, out, in, ep.device);
  };
  return record("exchange", move(x.value(), send, recv), {x},
                [=](const Tensor& dy) -> Tensors { return {move(dy, recv, send)}; });
}

void Dispatcher::exchange_counts(const std::vector<int64_t>& counts, Dispatched& d) const {
  const int ranks = ep_.size();
  const int64_t local = local_experts();
  std::vector<int64_t> received(ranks * local);
  Counts send_sizes(ranks), recv_sizes(ranks, local);
  d.send.assign(ranks, 0);
  d.recv.assign(ranks, 0);
  for (int r = 0; r < ranks; ++r) {
    const int64_t begin = first_expert(experts_, ranks, r), end = first_expert(experts_, ranks, r + 1);
    send_sizes[r] = end - begin;
    d.send[r] = std::accumulate(counts.begin() + begin, counts.begin() + end, int64_t{0});
  }
  if (d.rows.device() == Device::kMeta) {
    for (int64_t i = 0; i < ranks * local; ++i) {
      received[i] = std::llround(std::ceil(static_cast<double>(counts[begin_ + i % local]) * planned_load_));
    }
  } else {
    const Stopwatch watch(*meter_);
    const CommLabel scope(label_ + " counts");
    ep_.host->all_to_all(counts.data(), send_sizes, received.data(), recv_sizes, DType::kI64);
  }
  meter_->bytes += experts_ * static_cast<int64_t>(sizeof(int64_t));
  std::vector<int64_t> by_expert(local, 0);
  for (int64_t i = 0; i < ranks * local; ++i) {
    d.recv[i / local] += received[i];
    by_expert[i % local] += received[i];
  }
  d.groups = make_groups(by_expert, d.rows.device());
  expert_order(received, local, ranks, d.rows.device(), d);
}

Dispatched Dispatcher::dispatch(const Var& x, const SortedPairs& pairs) const {
  Dispatched d;
  d.pairs = pairs;
  const bool counts_at_hand = x.device() != Device::kCuda;
  if (ep_.size() == 1 && !counts_at_hand) {
    // The number of kept rows stays on the device: room for all, and no host sync.
    d.rows = permute(x, pairs, pairs.source.numel());
    d.groups = {pairs.offsets, nullptr};
    return d;
  }
  const std::vector<int64_t> counts = host_counts(pairs);
  d.rows = permute(x, pairs, total(counts));
  if (ep_.size() == 1) {
    d.groups = make_groups(counts, x.device());
    return d;
  }
  exchange_counts(counts, d);
  d.rows = reorder(exchange(d.rows, d.send, d.recv, total(d.send)), d.order, d.inverse);
  return d;
}

Var Dispatcher::collect(const Var& y, const Var& weight, const Dispatched& d) const {
  if (ep_.size() == 1) return combine(y, weight, d.pairs);
  const Var arrived = exchange(reorder(y, d.inverse, d.order), d.recv, d.send, total(d.send));
  return combine(arrived, weight, d.pairs);
}

}  // namespace switchyard
