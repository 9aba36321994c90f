#include "trainer/export/import_hf.h"

#include "trainer/checkpoint/store.h"
#include "trainer/config.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/hf_folder.h"
#include "trainer/export/output.h"
#include "trainer/export/tensor_list.h"

namespace switchyard {
namespace {

// The tensor on disk as the checkpoint will hold it.
TensorSource source_of(const HfFolder& folder, Arch arch, const TensorSpec& spec) {
  const std::string name = hf_name(arch, spec.name);
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

void refuse_unknown(const HfFolder& folder, Arch arch, const std::vector<TensorSource>& known) {
  std::map<std::string, bool> names;
  for (const TensorSource& tensor : known) names[hf_name(arch, tensor.name)] = true;
  for (const auto& [name, entry] : folder.tensors())
    if (!names.contains(name))
      fail(Fault::kData, entry.file->path().string(), ": tensor ", shown(name), " is unknown to ",
           info_of(arch).model_type, " as config.json describes it");
}

}  // namespace

void import_hf(const fs::path& from, const fs::path& to) {
  check_output(to);
  std::error_code ignored;
  if (!fs::is_directory(from, ignored)) fail(Fault::kData, from.string(), ": no such directory");
  const HfModel model = read_hf_config(from / "config.json");
  const HfFolder folder(from);
  std::vector<TensorSource> tensors;
  for_each_tensor(model.options,
                  [&](const TensorSpec& spec) { tensors.push_back(source_of(folder, model.arch, spec)); });
  if (tensors.size() != folder.tensors().size()) refuse_unknown(folder, model.arch, tensors);

  CheckpointWriter writer(to, 0);
  const std::string shards[] = {writer.write_shard("weights", std::move(tensors))};
  writer.finish(shards,
                {{kModelText, model_to_text(model.options)}, {kSourceText, model.source.dump(2) + "\n"}});
}

}  // namespace switchyard
