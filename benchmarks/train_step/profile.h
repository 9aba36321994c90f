// Where the time of a step goes: a mark on the device's time line after each op; the time since the last mark
// is that op's. Gaps in which the device waits for the host are part of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/op_observer.h"

namespace switchyard::bench {

// A point in time of the executor that runs the ops.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual void mark() = 0;
  // Seconds between neighbouring marks; waits for the device.
  virtual std::vector<double> intervals() = 0;
};
std::unique_ptr<Clock> host_clock();
std::unique_ptr<Clock> cuda_clock();  // events on the calling thread's stream; null without CUDA

// Observes the calling thread's ops from start() to stop().
class Profile {
 public:
  explicit Profile(std::unique_ptr<Clock> clock) : clock_(std::move(clock)) {}
  ~Profile() { set_op_observer(nullptr); }
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  void start();
  void stop(const std::string& rest);  // `rest`: what to call the time after the last op

  // Lines "op  calls  milliseconds  share", slowest first, for one of `steps`.
  std::string table(int steps);

 private:
  std::unique_ptr<Clock> clock_;
  std::vector<std::string> names_;  // of the intervals; empty: between stop() and start()
  OpObserver observer_;
};

}  // namespace switchyard::bench
