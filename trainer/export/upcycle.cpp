#include "trainer/export/upcycle.h"

#include <algorithm>
#include <charconv>

#include "core/random.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/config.h"
#include "trainer/export/output.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxCopies = 1024;  // each is a copy of the dense network in the checkpoint

[[noreturn]] void refuse(const std::string& text) {
  fail(Fault::kUsage, "--upcycle: ", shown(text),
       " is given, num_experts=N,top_k=K is needed, 1 <= K <= N <= ", kMaxCopies);
}

}  // namespace

UpcycleOptions parse_upcycle(const std::string& text) {
  UpcycleOptions options;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string pair = text.substr(begin, end - begin);
    const size_t equals = pair.find('=');
    if (equals == pair.npos) refuse(text);
    const std::string key = pair.substr(0, equals);
    int64_t* value = key == "num_experts" ? &options.num_experts : key == "top_k" ? &options.top_k : nullptr;
    if (value == nullptr || *value != 0) refuse(text);
    const auto [next, error] = std::from_chars(pair.data() + equals + 1, pair.data() + pair.size(), *value);
    if (error != std::errc() || next != pair.data() + pair.size()) refuse(text);
    begin = end + 1;
  }
  if (options.top_k < 1 || options.top_k > options.num_experts || options.num_experts > kMaxCopies)
    refuse(text);
  return options;
}

ModelOptions upcycled(const ModelOptions& dense, const UpcycleOptions& upcycle) {
  if (dense.moe) fail(Fault::kUsage, "--upcycle: the model has experts already");
  ModelOptions options = dense;
  options.first_dense_layers = 0;
  options.moe_layer_interval = 1;
  options.dense_layers.clear();
  MoeOptions moe;
  moe.num_experts = upcycle.num_experts;
  moe.top_k = upcycle.top_k;
  moe.moe_intermediate_size = dense.intermediate_size;
  moe.normalize_topk = true;
  options.moe = moe;
  return options;
}

TensorSource new_router(const TensorSpec& spec, const ModelOptions& options) {
  const double stddev = options.initializer_range;
  return {.name = spec.name, .dtype = FileDType::kF32, .shape = spec.shape, .produce = [=](const Emit& emit) {
            const Tensor values = Tensor::empty({spec.shape[0], spec.shape[1]}, DType::kF32, Device::kCpu);
            fill_normal(values, key_of(1, spec.name), stddev);
            emit(values.raw(), static_cast<size_t>(values.bytes()));
          }};
}

bool is_router(const std::string& name) { return name.ends_with(".mlp.gate.weight"); }

std::string dense_twin(const std::string& name) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = name.find(kExperts);
  if (at == name.npos) return name;
  return name.substr(0, at) + name.substr(name.find('.', at + kExperts.size()));
}

void upcycle_checkpoint(const fs::path& from, const fs::path& to, const UpcycleOptions& upcycle) {
  check_output(to);
  CheckpointReader reader(resolve_checkpoint(from, warn), Verify::kAll);
  const StoredModel dense = read_model(reader);
  const ModelOptions options = upcycled(dense.options, upcycle);
  check_model(options, reader.directory().string());
  std::vector<TensorSource> tensors;
  for_each_tensor(options, [&](const TensorSpec& spec) {
    if (is_router(spec.name)) {
      tensors.push_back(new_router(spec, options));
      return;
    }
    const std::string twin = dense_twin(spec.name);
    const TensorEntry& entry = reader.entry(twin);
    tensors.push_back({.name = spec.name,
                       .dtype = FileDType::kF32,
                       .shape = spec.shape,
                       .produce = [&reader, &entry, twin](const Emit& emit) {
                         emit_converted(entry.dtype, reader.bytes(twin).data(), entry.numel(),
                                        FileDType::kF32, emit);
                       }});
  });
  std::map<std::string, std::string> texts{{kModelText, model_to_text(options)}};
  for (const char* name : {kSourceText, kTokenizerText}) {
    if (reader.has_text(name)) texts[name] = reader.text(name);
  }
  CheckpointWriter writer(to, 0);
  const std::string shards[] = {writer.write_shard("weights", std::move(tensors))};
  writer.finish(shards, texts);
}

}  // namespace switchyard
