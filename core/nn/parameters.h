// The parameters of a model, their logical names, and the flat storage that holds them.
//
// A Parameter is what a layer computes with, and may fuse several logical tensors: the query, key and value
// projections in one matrix, this rank's experts in one [experts, 2 m, d]. A Piece is one logical tensor
// under its global name, as it stands in checkpoints. Layers register parameters, then materialize() gives
// all of them storage: per (placement, decay, dtype) flat runs of values, gradients, masters and moments, so
// that the optimizer, the gradient norm and the reduction work on few long runs.
//
// Ranks that hold copies of the same parameters share the optimizer's work (ZeRO stage 1, Rajbhandari et al.,
// arXiv 1910.02054): each has masters and moments of an equal part of every run, and updates that part.
#pragma once

#include <span>
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

// This rank's place among the ranks that hold copies of the same parameters.
struct Share {
  int rank = 0, ranks = 1;
};

// A flat run of parameters of one kind; `ranks` of its share divides n.
struct Segment {
  Placement placement;
  bool decay;
  DType dtype;
  Share share;
  std::vector<int> parameters{};  // indices, in order of registration
  Tensor value{};                 // [n] dtype
  Tensor grad{};                  // [n] Acc
  Tensor master{};                // [n / ranks] Acc; undefined where dtype is Acc
  Tensor m{}, v{};                // [n / ranks] SegmentOptions::moments, or Acc of float64

  int64_t part_begin() const { return value.numel() / share.ranks * share.rank; }
  // This rank's part of `value` or `grad`.
  Tensor part(const Tensor& run) const { return run.slice(part_begin(), {run.numel() / share.ranks}); }
};

// How parameters are laid out in segments.
struct SegmentOptions {
  Share replicated, experts;
  // A segment has at most so many elements, unless it is one parameter: what is reduced at a time (32 MiB of
  // float32).
  int64_t max_elements = int64_t{8} << 20;
  DType moments = DType::kF32;  // float64 parameters keep float64
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
  void materialize(Device device, uint64_t seed, bool trainable, bool initialize = true,
                   const SegmentOptions& options = {});

  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  Parameter& parameter(const std::string& name);
  struct Buffer {
    std::string name;
    Shape shape;
    Var var;
  };
  const std::vector<Buffer>& buffers() const { return buffers_; }
  // Their values, masters and moments are those after the last update, until the next one: who keeps a
  // segment asks again.
  std::vector<Segment>& segments();
  const std::vector<Segment>& segments() const;
  // The same but for updates that wait (Var::update_later).
  const std::vector<Segment>& segments_before_late_updates() const { return segments_; }
  Device device() const { return device_; }
  bool trainable() const { return trainable_; }
  void forget_grads();  // after an update: the next backward pass replaces them
  void settle_grads();  // before they are read: those that no pass has reached become zero
  void keep_grads();    // where a Recording has replaced them

  // What is kept of every parameter; the value is the master's, where there are masters.
  enum class Kind : uint8_t { kValue, kM, kV };
  // Sets a logical tensor from float32 host values, or what is in this rank's part of it.
  void write(const Parameter& parameter, const Piece& piece, Kind kind, std::span<const float> values);

 private:
  void finish_updates() const;
  void assign_segments(const SegmentOptions& options);
  void allocate(Segment& segment, DType moments) const;
  void initialize(uint64_t seed);

  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  std::vector<Segment> segments_;
  Device device_ = Device::kCpu;
  bool trainable_ = false;
};

// A logical tensor as float32 host values, from a whole run [n] of its segment.
std::vector<float> read_piece(const Tensor& run, const Parameter& parameter, const Piece& piece);

}  // namespace switchyard
