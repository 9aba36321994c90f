// What a training step reports, and metrics.jsonl: one JSON object a line, each step once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "parallel/expert/load.h"

namespace switchyard {

struct StepMetrics {
  int64_t step = 0;
  double loss = 0;  // mean cross-entropy per target token of the global batch, before the update
  double aux_loss = 0, z_loss = 0;  // with coefficients, summed over layers, mean over micro-batches
  double grad_norm = 0;             // before clipping
  double lr = 0;
  int64_t tokens = 0;                // target tokens since step 1
  std::vector<int64_t> data_tokens;  // the same of each data set of a blend; empty: there is one data set
  double tokens_per_second = 0;
  double step_seconds = 0;
  double exchange_seconds = 0;       // mean over ranks
  double exchange_wait_seconds = 0;  // the part of it in which a rank waits for the last to come
  int64_t exchange_bytes = 0;        // of a rank's own tokens to other ranks and back, mean over ranks
  int64_t experts_shadowed = 0;      // copies taken, over all layers, micro-batches and ranks
  int64_t shadow_bytes = 0;          // of copies and of their gradients, mean over ranks
  int64_t experts_moved = 0;         // to other ranks, after the update
  int64_t gradient_bytes = 0;        // a rank's, handed to the reduction
  int64_t parameter_bytes = 0;       // a rank's, gathered after the update
  // Of the rank that needs most: resident memory (CPU) or reserved device memory.
  int64_t peak_memory_bytes = 0;
  std::vector<LayerLoad> layers;
};

std::string to_json(const StepMetrics& metrics);
// {"layer": .., "max_violation": .., ..., "load": [share of each expert]}
nlohmann::ordered_json layer_json(const LayerLoad& load);

// Appends lines and flushes each. On resuming, lines of later steps are dropped and
// the others left as they are.
class MetricsFile {
 public:
  MetricsFile(const std::filesystem::path& path, int64_t last_step);
  void write(const std::string& json);
  int64_t last_step() const { return last_step_; }  // of the lines kept; 0: none

 private:
  std::filesystem::path path_;
  std::ofstream out_;
  int64_t last_step_ = 0;
};

// "step" of a line, or -1.
int64_t step_of_line(const std::string& line);

}  // namespace switchyard
