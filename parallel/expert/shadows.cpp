#include "parallel/expert/shadows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "core/launch.h"
#include "kernels/elementwise.h"

namespace switchyard {

namespace {

// What every rank has to compute, and which copies there are.
class Ledger {
 public:
  Ledger(const Slots& slots, const std::vector<int64_t>& counts, int ranks)
      : slots_(slots), counts_(counts), load_(ranks), room_(ranks), copied_(counts.size()) {
    for (int r = 0; r < ranks; ++r) {
      room_[r] = most_shadows(end(r) - begin(r));
      for (int64_t s = begin(r); s < end(r); ++s)
        for (int from = 0; from < ranks; ++from) load_[r] += pairs(from, s);
    }
  }

  int fullest() const {
    return static_cast<int>(std::max_element(load_.begin(), load_.end()) - load_.begin());
  }
  int64_t load(int rank) const { return load_[rank]; }

  // The copy of an expert of `rank` that leaves the least in the fuller of the two ranks.
  struct Choice {
    Shadow shadow{-1, -1};
    int64_t fuller;
  };
  Choice best(int rank) const {
    Choice best{.fuller = load_[rank]};
    for (int host = 0; host < std::ssize(load_); ++host) {
      if (host == rank || room_[host] == 0) continue;
      for (int64_t s = begin(rank); s < end(rank); ++s) {
        if (copied_[index(host, s)]) continue;
        const int64_t fuller = std::max(load_[rank] - pairs(host, s), load_[host] + pairs(host, s));
        if (fuller < best.fuller) best = {{s, host}, fuller};
      }
    }
    return best;
  }

  void add(int rank, const Shadow& shadow) {
    copied_[index(shadow.host, shadow.slot)] = true;
    --room_[shadow.host];
    load_[rank] -= pairs(shadow.host, shadow.slot);
    load_[shadow.host] += pairs(shadow.host, shadow.slot);
  }

 private:
  int64_t begin(int rank) const {
    return first_expert(std::ssize(slots_), static_cast<int>(load_.size()), rank);
  }
  int64_t end(int rank) const { return begin(rank + 1); }
  size_t index(int from, int64_t slot) const { return from * slots_.size() + slots_[slot]; }
  int64_t pairs(int from, int64_t slot) const { return counts_[index(from, slot)]; }

  const Slots& slots_;
  const std::vector<int64_t>& counts_;
  std::vector<int64_t> load_, room_;  // [ranks]
  std::vector<bool> copied_;          // [ranks, experts]
};

}  // namespace

int64_t most_shadows(int64_t local_experts) { return std::max<int64_t>(1, local_experts / 4); }

// A copy takes as long as 100 pairs on a core that multiplies at 100 GF/s and whose ranks read each other's
// memory at 5 GB/s: 12 bytes a parameter travel or are added up, a pair is 6 operations a parameter. And what
// it spares has to be more than the messages of small experts are: 20 million multiply-adds, 0.4 ms forward
// and twice that backward.
int64_t shadow_pairs_that_pay(int64_t hidden, int64_t intermediate) {
  constexpr double kPairs = 100, kMultiplyAdds = 20e6;
  const double parameters = 3.0 * static_cast<double>(hidden) * static_cast<double>(intermediate);
  return static_cast<int64_t>(std::max(kPairs, std::ceil(kMultiplyAdds / parameters)));
}

Shadows choose_shadows(const Slots& slots, const std::vector<int64_t>& counts, int ranks, int64_t min_pairs) {
  Ledger ledger(slots, counts, ranks);
  Shadows shadows;
  for (;;) {
    const int rank = ledger.fullest();
    const Ledger::Choice choice = ledger.best(rank);
    if (choice.shadow.host < 0 || ledger.load(rank) - choice.fuller < min_pairs) break;
    ledger.add(rank, choice.shadow);
    shadows.push_back(choice.shadow);
  }
  std::sort(shadows.begin(), shadows.end(), [](const Shadow& a, const Shadow& b) {
    return std::tie(a.host, a.slot) < std::tie(b.host, b.slot);
  });
  return shadows;
}

Lending::Lending(const Shadows& shadows, int64_t experts, const Axis& ep,
                 std::shared_ptr<ExchangeMeter> meter, std::string label)
    : group_(ep.device),
      meter_(std::move(meter)),
      label_(std::move(label)),
      shadows_(std::ssize(shadows)),
      send_(ep.size(), 0),
      recv_(ep.size(), 0) {
  const int ranks = ep.size(), me = ep.rank();
  for (const Shadow& shadow : shadows) {
    const int owner = rank_of(shadow.slot, experts, ranks);
    if (owner == me) {
      lent_.push_back(shadow.slot - first_expert(experts, ranks, me));
      ++send_[shadow.host];
    }
    if (shadow.host == me) {
      borrowed_.push_back(shadow.slot);
      ++recv_[owner];
    }
  }
}

// Rows of a weight [local, ...] whose copies others take.
Tensor Lending::leaving(const Var& weight) const {
  const Tensor& own = weight.value_of_rows(lent_);
  if (lent_.size() == 1) return own.rows(lent_[0], 1);
  std::vector<int64_t> dims = own.shape().vector();
  dims[0] = std::ssize(lent_);
  const Tensor rows = Tensor::empty(Shape(dims), own.dtype(), own.device());
  for (size_t i = 0; i < lent_.size(); ++i)
    rows.rows(static_cast<int64_t>(i), 1).copy_from(own.rows(lent_[i], 1));
  return rows;
}

Tensor Lending::move(const Tensor& rows, const Counts& send, const Counts& recv) const {
  const ExchangeTimer timer(*meter_);
  const CommLabel scope(label_ + " shadows");
  return exchange_rows(rows, send, recv, group_);
}

// Adds what the copies of this rank's experts were found to have as gradient to that of `own`.
Tensor Lending::give_back(const Var& own, const Var& copies) const {
  const Tensor mine = borrowed_.empty()
                          ? Tensor::empty(copies.shape(), acc_of(copies.dtype()), copies.device())
                          : copies.grad();
  meter_->shadow_bytes += mine.bytes();
  const Tensor theirs = move(mine, recv_, send_);
  const Tensor sum = grad_target(own, true).tensor;
  for (size_t i = 0; i < lent_.size(); ++i) {
    const Tensor row = sum.rows(lent_[i], 1), part = theirs.rows(static_cast<int64_t>(i), 1);
    launch_wide(row, [&]<class A>(auto on) {
      A* const y = row.data<A>();
      kernels::run(on, kernels::Axpby<A>{.y = y, .a = y, .b = part.data<A>(), .n = row.numel()});
    });
  }
  return sum;
}

Var Lending::lend(const Var& rows, const std::vector<Vars*>& weights) const {
  if (!is_recomputing()) meter_->shadows += std::ssize(borrowed_);
  Vars inputs{rows}, copies;
  for (Vars* w : weights) {
    const Var own = w->at(0);
    inputs.push_back(own);
    copies.emplace_back(move(leaving(own), send_, recv_), needs_grad({own}));
    meter_->shadow_bytes += copies.back().value().bytes();
    if (!borrowed_.empty()) w->push_back(copies.back());
  }
  return record("lend", rows.value(), inputs, [self = *this, inputs, copies](const Tensor& dy) {
    Tensors grads{dy};
    for (size_t i = 0; i < copies.size(); ++i) {
      const Var& own = inputs[i + 1];
      grads.push_back(own.requires_grad() ? self.give_back(own, copies[i]) : Tensor());
    }
    return grads;
  });
}

}  // namespace switchyard
