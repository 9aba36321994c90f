#include "parallel/data/reducer.h"

#include <algorithm>

#include "parallel/collectives.h"
#include "parallel/data/shares.h"

namespace switchyard {

GradientReducer::GradientReducer(ParameterStore& store, const Mesh& mesh) : store_(store) {
  std::vector<const Segment*> order;
  for (const Segment& s : store.segments()) {
    CHECK(s.share.ranks == holders_of(s.placement, mesh).size(), "segments are laid out for other ranks");
    if (s.share.ranks > 1) order.push_back(&s);
  }
  std::sort(order.begin(), order.end(),
            [](const Segment* a, const Segment* b) { return a->parameters.front() > b->parameters.front(); });
  for (const Segment* s : order) {
    for (const int i : s->parameters)
      store.parameters()[i].var.set_hook([this, mine = reductions_.size()] { ready(mine); });
    reductions_.push_back(
        {s->grad, holders_of(s->placement, mesh).device, static_cast<int>(s->parameters.size())});
    bytes_ += s->grad.bytes();
  }
}

GradientReducer::~GradientReducer() {
  for (const Parameter& p : store_.parameters()) p.var.set_hook({});
}

void GradientReducer::arm() {
  armed_ = true;
  next_ = 0;
  for (Reduction& r : reductions_) r.missing = r.parameters;
}

void GradientReducer::ready(size_t reduction) {
  if (!armed_) return;
  --reductions_[reduction].missing;
  while (next_ < reductions_.size() && reductions_[next_].missing == 0) reduce_next();
}

void GradientReducer::finish() {
  store_.settle_grads();
  while (next_ < reductions_.size()) reduce_next();
  armed_ = false;
}

void GradientReducer::reduce_next() {
  const CommLabel label("gradients " + std::to_string(next_));
  const Reduction& r = reductions_[next_++];
  reduce_scatter_in_place(r.grad, r.group);
}

}  // namespace switchyard
