#include "parallel/expert/slots.h"

#include <algorithm>
#include <numeric>

#include "parallel/collectives.h"

namespace switchyard {

namespace {

// What stands on each rank, and how much that is.
class Ranks {
 public:
  Ranks(Slots& slots, const std::vector<int64_t>& load, int ranks)
      : slots_(slots), load_(load), total_(ranks) {
    for (int r = 0; r < ranks; ++r)
      for (int64_t s = begin(r); s < end(r); ++s) total_[r] += load[slots[s]];
  }

  int fullest() const {
    return static_cast<int>(std::max_element(total_.begin(), total_.end()) - total_.begin());
  }
  int64_t total(int rank) const { return total_[rank]; }

  // The swap that leaves the least in the fuller of the two ranks.
  struct Swap {
    int64_t here = -1, there = -1;  // slots
    int other = -1;
    int64_t fuller;
  };
  Swap best_swap(int rank) const {
    Swap best{.fuller = total_[rank]};
    for (int other = 0; other < static_cast<int>(total_.size()); ++other) {
      if (other == rank) continue;
      for (int64_t here = begin(rank); here < end(rank); ++here)
        for (int64_t there = begin(other); there < end(other); ++there) {
          const int64_t less = load_[slots_[here]] - load_[slots_[there]];
          const int64_t fuller = std::max(total_[rank] - less, total_[other] + less);
          if (fuller < best.fuller) best = {here, there, other, fuller};
        }
    }
    return best;
  }

  void apply(int rank, const Swap& swap) {
    const int64_t less = load_[slots_[swap.here]] - load_[slots_[swap.there]];
    std::swap(slots_[swap.here], slots_[swap.there]);
    total_[rank] -= less;
    total_[swap.other] += less;
  }

 private:
  int64_t begin(int rank) const {
    return first_expert(std::ssize(slots_), static_cast<int>(total_.size()), rank);
  }
  int64_t end(int rank) const { return begin(rank + 1); }

  Slots& slots_;
  const std::vector<int64_t>& load_;
  std::vector<int64_t> total_;
};

// [slots.size(), width]: whole rows, whoever holds them. What another holds is 0 here until the sum.
Tensor collect_rows(const SlotRows& rows, const std::vector<int64_t>& slots) {
  const Shape shape{std::ssize(slots), rows.width};
  const Tensor out = Tensor::zeros(shape, rows.held.dtype(), rows.held.device());
  for (size_t i = 0; i < slots.size(); ++i)
    copy_overlap(out.rows(static_cast<int64_t>(i), 1), slots[i] * rows.width, rows.held, rows.begin);
  if (rows.holders) all_reduce_in_place(out, rows.holders);
  return out;
}

}  // namespace

Slots first_slots(int64_t experts) {
  Slots slots(experts);
  std::iota(slots.begin(), slots.end(), 0);
  return slots;
}

int rank_of(int64_t slot, int64_t experts, int ranks) {
  int rank = 0;
  while (first_expert(experts, ranks, rank + 1) <= slot) ++rank;
  return rank;
}

bool is_permutation(const Slots& slots) {
  const Slots first = first_slots(std::ssize(slots));
  return std::is_permutation(slots.begin(), slots.end(), first.begin());
}

int64_t fullest_rank(const Slots& slots, const std::vector<int64_t>& load, int ranks) {
  Slots same = slots;
  const Ranks now(same, load, ranks);
  return now.total(now.fullest());
}

double rank_overload(const Slots& slots, const std::vector<int64_t>& load, int ranks) {
  const double mean =
      static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0})) / static_cast<double>(ranks);
  return mean == 0 ? 0 : static_cast<double>(fullest_rank(slots, load, ranks)) / mean - 1;
}

Slots balanced_slots(Slots slots, const std::vector<int64_t>& load, int ranks) {
  Ranks now(slots, load, ranks);
  const int64_t all = std::accumulate(load.begin(), load.end(), int64_t{0});
  for (size_t i = 0; i < slots.size(); ++i) {
    const int rank = now.fullest();
    const Ranks::Swap swap = now.best_swap(rank);
    if (swap.other < 0 || (now.total(rank) - swap.fuller) * 100 <= all / ranks) break;
    now.apply(rank, swap);
  }
  return slots;
}

void move_rows(const SlotRows& rows, const Slots& from, const Slots& to, const Axis& ep) {
  const int64_t experts = std::ssize(from);
  const int ranks = ep.size(), me = ep.rank();
  const int64_t first = first_expert(experts, ranks, me);
  std::vector<int64_t> old_slot(experts);
  for (int64_t s = 0; s < experts; ++s) old_slot[from[s]] = s;
  // In order of the new slots, which is also that of the ranks they are on.
  std::vector<int64_t> leaving;                       // my rows
  std::vector<std::vector<int64_t>> arriving(ranks);  // my rows again, by where they come from
  Counts send(ranks, 0), recv(ranks, 0);
  for (int64_t s = 0; s < experts; ++s) {
    const int64_t old = old_slot[to[s]];
    if (old == s) continue;
    const int source = rank_of(old, experts, ranks), target = rank_of(s, experts, ranks);
    if (source == me) {
      leaving.push_back(old - first);
      ++send[target];
    }
    if (target == me) {
      arriving[source].push_back(s - first);
      ++recv[source];
    }
  }
  const Tensor in = exchange_rows(collect_rows(rows, leaving), send, recv, ep.device);
  int64_t row = 0;
  for (const auto& slots : arriving)
    for (const int64_t slot : slots)
      copy_overlap(rows.held, rows.begin, in.rows(row++, 1), slot * rows.width);
}

}  // namespace switchyard
