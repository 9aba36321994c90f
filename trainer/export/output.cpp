#include "trainer/export/output.h"

#include <algorithm>

#include "trainer/checkpoint/model_state.h"
#include "trainer/export/tensor_list.h"
#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

void check_tensors(const CheckpointReader& checkpoint, const ModelOptions& options) {
  const std::string directory = checkpoint.directory().string();
  std::set<std::string> expected;
  for_each_tensor(options, [&](const TensorSpec& spec) {
    const TensorEntry& entry = checkpoint.entry(spec.name);
    if (entry.shape != spec.shape || !is_float(entry.dtype))
      fail(Fault::kData, directory, ": tensor ", shown(spec.name), " is ", name_of(entry.dtype), " ",
           shape_text(entry.shape), ", ", kModelText, " makes it ", shape_text(spec.shape));
    expected.insert(spec.name);
  });
  for (const auto& [name, entry] : checkpoint.manifest().tensors)
    if (is_weight(name) && !expected.contains(name))
      fail(Fault::kData, directory, ": tensor ", shown(name), " is not one of the model in ", kModelText);
}

// `ids`: one, or a list.
bool are_special(const nlohmann::json& ids, const Tokenizer& tokenizer) {
  if (!ids.is_array()) return are_special(nlohmann::json::array({ids}), tokenizer);
  return !ids.empty() && std::all_of(ids.begin(), ids.end(), [&](const nlohmann::json& id) {
    return id.is_number_unsigned() && id < static_cast<uint64_t>(tokenizer.vocab_size()) &&
           tokenizer.bytes_of(id.get<int32_t>()).empty();
  });
}

}  // namespace

void check_output(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(without_trailing_slash(path), error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) fail(Fault::kUsage, path.string(), ": exists and is no directory");
  if (!fs::is_empty(path, error)) fail(Fault::kUsage, path.string(), ": exists and is not empty");
}

StoredModel read_model(CheckpointReader& checkpoint) {
  StoredModel model;
  const fs::path directory = checkpoint.directory();
  model.options = read_model_options(checkpoint);
  model.source = nlohmann::json::object();
  if (checkpoint.has_text(kSourceText)) {
    model.source = parse_json(checkpoint.text(kSourceText), directory / kSourceText, Fault::kData);
    if (!model.source.is_object())
      fail(Fault::kData, (directory / kSourceText).string(), ": not a JSON object");
  }
  if (checkpoint.has_text(kTokenizerText)) model.tokenizer = checkpoint.text(kTokenizerText);
  check_tensors(checkpoint, model.options);
  return model;
}

void set_token_ids(nlohmann::json& source, const Tokenizer& tokenizer) {
  const std::pair<const char*, std::optional<int32_t>> ids[] = {{"eos_token_id", tokenizer.eos()},
                                                                {"bos_token_id", tokenizer.bos()}};
  for (const auto& [key, id] : ids)
    if (id && !are_special(source.value(key, nlohmann::json()), tokenizer))
      source[key] = static_cast<uint32_t>(*id);
}

}  // namespace switchyard
