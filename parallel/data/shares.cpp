#include "parallel/data/shares.h"

#include "core/ops.h"
#include "parallel/collectives.h"

namespace switchyard {

namespace {

using Kind = ParameterStore::Kind;

// Masters, moments, or undefined where the values are all there is.
const Tensor& state_of(const Segment& s, Kind kind) {
  return kind == Kind::kM ? s.m : kind == Kind::kV ? s.v : s.master;
}

Share share_of(const Axis& axis) { return {axis.rank(), axis.size()}; }

}  // namespace

const Axis& holders_of(Placement placement, const Mesh& mesh) {
  return placement == Placement::kExpert ? mesh.edp : mesh.world;
}

SegmentOptions segment_options(const Mesh& mesh, DType moments) {
  return {.replicated = share_of(mesh.world), .experts = share_of(mesh.edp), .moments = moments};
}

int64_t gather_values(const ParameterStore& store, const Mesh& mesh) {
  const CommLabel label("updated parameters");
  int64_t bytes = 0;
  for (const Segment& s : store.segments_before_late_updates()) {
    if (s.share.ranks == 1) continue;
    all_gather_in_place(s.value, holders_of(s.placement, mesh).device);
    bytes += s.value.bytes();
  }
  mesh.world.meet();
  return bytes;
}

std::vector<Tensor> gather_state(const ParameterStore& store, Kind kind, const Mesh& mesh) {
  CHECK(store.trainable(), "there is no state to gather");
  const CommLabel label("optimizer state");
  std::vector<Tensor> runs;
  for (const Segment& s : store.segments()) {
    const Tensor& state = state_of(s, kind);
    if (!state.defined()) {
      runs.push_back(s.value);
    } else if (s.share.ranks == 1) {
      runs.push_back(state);
    } else {
      // As wide as gradients, element over element: between parameters both are zero, and stay so.
      s.part(s.grad).copy_from(cast(Var(state), s.grad.dtype()).value());
      all_gather_in_place(s.grad, holders_of(s.placement, mesh).device);
      runs.push_back(s.grad);
    }
  }
  mesh.world.meet();
  return runs;
}

}  // namespace switchyard
