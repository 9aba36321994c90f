#include "trainer/export/import_hf.h"

#include <set>

#include "trainer/checkpoint/store.h"
#include "trainer/config.h"
#include "trainer/data/tokenizer.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/hf_folder.h"
#include "trainer/export/output.h"
#include "trainer/export/tensor_list.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

// The tensor on disk that `twin` names, as the checkpoint will hold it.
TensorSource source_of(const HfFolder& folder, Arch arch, const TensorSpec& spec, const std::string& twin) {
  const std::string name = hf_name(arch, twin);
  const auto found = folder.tensors().find(name);
  if (found == folder.tensors().end())
    fail(Fault::kData, folder.listing().string(), ": tensor ", shown(name), " is missing");
  const TensorView& view = *found->second.view;
  const std::string file = found->second.file->path().string();
  if (!is_float(view.dtype))
    fail(Fault::kData, file, ": tensor ", shown(name), " is ", name_of(view.dtype),
         ", F32, BF16, F16 or F64 is needed");
  if (view.shape != spec.shape)
    fail(Fault::kData, file, ": tensor ", shown(name), " is ", shape_text(view.shape),
         ", config.json makes it ", shape_text(spec.shape));
  return {
      .name = spec.name, .dtype = FileDType::kF32, .shape = spec.shape, .produce = [&view](const Emit& emit) {
        emit_converted(view.dtype, view.bytes.data(), view.numel(), FileDType::kF32, emit);
      }};
}

// A head that is the embedding may stand in the file a second time.
bool is_tied_head(const HfFolder& folder, const HfModel& model, const std::string& name) {
  if (name != "lm_head.weight" || !model.options.tie_embeddings) return false;
  const auto embedding = folder.tensors().find("model.embed_tokens.weight");
  if (embedding == folder.tensors().end()) return false;
  const auto& [head, file] = folder.tensors().at(name);
  const TensorView& tied = *embedding->second.view;
  if (head->dtype != tied.dtype || head->shape != tied.shape || head->bytes != tied.bytes)
    fail(Fault::kData, file->path().string(), ": tensor ", shown(name),
         " differs from the embedding, and tie_word_embeddings makes them one");
  return true;
}

bool is_of_mtp_layer(const HfModel& model, const std::string& name) {
  for (int64_t i = 0; i < model.mtp_layers; ++i)
    if (name.starts_with(concat("model.layers.", model.options.num_layers + i, "."))) return true;
  return false;
}

// Every tensor of the folder must be one that config.json asks for.
void refuse_unknown(const HfFolder& folder, const HfModel& model) {
  std::set<std::string> known;
  for_each_tensor(model.options,
                  [&](const TensorSpec& spec) { known.insert(hf_name(model.arch, spec.name)); });
  for (const auto& [name, entry] : folder.tensors())
    if (!known.contains(name) && !is_tied_head(folder, model, name) && !is_of_mtp_layer(model, name))
      fail(Fault::kData, entry.file->path().string(), ": tensor ", shown(name), " is unknown to ",
           info_of(model.arch).model_type, " as config.json describes it");
}

// The folder's tokenizer; empty where there is none, or none that is known here: a model is of use without.
std::string tokenizer_text(const fs::path& from) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    std::error_code ignored;
    if (!fs::is_regular_file(from / name, ignored)) continue;
    try {
      return load_tokenizer((from / name).string())->to_json();
    } catch (const Error& error) {
      warn(concat("the tokenizer is left out: ", error.what()));
    }
  }
  return {};
}

}  // namespace

void import_hf(const fs::path& from, const fs::path& to, const std::optional<UpcycleOptions>& upcycle) {
  check_output(to);
  std::error_code ignored;
  if (!fs::is_directory(from, ignored)) fail(Fault::kData, from.string(), ": no such directory");
  const HfModel model = read_hf_config(from / "config.json");
  const ModelOptions options = upcycle ? upcycled(model.options, *upcycle) : model.options;
  check_model(options, from.string());
  const HfFolder folder(from);
  std::vector<TensorSource> tensors;
  for_each_tensor(options, [&](const TensorSpec& spec) {
    if (upcycle && is_router(spec.name))
      tensors.push_back(new_router(spec, options));
    else
      tensors.push_back(source_of(folder, model.arch, spec, upcycle ? dense_twin(spec.name) : spec.name));
  });
  refuse_unknown(folder, model);

  CheckpointWriter writer(to, 0);
  const std::string shards[] = {writer.write_shard("weights", std::move(tensors))};
  std::map<std::string, std::string> texts{{kModelText, model_to_text(options)},
                                           {kSourceText, model.source.dump(2) + "\n"}};
  if (std::string tokenizer = tokenizer_text(from); !tokenizer.empty()) texts[kTokenizerText] = tokenizer;
  writer.finish(shards, texts);
}

}  // namespace switchyard
