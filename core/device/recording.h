// Work on the GPU that is recorded once and then enqueued again and again without its host code: a CUDA
// graph. Small models' kernels end sooner than a host can prepare the next ones.
#pragma once

#include <functional>
#include <memory>

#include "core/device/memory.h"

namespace switchyard {

class Recording {
 public:
  // Calls `work` and notes what it enqueues on the calling thread's stream, of which nothing is
  // executed. It must not wait for the device or bring it host data: a CHECK. What it allocates comes
  // from `memory`; several recordings may share one, since they follow each other on the stream and
  // leave nothing behind in it. What it reads or writes besides, and what it was told by value, has to
  // be as it was whenever it is replayed.
  Recording(PrivatePool& memory, const std::function<void()>& work);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  void replay() const;  // enqueues it on the calling thread's stream, the one it was recorded on

 private:
  struct Graph;
  std::unique_ptr<Graph> graph_;
};

}  // namespace switchyard
