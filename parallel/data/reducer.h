// Data parallelism as a gradient hook and a reducer (flashlight's shape): autograd knows nothing of ranks.
//
// Every reduction is a plain sum, since the objective is the sum of the ranks' losses: replicated parameters
// over the world, expert parameters over their expert-data-parallel group (the dispatch's backward has summed
// over EP).
#pragma once

#include "core/nn/parameters.h"
#include "parallel/mesh.h"

namespace switchyard {

class GradientReducer {
 public:
  // Cuts the flat gradients into buckets of about `bucket_bytes`, last parameters first: their gradients are
  // ready first.
  GradientReducer(ParameterStore& store, const Mesh& mesh, int64_t bucket_bytes = int64_t{32} << 20);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Before the backward pass of the last micro-batch: from here on a bucket is reduced as soon as it and all
  // buckets before it are ready, so that every rank issues the same order. After that pass, if no host code
  // runs in it (a Recording): finish() then reduces all.
  void arm();
  // After that pass: reduces what is left.
  void finish();

  int64_t bytes_per_step() const { return bytes_; }  // handed to all_reduce by this rank

 private:
  struct Bucket {
    Tensor grad;  // a run of a segment's gradients
    Group group;
    int parameters;   // in it
    int missing = 0;  // not ready yet
  };
  void add_buckets(const Segment& segment, const Group& group, int64_t bucket_bytes);
  void ready(int bucket);
  void reduce_next();

  ParameterStore& store_;
  std::vector<Bucket> buckets_;
  size_t next_ = 0;  // first bucket that is not reduced
  bool armed_ = false;
  int64_t bytes_ = 0;
};

}  // namespace switchyard
