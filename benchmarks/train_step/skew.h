// Routing that is not even, without training a router to it.
#pragma once

#include <cmath>
#include <vector>

#include "core/device/memory.h"
#include "core/nn/parameters.h"

namespace switchyard::bench {

// A selection bias that falls with the expert's index, in units of the mean score:
// roughly Zipf's law of loads.
inline void skew(const ParameterStore& store) {
  for (const ParameterStore::Buffer& buffer : store.buffers()) {
    std::vector<float> bias(buffer.shape.numel());
    for (size_t e = 0; e < bias.size(); ++e) {
      bias[e] = -0.4f * std::log(static_cast<float>(e + 1)) / static_cast<float>(bias.size());
    }
    upload(buffer.var.value().raw(), buffer.var.device(), bias.data(), buffer.var.value().bytes());
  }
}

}  // namespace switchyard::bench
