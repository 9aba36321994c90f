// The ranks as a grid. W ranks, EP degree E: ep groups are E contiguous ranks (inside a node where it fits);
// expert-data-parallel (edp) groups are the ranks with equal ep rank. Every rank is data-parallel.
#pragma once

#include "core/device/device.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/make.h"

namespace switchyard {

// The same ranks twice: `host` moves host memory, `device` moves memory of the training device (NCCL, or the
// same object as `host`).
struct Axis {
  Group host, device;
  int rank() const { return host->rank(); }
  int size() const { return host->size(); }
  // All ranks, before the host waits for the device. Then what the device has to do needs nothing that a rank
  // has yet to enqueue, and a rank that never comes is noticed here, at the deadline.
  void meet() const {
    if (device->on_device()) host->barrier();
  }
};

struct Mesh {
  Axis world, ep, edp;
};

// All groups are made here, in one order, and each is tried once: a group made later, inside a step, is how
// jobs deadlock. `nccl`: CUDA memory moves by NCCL; without it (thread-ranks that share one GPU) it is staged
// through the host.
Mesh make_mesh(const Group& world, int ep_degree, Device device, const CommOptions& options = {},
               bool nccl = true);

// First global expert of an ep rank when `experts` are spread over `ep_size` ranks as evenly as they go.
inline int64_t first_expert(int64_t experts, int ep_size, int ep_rank) { return experts * ep_rank / ep_size; }

}  // namespace switchyard
