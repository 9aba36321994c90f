// What a rank spends in exchanges with the others of its ep group.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace switchyard {

struct ExchangeMeter {
  std::vector<double> seconds;  // of each exchange, waiting included; as many on every ep rank
  int64_t bytes = 0;            // to other ranks, for this rank's own tokens, and of what comes back
  int64_t shadows = 0;          // copies of experts that were here (parallel/expert/shadows.h)
  int64_t shadow_bytes = 0;     // of these copies and their gradients
};

// Notes the time from its construction to its end.
class ExchangeTimer {
 public:
  explicit ExchangeTimer(ExchangeMeter& meter) : meter_(meter) {}
  ~ExchangeTimer() {
    const auto taken = std::chrono::steady_clock::now() - begin_;
    meter_.seconds.push_back(std::chrono::duration<double>(taken).count());
  }
  ExchangeTimer(const ExchangeTimer&) = delete;
  ExchangeTimer& operator=(const ExchangeTimer&) = delete;

 private:
  ExchangeMeter& meter_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace switchyard
