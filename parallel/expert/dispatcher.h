// Moves tokens to their experts and back. dispatch() and collect() are each other's transpose, and so are
// their gradients.
//
// Pairs are sorted by global expert, hence by owning rank. With EP 1 the sorted rows are the experts' input.
// With more, counts are exchanged, then rows (all_to_all), and what arrived, by source rank and then by
// expert, is put in order of expert. A rank or an expert without tokens takes part in everything.
#pragma once

#include <memory>

#include "core/ops.h"
#include "parallel/collectives.h"
#include "parallel/mesh.h"

namespace switchyard {

// What a rank spent in exchanges. Bytes are those of the rank's own tokens' rows (wherever they went) and of
// the counts: they depend on the router only through drops.
struct ExchangeMeter {
  std::vector<double> seconds;  // of each exchange, waiting included; as many on every ep rank
  int64_t bytes = 0;
};

struct Dispatched {
  Var rows;           // [rows, d], grouped by local expert
  RowGroups groups;   // of the local experts
  SortedPairs pairs;  // this rank's
  // EP > 1 only:
  Counts send, recv;      // rows to and from each ep rank
  Tensor order, inverse;  // arrival -> expert order, and back (I32)
};

class Dispatcher {
 public:
  // `label` names the layer in messages about a peer that hangs. `planned_load`: rows that reach a rank,
  // relative to an even load, which a plan on the meta device reckons with.
  Dispatcher(Axis ep, int64_t experts, std::shared_ptr<ExchangeMeter> meter, std::string label,
             double planned_load = 1);

  int64_t local_experts() const { return end_ - begin_; }
  int64_t first_local_expert() const { return begin_; }

  // x [tokens, d], pairs over all experts of this rank's tokens.
  Dispatched dispatch(const Var& x, const SortedPairs& pairs) const;
  // y: the experts' output in the order of Dispatched::rows. Result [tokens, d]: the weighted sum of each
  // token's rows.
  Var collect(const Var& y, const Var& weight, const Dispatched& d) const;

 private:
  std::vector<int64_t> host_counts(const SortedPairs& pairs) const;
  Var exchange(const Var& x, const Counts& send, const Counts& recv, int64_t own_rows) const;
  void exchange_counts(const std::vector<int64_t>& counts, Dispatched& d) const;

  Axis ep_;
  int64_t experts_, begin_, end_;
  std::shared_ptr<ExchangeMeter> meter_;
  std::string label_;
  double planned_load_;
};

}  // namespace switchyard
