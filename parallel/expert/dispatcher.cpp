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

const ExpertHomes& Dispatcher::homes(Device device) const {
  if (homes_.rank.defined() && homes_.rank.device() == device) return homes_;
  std::vector<int32_t> rank(experts_), local(experts_);
  for (int r = 0; r < ep_.size(); ++r) {
    const int64_t first = first_expert(experts_, ep_.size(), r);
    for (int64_t s = first; s < first_expert(experts_, ep_.size(), r + 1); ++s) {
      rank[slots_[s]] = r;
      local[slots_[s]] = static_cast<int32_t>(s - first);
    }
  }
  homes_ = {Tensor::from(rank, {experts_}, device), Tensor::from(local, {experts_}, device), ep_.size()};
  return homes_;
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
  const Stopwatch watch(*meter_);
  const CommLabel scope(label_ + " exchange");
  meter_->bytes += own_rows * x.cols() * size_of(x.dtype());
  return exchange_rows(x, send, recv, ep_.device);
}

Var Dispatcher::exchange(const Var& x, const Counts& send, const Counts& recv, int64_t own_rows) const {
  return record(
      "exchange", move(x.value(), send, recv, own_rows), {x},
      [=, self = *this](const Tensor& dy) -> Tensors { return {self.move(dy, recv, send, own_rows)}; });
}

int64_t Dispatcher::exchange_counts(const Tensor& expert, const SortedPairs& pairs, Dispatched& d) const {
  const int ranks = ep_.size();
  d.send.assign(ranks, 0);
  d.recv.assign(ranks, 0);
  meter_->bytes += 2 * (ranks - 1) * static_cast<int64_t>(sizeof(int64_t));
  if (expert.device() == Device::kMeta) return assume_counts(expert, d);
  const Tensor device_totals = totals_of_ranks(d.by_rank, pairs, homes(expert.device()));
  {
    const Stopwatch watch(*meter_);
    const CommLabel scope(label_ + " counts");
    ep_.meet();
  }
  const auto totals = device_totals.to_vector<int64_t>();
  struct Total {
    int64_t rows, pairs;
  };
  std::vector<Total> out(ranks), in(ranks);
  for (int r = 0; r < ranks; ++r) out[r] = {totals[r], totals[ranks + r]};
  {
    const Stopwatch watch(*meter_);
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
  const ExpertHomes& where = homes(x.device());
  d.by_rank = sort_by_rank(expert, where);
  const int64_t arriving = exchange_counts(expert, pairs, d);
  const int64_t rows = total(d.send), own = to_others(d.send);
  d.pairs = sort_by_expert(move(choices_of_rows(expert, d.by_rank, where, rows), d.send, d.recv, own),
                           local_experts());
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
