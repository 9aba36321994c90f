#include "core/device/recording.h"

#include "core/device/cuda_api.h"

namespace switchyard {

namespace {

// Ends a recording whose work threw.
struct Open {
  bool done = false;
  Open() { cuda_api::begin_recording(); }
  ~Open() {
    if (!done) cuda_api::abandon_recording();
  }
  void* end() {
    done = true;
    return cuda_api::end_recording();
  }
};

}  // namespace

struct Recording::Graph {
  void* executable = nullptr;
  ~Graph() {
    if (executable != nullptr) cuda_api::release_graph(executable);
  }
};

Recording::Recording(PrivatePool& memory, const std::function<void()>& work)
    : graph_(std::make_unique<Graph>()) {
  const PrivatePool::Use use(memory);
  Open open;
  work();
  graph_->executable = open.end();
}

Recording::~Recording() = default;

void Recording::replay() const { cuda_api::replay(graph_->executable); }

}  // namespace switchyard
