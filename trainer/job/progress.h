// The progress line, for people: stdout and log.txt, rank 0 only.
#pragma once

#include <chrono>
#include <fstream>
#include <string>

#include "trainer/metrics/step_metrics.h"

namespace switchyard {

class Progress {
 public:
  Progress(const std::filesystem::path& log, int64_t first_step, int64_t last_step);

  void say(const std::string& line);  // as it is
  void step(const StepMetrics& metrics);

 private:
  std::string eta(int64_t step);

  std::ofstream log_;
  int64_t first_, last_;
  double seconds_ = 0;  // of the steps after the first, which warms up
  int64_t timed_ = 0;
};

// "1h02m", "3m07s", "12s"
std::string duration_text(double seconds);

}  // namespace switchyard
