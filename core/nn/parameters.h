// The parameters of a model, their logical names, and the flat storage that holds them.
//
// A Parameter is what a layer computes with, and may fuse several logical tensors: the query, key and value
// projections in one matrix, this rank's experts in one [experts, 2 m, d]. A Piece is one logical tensor
// under its global name, as it stands in checkpoints. Layers register parameters, then materialize() gives
// all of them storage: per (placement, decay, dtype) one flat run of values, gradients, masters and moments,
// so that the optimizer, the gradient norm and the reduction work on few long runs.
#pragma once

#include <string>
#include <vector>

#include "core/autograd.h"

namespace switchyard {

// Who holds copies: all ranks, or the ranks with equal ep rank (the expert-data-parallel group).
enum class Placement : uint8_t { kReplicated, kExpert };

struct Piece {
  std::string name;    // global, as on disk: "model.layers.0.mlp.experts.5.gate_proj.weight"
  int64_t offset = 0;  // first element within the parameter
  Shape shape;         // as on disk
};

struct ParameterSpec {
  std::string name;  // of the whole, for messages
  Shape shape;
  std::vector<Piece> pieces;
  DType dtype = DType::kF32;
  Placement placement = Placement::kReplicated;
  bool decay = true;  // weight decay: two or more dimensions on disk
  double stddev = 0;  // of the initial normal distribution; 0: filled with `fill`
  double fill = 1;
};

struct Parameter {
  ParameterSpec spec;
  Var var;
  int segment = -1;    // of ParameterStore::segments()
  int64_t offset = 0;  // in the segment, elements
};

// A flat run of parameters of one kind.
struct Segment {
  Placement placement;
  bool decay;
  DType dtype;
  std::vector<int> parameters;  // indices, in order of registration
  Tensor value;                 // [n] dtype
  Tensor grad;                  // [n] Acc
  Tensor master;                // [n] Acc; undefined where dtype is Acc
  Tensor m, v;                  // [n] Acc
};

class ParameterStore {
 public:
  // The Var has no storage before materialize().
  Var add(ParameterSpec spec);

  // The weight of an RMSNorm: ones, no decay.
  Var add_norm(const std::string& name, int64_t size, DType dtype);
  // State that is saved but not trained (a selection bias): float32, filled with zeros.
  Var add_buffer(const std::string& name, Shape shape);

  // Storage on `device`; `trainable` adds gradients, masters and moments. Initial values are seeded by (seed,
  // piece name), so they depend neither on the layout nor on the order.
  void materialize(Device device, uint64_t seed, bool trainable, bool initialize = true);

  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  Parameter& parameter(const std::string& name);
  struct Buffer {
    std::string name;
    Shape shape;
    Var var;
  };
  const std::vector<Buffer>& buffers() const { return buffers_; }
  std::vector<Segment>& segments() { return segments_; }
  const std::vector<Segment>& segments() const { return segments_; }
  Device device() const { return device_; }
  bool trainable() const { return trainable_; }
  void forget_grads();  // after an update: the next backward pass replaces them
  void settle_grads();  // before they are read: those that no pass has reached become zero
  void keep_grads();    // where a Recording has replaced them

  // Logical tensors as float32 host values (the masters', where there are masters).
  enum class Kind : uint8_t { kValue, kM, kV };
  std::vector<float> read(const Parameter& parameter, const Piece& piece, Kind kind) const;
  void write(const Parameter& parameter, const Piece& piece, Kind kind, const std::vector<float>& values);

 private:
  void assign_segments();
  void initialize(uint64_t seed);

  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  std::vector<Segment> segments_;
  Device device_ = Device::kCpu;
  bool trainable_ = false;
};

}  // namespace switchyard
