// What a run shows in TensorBoard, in RUN/tb/: the figures of metrics.jsonl and eval.jsonl as scalars, the
// experts' loads as histograms and as a picture, samples and configuration as text. docs/file_formats.md
// lists the tags.
#pragma once

#include <optional>

#include "trainer/config.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/metrics/tensorboard/event_file.h"

namespace switchyard {

class TensorBoard {
 public:
  // Nothing is written before there is something to show. `last_step`: done before this start. Error{kUsage}
  // where `folder` is something else.
  TensorBoard(std::filesystem::path folder, const Config& config, int64_t last_step);

  // For a start without one: takes back what earlier starts have after `last_step`, if there is any.
  static void take_back(const std::filesystem::path& folder, int64_t last_step);

  void step(const StepMetrics& metrics);
  // The loads of a step, which take more room than its scalars.
  void loads(const StepMetrics& metrics);
  void evaluation(int64_t step, double loss, std::optional<double> bits_per_byte);
  void sample(int64_t step, const std::string& text);

 private:
  EventFile& file();  // opened at the first use

  std::filesystem::path folder_;
  const Config& config_;
  int64_t first_step_;
  std::optional<EventFile> file_;
};

}  // namespace switchyard
