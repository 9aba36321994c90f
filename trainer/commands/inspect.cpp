#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/config.h"
#include "trainer/data/prepare.h"
#include "trainer/export/output.h"
#include "trainer/export/tensor_list.h"
#include "trainer/metrics/run_picture.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

// What a checkpoint's directory says; reads and checks every file.
Json describe_checkpoint(const fs::path& directory) {
  CheckpointReader checkpoint(directory, Verify::kAll);
  const StoredModel model = read_model(checkpoint);
  const ParameterCount parameters = count_parameters(model.options);
  Json tensors = Json::object(), files = Json::object();
  for (const auto& [name, entry] : checkpoint.manifest().tensors)
    tensors[name] = {
        {"dtype", std::string(name_of(entry.dtype))}, {"shape", entry.shape}, {"file", entry.file}};
  for (const auto& [name, sum] : checkpoint.manifest().files) files[name] = sum.bytes;
  return {{"kind", "checkpoint"},
          {"path", directory.string()},
          {"step", checkpoint.step()},
          {"parameters", parameters.total},
          {"active_parameters", parameters.active},
          {"intact", true},
          {"model", checkpoint.text(kModelText)},
          {"files", files},
          {"tensors", tensors}};
}

std::string human_bytes(int64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  const double units[] = {1e3, 1e6, 1e9, 1e12};
  const char* names[] = {"kB", "MB", "GB", "TB"};
  int unit = 0;
  while (unit < 3 && static_cast<double>(bytes) >= 1000 * units[unit]) ++unit;
  return fmt::format("{:.1f} {}", static_cast<double>(bytes) / units[unit], names[unit]);
}

void print_checkpoint(const Json& about) {
  fmt::print("checkpoint {}\n  step {}, every file intact\n  {} parameters, {} active per token\n",
             about["path"].get<std::string>(), about["step"].get<int64_t>(),
             about["parameters"].get<int64_t>(), about["active_parameters"].get<int64_t>());
  fmt::print("  {} tensors in {} files\n", about["tensors"].size(), about["files"].size());
  for (const auto& [name, bytes] : about["files"].items())
    fmt::print("    {:<44} {:>10}\n", name, human_bytes(bytes.get<int64_t>()));
  fmt::print("\n{}", about["model"].get<std::string>());
}

// The last line of metrics.jsonl that is whole, without its layers.
Json last_metrics(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return nullptr;
  const MappedFile file(path);
  std::string_view text = file.bytes();
  text = text.substr(0, text.rfind('\n') == text.npos ? 0 : text.rfind('\n'));
  const std::string_view line = text.substr(text.rfind('\n') + 1);
  Json metrics = Json::parse(line, nullptr, false);
  if (!metrics.is_object()) return nullptr;
  metrics.erase("layers");
  return metrics;
}

// Damaged checkpoints are listed as such: looking at a broken run is what one inspects for.
Json describe_run(const fs::path& run, const fs::path& checkpoints) {
  Json list = Json::array();
  for (const int64_t step : list_steps(checkpoints)) {
    const fs::path path = step_directory(checkpoints, step);
    Json entry = {{"step", step}, {"path", path.string()}, {"intact", true}};
    try {
      CheckpointReader(path, Verify::kAll);
    } catch (const Error& error) {
      entry["intact"] = false;
      entry["error"] = error.what();
      warn(error.what());
    }
    list.push_back(entry);
  }
  return {{"kind", "run"},
          {"path", run.string()},
          {"checkpoints", list},
          {"metrics", last_metrics(run / "metrics.jsonl")}};
}

void print_last_step(const Json& metrics) {
  const auto number = [&](const char* key) {
    return metrics.contains(key) && metrics[key].is_number() ? metrics[key].get<double>() : NAN;
  };
  fmt::print("  last step: {:.0f}, loss {:.4f}, lr {:.2e}, norm {:.3f}, {:.0f} tok/s, {:.0f} tokens so far",
             number("step"), number("loss"), number("lr"), number("grad_norm"), number("tokens_per_second"),
             number("tokens"));
  if (const double peak = number("peak_memory_bytes"); peak > 0)
    fmt::print(", {} of memory at most", human_bytes(static_cast<int64_t>(peak)));
  fmt::print("\n");
}

void print_run(const Json& about) {
  fmt::print("run {}\n", about["path"].get<std::string>());
  for (const Json& entry : about["checkpoints"])
    fmt::print("  step {:>8}  {}\n", entry["step"].get<int64_t>(),
               entry["intact"].get<bool>() ? "intact" : "NOT INTACT: " + entry["error"].get<std::string>());
  if (about["metrics"].is_object()) print_last_step(about["metrics"]);
  fmt::print("{}", run_picture(fs::path(about["path"].get<std::string>()) / "metrics.jsonl"));
}

void check_any_intact(const Json& about) {
  const Json& list = about["checkpoints"];
  if (list.empty() ||
      std::any_of(list.begin(), list.end(), [](const Json& c) { return c["intact"].get<bool>(); }))
    return;
  fail(Fault::kData, about["path"].get<std::string>(), ": none of its ", list.size(),
       " checkpoints is intact");
}

}  // namespace

int run_inspect(const InspectArgs& args) {
  const fs::path path = args.path;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (!TokenFile::exists(args.path))
      fail(Fault::kData, args.path, ": no checkpoint, run or token file is there");
    fmt::print("{}\n", describe_tokens(args.path, args.json));
    return 0;
  }
  const bool run = fs::is_directory(path / "checkpoints", ignored);
  const bool is_checkpoint = !run && list_steps(path).empty();
  const Json about =
      is_checkpoint ? describe_checkpoint(path) : describe_run(path, run ? path / "checkpoints" : path);
  if (args.json)
    fmt::print("{}\n", about.dump(-1, ' ', false, Json::error_handler_t::replace));
  else
    is_checkpoint ? print_checkpoint(about) : print_run(about);
  if (!is_checkpoint) check_any_intact(about);
  return 0;
}

}  // namespace switchyard
