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

std::vector<Profile::Row> Profile::rows(int steps) {
  std::map<std::string, Row> by_name;
  const std::vector<double> seconds = clock_->intervals();
  for (size_t i = 0; i < seconds.size(); ++i) {
    if (names_[i].empty()) continue;
    Row& row = by_name[names_[i]];
    row.op = names_[i];
    row.seconds += seconds[i];
    ++row.calls;
  }
  std::vector<Row> sorted;
  for (const auto& [name, row] : by_name) sorted.push_back({name, row.calls / steps, row.seconds / steps});
  std::sort(sorted.begin(), sorted.end(), [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return sorted;
}

namespace {

struct Rate {
  double per_second = 0, share = 0;  // of the ceiling
  bool products = false;
};

// No rate: the work is unknown, or there is no ceiling.
Rate rate_of(const Profile::Row& row, const std::map<std::string, Work>& work, const Ceilings& ceilings) {
  const auto found = work.find(row.op);
  if (found == work.end() || ceilings.flops == 0) return {};
  const Work& w = found->second;
  if (w.flops > 0) return {w.flops / row.seconds, w.flops / row.seconds / ceilings.flops, true};
  return {w.bytes / row.seconds, w.bytes / row.seconds / ceilings.bytes, false};
}

double total_seconds(const std::vector<Profile::Row>& rows) {
  double total = 0;
  for (const Profile::Row& row : rows) total += row.seconds;
  return total;
}

}  // namespace

std::string profile_table(const std::vector<Profile::Row>& rows, const std::map<std::string, Work>& work,
                          const Ceilings& ceilings) {
  const double total = total_seconds(rows);
  std::string text = fmt::format("  {:<34}{:>8}{:>12}{:>8}{:>16}{:>11}\n", "op", "calls", "ms a step",
                                 "share", "rate", "of ceiling");
  for (const Profile::Row& row : rows) {
    text += fmt::format("  {:<34}{:>8.0f}{:>12.3f}{:>7.1f}%", row.op, row.calls, row.seconds * 1e3,
                        100 * row.seconds / total);
    const Rate rate = rate_of(row, work, ceilings);
    if (rate.per_second > 0) {
      text += fmt::format("{:>9.1f} {:<6}{:>10.0f}%", rate.per_second * 1e-9, rate.products ? "GF/s" : "GB/s",
                          100 * rate.share);
    }
    text += "\n";
  }
  return text;
}

nlohmann::ordered_json profile_json(const std::vector<Profile::Row>& rows,
                                    const std::map<std::string, Work>& work, const Ceilings& ceilings) {
  const double total = total_seconds(rows);
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Profile::Row& row : rows) {
    nlohmann::ordered_json line{
        {"op", row.op}, {"calls", row.calls}, {"seconds", row.seconds}, {"share", row.seconds / total}};
    const Rate rate = rate_of(row, work, ceilings);
    if (rate.per_second > 0) {
      line[rate.products ? "gflops" : "gbytes_per_second"] = rate.per_second * 1e-9;
      line["ceiling_share"] = rate.share;
    }
    list.push_back(std::move(line));
  }
  return list;
}

}  // namespace switchyard::bench
