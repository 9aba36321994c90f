#include "trainer/metrics/step_metrics.h"

#include <cerrno>

#include <nlohmann/json.hpp>

#include "trainer/files/files.h"

namespace switchyard {

using Json = nlohmann::ordered_json;

Json layer_json(const LayerLoad& load) {
  Json loads = Json::array();
  const double pairs = static_cast<double>(load.pairs());
  for (const int64_t n : load.assigned) loads.push_back(pairs == 0 ? 0 : static_cast<double>(n) / pairs);
  return {{"layer", load.layer},
          {"max_violation", load.max_violation()},
          {"rank_overload", load.rank_overload},
          {"drop_rate", load.drop_rate()},
          {"router_entropy", load.router_entropy()},
          {"dead_experts", load.dead_experts()},
          {"load", loads}};
}

std::string to_json(const StepMetrics& m) {
  Json layers = Json::array();
  for (const LayerLoad& load : m.layers) layers.push_back(layer_json(load));
  Json json{{"step", m.step},
            {"loss", m.loss},
            {"aux_loss", m.aux_loss},
            {"z_loss", m.z_loss},
            {"grad_norm", m.grad_norm},
            {"lr", m.lr},
            {"tokens", m.tokens},
            {"tokens_per_second", m.tokens_per_second},
            {"step_seconds", m.step_seconds},
            {"exchange_seconds", m.exchange_seconds},
            {"exchange_wait_seconds", m.exchange_wait_seconds},
            {"exchange_bytes", m.exchange_bytes},
            {"experts_shadowed", m.experts_shadowed},
            {"shadow_bytes", m.shadow_bytes},
            {"experts_moved", m.experts_moved},
            {"gradient_bytes", m.gradient_bytes},
            {"parameter_bytes", m.parameter_bytes},
            {"peak_memory_bytes", m.peak_memory_bytes},
            {"layers", layers}};
  if (!m.data_tokens.empty()) json["data_tokens"] = m.data_tokens;
  return json.dump();
}

int64_t step_of_line(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) return -1;
  return json["step"].get<int64_t>();
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  std::string kept;
  bool changed = false;
  if (std::ifstream in(path); in) {
    for (std::string line; std::getline(in, line);) {
      const bool whole = !in.eof();  // the last line may have been cut by a kill
      const int64_t step = whole ? step_of_line(line) : -1;
      if (step >= 0 && step <= last_step) {
        kept += line + "\n";
        last_step_ = step;
      } else {
        changed = true;
      }
    }
  }
  if (changed) {
    write_file(path, kept);
  }
  errno = 0;
  out_.open(path, std::ios::app);
  if (!out_) fail_writing(path, errno != 0 ? errno : EIO);
}

void MetricsFile::write(const std::string& json) {
  out_ << json << "\n" << std::flush;
  if (!out_) fail(Fault::kResource, path_.string(), ": cannot be written (disk full?)");
}

}  // namespace switchyard
