#include "core/nn/feed_forward.h"

namespace switchyard {

FeedForward::FeedForward(ParameterStore& store, const std::string& prefix, int64_t hidden,
                         int64_t intermediate, DType dtype, double stddev) {
  const int64_t d = hidden, m = intermediate;
  gate_up_ = store.add(
      {.name = prefix + "gate_up",
       .shape = {2 * m, d},
       .pieces = {{prefix + "gate_proj.weight", 0, {m, d}}, {prefix + "up_proj.weight", m * d, {m, d}}},
       .dtype = dtype,
       .stddev = stddev});
  down_ = store.add({.name = prefix + "down",
                     .shape = {d, m},
                     .pieces = {{prefix + "down_proj.weight", 0, {d, m}}},
                     .dtype = dtype,
                     .stddev = stddev});
}

}  // namespace switchyard
