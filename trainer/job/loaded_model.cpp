#include "trainer/job/loaded_model.h"

#include "core/device/stream.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/together.h"

namespace switchyard {

LoadedModel load_model(const std::string& path, Device device) {
  if (device == Device::kCuda) use_cuda_device(0, 1);
  CheckpointReader reader(resolve_checkpoint(path, warn));
  LoadedModel loaded;
  loaded.options = read_model_options(reader);
  check_device(loaded.options, device, reader.path_of(kModelText));
  if (reader.has_text(kTokenizerText))
    loaded.tokenizer = load_tokenizer_json(reader.text(kTokenizerText), reader.path_of(kTokenizerText));
  if (reader.has_text(kConfigText))
    loaded.config = parse_config(reader.text(kConfigText), reader.path_of(kConfigText));
  const Group self = make_self();
  loaded.store = std::make_unique<ParameterStore>();
  loaded.model = std::make_unique<Transformer>(*loaded.store, loaded.options, DType::kF32, Axis{self, self});
  loaded.store->materialize(device, 0, false, false);
  load_weights(reader, *loaded.store);
  loaded.step = reader.step();
  return loaded;
}

}  // namespace switchyard
