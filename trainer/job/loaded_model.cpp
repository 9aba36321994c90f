#include "trainer/job/loaded_model.h"

#include <fmt/format.h>

#include "core/device/stream.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"

namespace switchyard {

LoadedModel load_model(const std::string& path, Device device) {
  if (device == Device::kCuda) use_cuda_device(0, 1);
  CheckpointReader reader(resolve_checkpoint(
      path, [](const std::string& m) { fmt::print(stderr, "switchyard: warning: {}\n", m); }));
  const std::string where = reader.directory().string() + "/";
  LoadedModel loaded;
  loaded.options = model_from_text(reader.text("model.txtpb"), where + "model.txtpb");
  check_model(loaded.options, where + "model.txtpb", Fault::kData);
  if (device == Device::kCuda && loaded.options.head_dim > kernels::kMaxCudaHeadDim) {
    fail(Fault::kUsage, where, "model.txtpb: head_dim (", loaded.options.head_dim, ") exceeds ",
         kernels::kMaxCudaHeadDim, ", the most that --device CUDA has attention for");
  }
  if (reader.has_text("tokenizer.json")) {
    loaded.tokenizer = load_tokenizer_json(reader.text("tokenizer.json"), where + "tokenizer.json");
  }
  if (reader.has_text("config.txtpb"))
    loaded.config = parse_config(reader.text("config.txtpb"), where + "config.txtpb");
  const Group self = make_self();
  loaded.store = std::make_unique<ParameterStore>();
  loaded.model = std::make_unique<Transformer>(*loaded.store, loaded.options, DType::kF32, Axis{self, self});
  loaded.store->materialize(device, 0, false, false);
  load_weights(reader, *loaded.store);
  loaded.step = reader.step();
  return loaded;
}

}  // namespace switchyard
