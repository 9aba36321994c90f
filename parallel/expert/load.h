// What every MoE layer saw in a step: assignments and drops per expert, entropy of the router, auxiliary
// losses. Summed on the device and read in one go when the step ends.
#pragma once

#include <vector>

#include "core/ops.h"
#include "parallel/mesh.h"

namespace switchyard {

// Sums over a step's micro-batches (after reduce(): over all ranks as well).
struct LayerLoad {
  int64_t layer = 0;
  std::vector<int64_t> assigned, kept;  // pairs per expert, before and after drops
  double entropy_sum = 0;               // nats, over tokens
  int64_t tokens = 0;
  double aux_loss = 0, z_loss = 0;  // with their coefficients
  double rank_overload = 0;         // (fullest - mean) / mean of the pairs that the ranks of an ep group have

  LayerLoad& operator+=(const LayerLoad& other);  // of the same layer

  int64_t pairs() const;
  double max_violation() const;   // (max - mean) / mean of `assigned`
  double drop_rate() const;       // dropped / assigned
  double router_entropy() const;  // mean over tokens
  int64_t dead_experts() const;   // with no assignment in the step
};

class LoadRecorder {
 public:
  struct Sample {
    Tensor assigned, kept;  // [experts] I64
    Tensor entropy;         // [tokens] in Acc
    Tensor aux, z;          // [1] in Acc, or undefined
  };
  // Nothing happens inside a recompute(). What a layer adds to stands where it stood at the layer's first
  // time, so that work which is recorded (core/device/recording.h) may add as well.
  void add(int64_t layer, const Sample& sample);

  // This rank's sums, in order of layers; they begin again at zero.
  std::vector<LayerLoad> take();

 private:
  struct Entry {
    int64_t layer, experts;
    Tensor sums;  // F64: assigned [experts], kept [experts], tokens, entropy, aux, z
  };
  Entry& entry_of(int64_t layer, int64_t experts, Device device);

  std::vector<Entry> entries_;
  Tensor workspace_;  // F64, of the sums
};

// Sums over the ranks.
void reduce(std::vector<LayerLoad>& loads, const Group& world);

}  // namespace switchyard
