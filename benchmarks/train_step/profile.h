// Where the time of a step goes: a mark on the device's time line after each op; the time since the last mark
// is that op's. Gaps in which the device waits for the host are part of it.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/train_step/work.h"
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

  struct Row {
    std::string op;
    double calls = 0, seconds = 0;  // of one step
  };
  // Slowest first, for one of `steps`.
  std::vector<Row> rows(int steps);

 private:
  std::unique_ptr<Clock> clock_;
  std::vector<std::string> names_;  // of the intervals; empty: between stop() and start()
  OpObserver observer_;
};

// Lines "op  calls  ms a step  share", and where the op's work is known its rate and share of the ceiling.
std::string profile_table(const std::vector<Profile::Row>& rows, const std::map<std::string, Work>& work,
                          const Ceilings& ceilings);
nlohmann::ordered_json profile_json(const std::vector<Profile::Row>& rows,
                                    const std::map<std::string, Work>& work, const Ceilings& ceilings);

}  // namespace switchyard::bench
