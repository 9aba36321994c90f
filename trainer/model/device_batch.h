// A batch where the model computes. All of its integers lie in one tensor, so that one copy brings them, and
// the next batch can take the place of the last.
#pragma once

#include "core/token_ids.h"
#include "trainer/data/sampler.h"

namespace switchyard {

class DeviceBatch {
 public:
  // `vocab`: above every id.
  DeviceBatch(const Batch& batch, int64_t vocab, Device device);
  // Another batch of the same shape, at the same addresses, after what the calling thread has enqueued.
  void assign(const Batch& batch);

  TokenIds ids;
  Tensor targets;    // I32 [tokens]
  Tensor documents;  // the same, or undefined
  int64_t sequences, sequence_length;

 private:
  int64_t vocab_;
  Tensor all_;  // I32: the parts one after the other
};

}  // namespace switchyard
