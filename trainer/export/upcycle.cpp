#include "trainer/export/upcycle.h"

#include <algorithm>
#include <charconv>

#include "trainer/checkpoint/files.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxExperts = 1024;  // each is a copy of the dense network in the checkpoint

[[noreturn]] void refuse(const std::string& text) {
  fail(Fault::kUsage, "--upcycle: ", shown(text),
       " is given, num_experts=N,top_k=K is needed, 1 <= K <= N <= ", kMaxExperts);
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
  if (options.top_k < 1 || options.top_k > options.num_experts || options.num_experts > kMaxExperts)
    refuse(text);
  return options;
}

ModelOptions upcycled(const ModelOptions& dense, const UpcycleOptions& upcycle) {
  if (dense.moe) fail(Fault::kUsage, "--upcycle: the model has experts already");
  ModelOptions options = dense;
  MoeOptions moe;
  moe.num_experts = upcycle.num_experts;
  moe.top_k = upcycle.top_k;
  moe.moe_intermediate_size = dense.intermediate_size;
  moe.normalize_topk = true;
  options.moe = moe;
  return options;
}

bool is_router(const std::string& name) { return name.ends_with(".mlp.gate.weight"); }

std::string dense_twin(const std::string& name) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = name.find(kExperts);
  if (at == name.npos) return name;
  return name.substr(0, at) + name.substr(name.find('.', at + kExperts.size()));
}

}  // namespace switchyard
