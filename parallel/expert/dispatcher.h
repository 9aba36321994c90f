// Moves tokens to their experts and back. What dispatch() does to rows, collect() undoes; each is the other's
// transpose, and so are their gradients.
//
// With EP 1 a rank's tokens are sorted by expert, and the sorted rows are the experts' input. With more, a
// token first travels to each rank that holds any of its experts, once, together with its choices and
// weights; the rank then treats what arrived as if it were its own, and sends back one row for each, the
// weighted sum over its experts, which the token's rank adds up. With eight choices on two ranks that is a
// quarter of the rows that its choices would be. A rank or an expert without tokens takes part in everything.
#pragma once

#include <memory>

#include "core/ops.h"
#include "parallel/collectives.h"
#include "parallel/expert/exchange_meter.h"
#include "parallel/expert/shadows.h"
#include "parallel/expert/slots.h"
#include "parallel/mesh.h"

namespace switchyard {

struct Dispatched {
  Var rows;           // [rows, d], grouped by local expert; copies of others' come last
  RowGroups groups;   // of these experts
  SortedPairs pairs;  // of the tokens at hand (EP 1: this rank's own) and these experts
  Var weight;         // of these pairs
  // EP > 1 only:
  SortedPairs by_rank;  // where this rank's tokens went
  Counts send, recv;    // tokens to and from each ep rank
  Lending lending;      // the copies
};

class Dispatcher {
 public:
  // `label` names the layer in messages about a peer that hangs. `planned_load`: rows that reach a rank,
  // relative to an even load, which a plan on the meta device reckons with.
  Dispatcher(Axis ep, int64_t experts, std::shared_ptr<ExchangeMeter> meter, std::string label,
             double planned_load = 1);

  int64_t local_experts() const { return end_ - begin_; }
  int64_t expert(int64_t local) const { return slots_[begin_ + local]; }
  const Slots& slots() const { return slots_; }
  const Axis& axis() const { return ep_; }
  // From now on the experts stand so; their weights are for the caller to move.
  void place(Slots slots);
  // From how many pairs on that it spares the fullest rank an expert is copied (parallel/expert/shadows.h);
  // 0: none ever is.
  void set_shadow_pairs(int64_t pairs) { shadow_pairs_ = pairs; }

  // x [tokens, d]; expert and weight [tokens, top_k], -1 where a choice was dropped; `pairs`: the same,
  // sorted over all experts.
  Dispatched dispatch(const Var& x, const Var& weight, const Tensor& expert, const SortedPairs& pairs) const;
  // y: the experts' output in the order of Dispatched::rows. Result [tokens, d]: the weighted sum of each
  // token's rows.
  Var collect(const Var& y, const Dispatched& d) const;

 private:
  // Fills d.rows and d.groups from d.pairs and the tokens at hand. `rows`: how many pairs are kept.
  void gather_rows(const Var& x, int64_t rows, Dispatched& d) const;
  // Where this rank sends what is for an expert: where it stands, or here, where a copy of it is.
  ExpertHomes homes(Device device, const std::vector<int64_t>& borrowed) const;
  Lending choose_shadows(const Tensor& expert, const SortedPairs& pairs) const;
  Shadows assume_shadows(const Tensor& expert) const;
  // Fills send and recv; returns the pairs that will arrive.
  int64_t exchange_counts(const Tensor& expert, const SortedPairs& pairs, const ExpertHomes& where,
                          Dispatched& d) const;
  int64_t assume_counts(const Tensor& expert, Dispatched& d) const;
  void meet() const;
  Tensor move(const Tensor& x, const Counts& send, const Counts& recv, int64_t own_rows) const;
  Var exchange(const Var& x, const Counts& send, const Counts& recv, int64_t own_rows) const;
  int64_t to_others(const Counts& send) const;

  Axis ep_;
  int64_t experts_, begin_, end_;  // this rank's slots: [begin, end)
  Slots slots_;
  std::shared_ptr<ExchangeMeter> meter_;
  std::string label_;
  double planned_load_;
  int64_t shadow_pairs_ = 0;
  mutable ExpertHomes homes_;  // without copies, on the device of the tokens
};

}  // namespace switchyard
