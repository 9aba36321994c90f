#include "parallel/data/reducer.h"

#include <algorithm>

#include "parallel/collectives.h"

namespace switchyard {

GradientReducer::GradientReducer(ParameterStore& store, const Mesh& mesh, int64_t bucket_bytes)
    : store_(store) {
  for (auto s = store.segments().rbegin(); s != store.segments().rend(); ++s) {
    const Axis& axis = s->placement == Placement::kExpert ? mesh.edp : mesh.world;
    if (axis.size() > 1) add_buckets(*s, axis.device, bucket_bytes);
  }
}

GradientReducer::~GradientReducer() {
  for (const Parameter& p : store_.parameters()) p.var.set_hook({});
}

void GradientReducer::add_buckets(const Segment& segment, const Group& group, int64_t bucket_bytes) {
  const int64_t limit = bucket_bytes / size_of(segment.grad.dtype());
  int64_t end = segment.grad.numel();
  int members = 0;
  for (auto i = segment.parameters.rbegin(); i != segment.parameters.rend(); ++i) {
    const Parameter& p = store_.parameters()[*i];
    ++members;
    p.var.set_hook([this, bucket = static_cast<int>(buckets_.size())] { ready(bucket); });
    if (end - p.offset < limit && std::next(i) != segment.parameters.rend()) continue;
    buckets_.push_back({segment.grad.slice(p.offset, {end - p.offset}), group, members});
    bytes_ += buckets_.back().grad.bytes();
    end = p.offset;
    members = 0;
  }
}

void GradientReducer::arm() {
  armed_ = true;
  next_ = 0;
  for (Bucket& b : buckets_) b.missing = b.parameters;
}

void GradientReducer::ready(int bucket) {
  if (!armed_) return;
  --buckets_[bucket].missing;
  while (next_ < buckets_.size() && buckets_[next_].missing == 0) reduce_next();
}

void GradientReducer::finish() {
  store_.settle_grads();
  while (next_ < buckets_.size()) reduce_next();
  armed_ = false;
}

void GradientReducer::reduce_next() {
  const CommLabel label("gradient bucket " + std::to_string(next_));
  const Bucket& b = buckets_[next_++];
  all_reduce_in_place(b.grad, b.group);
}

}  // namespace switchyard
