// A training job's configuration: protobuf text in, validated option structs of every layer out.
//
// Every fault is an Error{kUsage}. A wrong field reads "file:line:col: message" with the source line, a caret
// and a suggestion; an error between fields, from --set or from the launcher names the fields.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/device/device.h"
#include "core/optim/options.h"
#include "kernels/check.h"
#include "parallel/comm/make.h"
#include "trainer/data/options.h"
#include "trainer/model/options.h"

namespace switchyard {

namespace config {
class Experiment;
}

enum class Precision : uint8_t { kFP32, kBF16 };

struct ParallelOptions {
  int64_t expert = 1;                // EP degree; divides the world
  int64_t expert_tensor = 1;         // no expert is cut
  double timeout_seconds = 300;      // the deadline of every wait
  int64_t rebalance_over_steps = 4;  // whose loads say which experts should change ranks; 0: none ever does
  // From how many pairs on that it spares the fullest rank an expert is copied for a micro-batch; 0: none is.
  // The default depends on the experts' size; with CUDA, where copies were not measured, it is 0.
  int64_t shadow_pairs = 0;
};

struct TrainOptions {
  int64_t steps = 1000;
  int64_t global_batch_size = 32;  // in sequences, over all ranks
  int64_t micro_batch_size = 1;    // in sequences
  int64_t sequence_length = 256;   // in tokens
  std::string init_from;           // a checkpoint whose weights start step 1; empty: random
  bool cuda_graphs = false;        // micro-batches are recorded once and replayed
};

struct EvalOptions {
  int64_t every_steps = 0;  // 0: never
  int64_t batches = 10;     // global batches; 0: the whole validation set
};

struct CheckpointOptions {
  int64_t every_steps = 1000;  // 0: only after the last step
  int64_t keep_last = 0;       // 0: all
};

struct LogOptions {
  int64_t every_steps = 10;  // progress lines, 0: none; metrics.jsonl has every step
  bool tensorboard = true;   // event files in RUN/tb/
};

struct SampleOptions {
  int64_t every_steps = 0;  // 0: never
  std::vector<std::string> prompts;
  int64_t max_tokens = 64;
  double temperature = 1;  // 0: the likeliest token
};

struct Config {
  std::string name = "run";  // the run's directory: runs/NAME
  uint64_t seed = 1;
  Precision precision = Precision::kFP32;
  Device device = Device::kCpu;
  int64_t threads = 0;  // per rank; 0: the cores divided among the node's ranks
  ModelOptions model;   // with train.init_from only complete after adopt_model()
  ParallelOptions parallel;
  TrainOptions train;
  AdamWOptions optimizer;
  ScheduleOptions schedule;  // its steps are train.steps
  DataOptions data;
  EvalOptions eval;
  CheckpointOptions checkpoint;
  LogOptions log;
  SampleOptions sample;

  std::shared_ptr<const config::Experiment> given;  // what the user wrote, and nothing else

  // Whether the user wrote the field, e.g. "model.moe.top_k" or "data.validation".
  bool is_given(std::string_view path) const;
};

// The file, then each --merge text, then each --set path=value, each over what came before.
// Values are validated one by one and against each other (the model's only without
// train.init_from: adopt_model does it then).
Config load_config(const std::string& path, const std::vector<std::string>& sets = {},
                   const std::vector<std::string>& merges = {});
// The same from memory; `where` is the file's name in messages.
Config parse_config(std::string_view text, const std::string& where,
                    const std::vector<std::string>& sets = {}, const std::vector<std::string>& merges = {});

// train.init_from: every model field the user left out comes from the checkpoint; one that fixes a tensor's
// shape must agree with it.
void adopt_model(Config&, const ModelOptions& checkpoint);

// The launcher's part: EP degree and batch sizes against the number of ranks.
void check_world(const Config&, int64_t world);
// Training needs data.train or data.blend, and data.validation if it evaluates.
void check_data(const Config&);
// Values of a model against each other and absurd sizes; vocab_size may still be 0.
// `where` starts the message.
void check_model(const ModelOptions&, const std::string& where, Fault fault = Fault::kUsage);
// Whether the device's kernels take the model.
void check_device(const ModelOptions&, Device, const std::string& where);

// Every field, in text format with header comments; parsing it gives the same Config.
std::string resolved_text(const Config&);

// A model inside a checkpoint: text format with every field. model_from_text is strict (Error{kData}).
std::string model_to_text(const ModelOptions&);
ModelOptions model_from_text(std::string_view text, const std::string& where);

struct FieldDifference {
  std::string field;          // "model.moe.top_k"
  std::string first, second;  // values as text
  bool fixes_shape;           // a tensor's shape, or whether there is a tensor, depends on the field
};
std::vector<FieldDifference> model_differences(const ModelOptions& first, const ModelOptions& second);

}  // namespace switchyard
