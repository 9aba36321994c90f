#include "benchmarks/train_step/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

namespace switchyard::bench {

namespace {

class HostClock : public Clock {
 public:
  void mark() override { marks_.push_back(std::chrono::steady_clock::now()); }
  std::vector<double> intervals() override {
    std::vector<double> seconds;
    for (size_t i = 1; i < marks_.size(); ++i) {
      seconds.push_back(std::chrono::duration<double>(marks_[i] - marks_[i - 1]).count());
    }
    return seconds;
  }

 private:
  std::vector<std::chrono::steady_clock::time_point> marks_;
};

}  // namespace

std::unique_ptr<Clock> host_clock() { return std::make_unique<HostClock>(); }

void Profile::start() {
  clock_->mark();
  observer_ = [this](const char* name, bool backward) {
    clock_->mark();
    names_.push_back(std::string(name) + (backward ? " backward" : ""));
  };
  set_op_observer(&observer_);
}

void Profile::stop(const std::string& rest) {
  set_op_observer(nullptr);
  clock_->mark();
  names_.push_back(rest);
  names_.emplace_back();  // until the next start()
}

std::string Profile::table(int steps) {
  struct Row {
    double seconds = 0;
    int calls = 0;
  };
  std::map<std::string, Row> rows;
  double total = 0;
  const std::vector<double> seconds = clock_->intervals();
  for (size_t i = 0; i < seconds.size(); ++i) {
    if (names_[i].empty()) continue;
    Row& row = rows[names_[i]];
    row.seconds += seconds[i];
    ++row.calls;
    total += seconds[i];
  }
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::string text = fmt::format("  {:<34}{:>8}{:>12}{:>8}\n", "op", "calls", "ms a step", "share");
  for (const auto& [name, row] : sorted) {
    text += fmt::format("  {:<34}{:>8}{:>12.3f}{:>7.1f}%\n", name, row.calls / steps,
                        row.seconds * 1e3 / steps, 100 * row.seconds / total);
  }
  return text;
}

}  // namespace switchyard::bench
