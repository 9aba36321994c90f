// Data parallelism as a gradient hook and a reducer (flashlight's shape): autograd knows nothing of ranks.
//
// Every reduction is a plain sum, since the objective is the sum of the ranks' losses: replicated parameters
// over the world, expert parameters over their expert-data-parallel group (the dispatch's backward has summed
// over EP). A rank gets the sums of its part of every segment, which it updates; what then lies in the rest
// of the gradients means nothing.
#pragma once

#include "core/nn/parameters.h"
#include "parallel/mesh.h"

namespace switchyard {

class GradientReducer {
 public:
  // Segments are reduced in the order in which the backward pass is done with them: the one that begins last
  // is the first.
  GradientReducer(ParameterStore& store, const Mesh& mesh);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Before the backward pass of the last micro-batch: from here on a segment is reduced as soon as it and all
  // before it are ready. That is when its first parameter is: at one place of the pass on all ranks of its
  // group, even where ranks hold different numbers of experts and cut their segments elsewhere. After that
  // pass, if no host code runs in it (a Recording): finish() then reduces all.
  void arm();
  // After that pass: reduces what is left.
  void finish();

  int64_t bytes_per_step() const { return bytes_; }  // handed to reduce_scatter by this rank

 private:
  struct Reduction {
    Tensor grad;  // a segment's
    Group group;
    int parameters;   // in it
    int missing = 0;  // not ready yet
  };
  void ready(size_t reduction);
  void reduce_next();

  ParameterStore& store_;
  std::vector<Reduction> reductions_;
  size_t next_ = 0;  // the first that is not reduced
  bool armed_ = false;
  int64_t bytes_ = 0;
};

}  // namespace switchyard
