// A checkpoint's model in one process, whatever layout wrote it: eval, generate, score.
#pragma once

#include <memory>
#include <optional>

#include "trainer/config.h"
#include "trainer/data/tokenizer.h"
#include "trainer/model/transformer.h"

namespace switchyard {

struct LoadedModel {
  ModelOptions options;
  std::unique_ptr<ParameterStore> store;
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null: none in the checkpoint
  std::optional<Config> config;          // of the run; none for an imported model
  int64_t step = 0;
};

// `path`: a checkpoint's directory or a run's. In float32.
LoadedModel load_model(const std::string& path, Device device = Device::kCpu);

}  // namespace switchyard
