#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>

#include "trainer/commands/commands.h"
#include "trainer/job/evaluate_file.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

// Sums over data sets; the bits per byte only where all have them.
Evaluation total_of(const std::vector<Evaluation>& parts) {
  Evaluation total = parts[0];
  double nats = 0, bytes = 0;
  total.tokens = 0;
  for (const Evaluation& part : parts) {
    const double sum = part.loss * static_cast<double>(part.tokens);
    nats += sum;
    total.tokens += part.tokens;
    if (part.bits_per_byte)
      bytes += sum / std::numbers::ln2 / *part.bits_per_byte;
    else
      total.bits_per_byte.reset();
    if (&part == &parts[0]) continue;
    for (size_t i = 0; i < total.layers.size(); ++i) total.layers[i] += part.layers[i];
  }
  total.loss = nats / static_cast<double>(std::max<int64_t>(total.tokens, 1));
  if (total.bits_per_byte) total.bits_per_byte = nats / std::numbers::ln2 / bytes;
  return total;
}

// "5 31%, 2 18%": the two experts chosen most, with their shares of all choices.
std::string favourites(const LayerLoad& load) {
  std::vector<int64_t> order(load.assigned.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return load.assigned[a] > load.assigned[b]; });
  order.resize(std::min<size_t>(order.size(), 2));
  std::string text;
  const double pairs = static_cast<double>(std::max<int64_t>(load.pairs(), 1));
  for (const int64_t e : order) {
    const double percent = 100 * static_cast<double>(load.assigned[e]) / pairs;
    text += fmt::format("{}{:>2} {:>2.0f}%", text.empty() ? "" : ", ", e, percent);
  }
  return text;
}

void print_table(const std::vector<std::string>& prefixes, const std::vector<Evaluation>& parts) {
  size_t width = 4;
  std::vector<std::string> names;
  for (const std::string& prefix : prefixes) {
    names.push_back(std::filesystem::path(prefix).filename().string());
    width = std::max(width, names.back().size());
  }
  std::string head = fmt::format("{:<{}}    loss  bits/byte", "data", width);
  for (const LayerLoad& load : parts[0].layers)
    head += fmt::format("  {:<14}", fmt::format("layer {}", load.layer));
  fmt::print("{}\n", head);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string bits = parts[i].bits_per_byte ? fmt::format("{:.3f}", *parts[i].bits_per_byte) : "-";
    fmt::print("{:<{}}  {:>6.3f}  {:>9}", names[i], width, parts[i].loss, bits);
    for (const LayerLoad& load : parts[i].layers) fmt::print("  {:<14}", favourites(load));
    fmt::print("\n");
  }
}

}  // namespace

int run_eval(const EvalArgs& args) {
  const LoadedModel loaded = load_model(args.checkpoint, args.device);
  std::vector<std::string> prefixes = args.data;
  if (prefixes.empty() && loaded.config && !loaded.config->data.validation.empty()) {
    prefixes.push_back(loaded.config->data.validation);
  }
  if (prefixes.empty()) fail(Fault::kUsage, "the run has no validation data; name some with --data");
  std::vector<Evaluation> parts;
  parts.reserve(prefixes.size());
  for (const std::string& prefix : prefixes) parts.push_back(evaluate_file(loaded, prefix));
  Json json = Json::parse(to_json(total_of(parts)));
  print_table(prefixes, parts);
  if (parts.size() > 1) {
    for (size_t i = 0; i < parts.size(); ++i) {
      Json part{{"data", prefixes[i]}};
      part.update(Json::parse(to_json(parts[i])));
      json["data"].push_back(part);
    }
  }
  fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
  return 0;
}

}  // namespace switchyard
