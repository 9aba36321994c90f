#include "trainer/export/export_hf.h"

#include <cstdio>

#include "trainer/data/tokenizer.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/output.h"
#include "trainer/export/tensor_list.h"

namespace switchyard {
namespace {

using nlohmann::json;

// Selection biases stay float32: HF keeps them so.
FileDType stored_type(const std::string& name, DType wanted) {
  return name.ends_with("e_score_correction_bias") ? FileDType::kF32 : file_dtype(wanted);
}

std::vector<TensorSource> collect(CheckpointReader& checkpoint, const ModelOptions& options, Arch arch,
                                  DType dtype) {
  std::vector<TensorSource> tensors;
  // glm4_moe always has a selection bias; zeros choose as none does.
  ModelOptions held = options;
  if (arch == Arch::kGlm4Moe) held.moe->expert_bias = true;
  for_each_tensor(held, [&](const TensorSpec& spec) {
    if (spec.training_only) return;
    const FileDType to = stored_type(spec.name, dtype);
    tensors.push_back({.name = hf_name(arch, spec.name), .dtype = to, .shape = spec.shape, .produce = {}});
    tensors.back().produce = [&checkpoint, spec, to](const Emit& emit) {
      const int64_t n = element_count(spec.shape);
      if (!checkpoint.contains(spec.name)) {
        const std::string zeros(static_cast<size_t>(bytes_of(to, n)), '\0');
        return emit(zeros.data(), zeros.size());
      }
      const std::string_view bytes = checkpoint.bytes(spec.name);
      emit_converted(checkpoint.entry(spec.name).dtype, bytes.data(), n, to, emit);
    };
  });
  return tensors;
}

int64_t bytes_of(const TensorSource& tensor) { return bytes_of(tensor.dtype, element_count(tensor.shape)); }

// Greedy, in the order of the tensors; a shard holds at least one.
std::vector<std::vector<TensorSource>> split(std::vector<TensorSource> tensors, int64_t shard_bytes) {
  std::vector<std::vector<TensorSource>> shards(1);
  int64_t size = 0;
  for (TensorSource& tensor : tensors) {
    if (!shards.back().empty() && size + bytes_of(tensor) > shard_bytes) {
      shards.emplace_back();
      size = 0;
    }
    size += bytes_of(tensor);
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

void write_weights(const fs::path& out, std::vector<TensorSource> tensors, int64_t shard_bytes) {
  json index = {{"metadata", {{"total_parameters", 0}, {"total_size", 0}}}, {"weight_map", json::object()}};
  int64_t parameters = 0, size = 0;
  for (const TensorSource& tensor : tensors) {
    parameters += element_count(tensor.shape);
    size += bytes_of(tensor);
  }
  auto shards = split(std::move(tensors), shard_bytes);
  if (shards.size() == 1) {
    write_safetensors(out / "model.safetensors", std::move(shards[0]));
    return;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    for (const TensorSource& tensor : shards[i]) index["weight_map"][tensor.name] = name;
    write_safetensors(out / name, std::move(shards[i]));
  }
  index["metadata"] = {{"total_parameters", parameters}, {"total_size", size}};
  write_file(out / "model.safetensors.index.json", index.dump(2) + "\n");
}

// The tokenizer's files; its ids go into `source`, from where config.json takes them.
void write_tokenizer(const fs::path& out, const std::string& text, const std::string& origin, json& source) {
  if (text.empty()) return;
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer_json(text, origin);
  write_file(out / "tokenizer.json", tokenizer->to_hugging_face_json());
  write_file(out / "tokenizer_config.json",
             "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"clean_up_tokenization_spaces\": "
             "false\n}\n");
  set_token_ids(source, *tokenizer);
}

std::optional<Arch> preferred_arch(const json& source) {
  if (!source.contains("model_type") || !source["model_type"].is_string()) return std::nullopt;
  const ArchInfo* info = find_arch(source["model_type"].get<std::string>());
  return info == nullptr ? std::nullopt : std::optional(info->arch);
}

}  // namespace

std::string export_hf(const HfExport& job) {
  check_output(job.out);
  CheckpointReader checkpoint(job.checkpoint);
  StoredModel model = read_model(checkpoint);
  const Arch arch = choose_arch(job.arch, preferred_arch(model.source), model.options);
  AtomicDirectory out(job.out);
  write_tokenizer(out.path(), model.tokenizer, (job.checkpoint / kTokenizerText).string(), model.source);
  write_file(out.path() / "config.json", hf_config_text(arch, model.options, job.dtype, model.source));
  write_file(out.path() / "generation_config.json", hf_generation_config_text(model.source));
  write_weights(out.path(), collect(checkpoint, model.options, arch, job.dtype), job.shard_bytes);
  out.commit();
  return info_of(arch).model_type;
}

}  // namespace switchyard
