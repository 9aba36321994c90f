#include "parallel/mesh.h"

namespace switchyard {

namespace {

Axis make_axis(Group host, bool nccl, const CommOptions& options) {
  Axis axis{host, host};
  if (nccl && host->size() > 1) axis.device = make_nccl(host, options);
  int64_t one = 1;
  host->all_reduce(&one, 1, DType::kI64);
  CHECK(one == host->size(), "group ", host->name(), ": ", one, " of ", host->size(), " ranks");
  return axis;
}

}  // namespace

Mesh make_mesh(const Group& world, int ep_degree, Device device, const CommOptions& options, bool nccl) {
  CHECK(ep_degree > 0 && world->size() % ep_degree == 0, "EP degree ", ep_degree, ", ", world->size(),
        " ranks");
  const int rank = world->rank();
  const Group ep = world->split(rank / ep_degree, rank, "ep");
  const Group edp = world->split(rank % ep_degree, rank, "edp");
  nccl = nccl && device == Device::kCuda;
  return {make_axis(world, nccl, options), make_axis(ep, nccl, options), make_axis(edp, nccl, options)};
}

}  // namespace switchyard
