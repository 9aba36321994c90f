// What a run's metrics.jsonl and eval.jsonl say, as series over steps. Scalars are kept step by step; the
// experts' loads, which are many times larger, as means over stretches of time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace switchyard {

// Loads of one layer's experts; a share of 1 is an even one.
class LoadHistory {
 public:
  LoadHistory(int64_t layer, size_t experts) : layer_(layer), experts_(experts) {}

  void add(int64_t step, const std::vector<double>& shares);

  int64_t layer() const { return layer_; }
  size_t experts() const { return experts_; }
  // [stretch of time][expert], all stretches equally long; empty where no step lies in one.
  std::vector<std::vector<double>> over_time() const;
  // Mean of the last kLastSteps steps.
  std::vector<double> last() const;

  static constexpr size_t kMostBins = 160, kLastSteps = 20;

 private:
  struct Bin {
    std::vector<float> sum;
    int64_t steps = 0;
  };
  void halve();

  int64_t layer_;
  size_t experts_;
  int64_t first_step_ = -1, bin_steps_ = 1;
  std::vector<Bin> bins_;
  std::vector<std::vector<double>> last_;  // a ring of kLastSteps
  size_t next_ = 0;
};

struct RunHistory {
  // Equally long; a value that a line lacks is NaN.
  std::vector<double> step, loss, aux_loss, z_loss, grad_norm, lr, tokens, tokens_per_second, step_seconds;
  std::vector<double> exchange_share, peak_memory_bytes;
  // Over layers.
  std::vector<double> worst_violation, mean_violation, router_entropy, drop_rate, dead_experts;

  std::vector<LoadHistory> layers;  // empty: a dense model

  std::vector<double> eval_step, eval_loss, eval_bits_per_byte;
};

// A last line without its end is left out: the run may be writing it. Any other line that is not what a run
// writes is Error{kData}, with its number. A missing eval.jsonl is no error.
RunHistory read_history(const std::filesystem::path& run);

}  // namespace switchyard
