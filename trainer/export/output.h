// What import and the exports share: where they may write, and a checkpoint's model.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/checkpoint/store.h"
#include "trainer/data/tokenizer.h"
#include "trainer/model/options.h"

namespace switchyard {

// A place to write to: nothing there, or an empty directory. Else Error{kUsage}.
void check_output(const fs::path& path);

// Tokens that an exported model says it takes, where it was not imported from one that says.
inline constexpr int64_t kDefaultContext = 4096;

// The model of a checkpoint, whose weights are exactly those the options ask for.
struct StoredModel {
  ModelOptions options;
  nlohmann::json source;  // see HfModel; an empty object where the checkpoint has none
  std::string tokenizer;  // text, empty where there is none
};
StoredModel read_model(CheckpointReader& checkpoint);

// Sets eos_token_id and bos_token_id of `source` where they do not name special tokens of the tokenizer:
// which of these ends a text is not in tokenizer.json, an imported model's config.json says it.
void set_token_ids(nlohmann::json& source, const Tokenizer& tokenizer);

}  // namespace switchyard
