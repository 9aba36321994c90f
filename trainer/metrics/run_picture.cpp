#include "trainer/metrics/run_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>

#include "trainer/metrics/terminal_plot.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

constexpr size_t kLoadSteps = 20;

struct History {
  std::vector<double> steps, losses;
  std::deque<Json> last_layers;  // of the last kLoadSteps steps
};

History read_history(const std::filesystem::path& metrics) {
  History history;
  std::ifstream in(metrics);
  for (std::string line; std::getline(in, line);) {
    Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json.contains("loss") || !json["step"].is_number() ||
        !json["loss"].is_number()) {
      continue;
    }
    history.steps.push_back(json["step"]);
    history.losses.push_back(json["loss"]);
    if (json.contains("layers") && json["layers"].is_array())
      history.last_layers.push_back(std::move(json["layers"]));
    if (history.last_layers.size() > kLoadSteps) history.last_layers.pop_front();
  }
  return history;
}

std::string layer_text(const History& history, size_t i) {
  std::vector<double> mean;
  for (const Json& layers : history.last_layers) {
    const std::vector<double> load = layers.at(i).at("load");
    mean.resize(load.size());
    for (size_t e = 0; e < load.size(); ++e)
      mean[e] += load[e] / static_cast<double>(history.last_layers.size());
  }
  std::string text,
      label = fmt::format("  layer {:>2}  ", history.last_layers.back().at(i).at("layer").get<int64_t>());
  for (const std::string& line : load_lines(mean)) {
    text += label + line + "\n";
    label.assign(label.size(), ' ');
  }
  const auto dead = std::count(mean.begin(), mean.end(), 0.0);
  if (dead > 0) text += fmt::format("{}{} without any token\n", label, dead);
  return text;
}

}  // namespace

std::string run_picture(const std::filesystem::path& metrics) try {
  const History history = read_history(metrics);
  std::string text;
  if (const std::string curve = plot_curve(history.steps, history.losses); !curve.empty()) {
    text += "\nloss (nats per token) over steps\n" + curve;
  }
  if (history.last_layers.empty() || history.last_layers.back().empty()) return text;
  text += fmt::format("\nload of each expert, mean of the last {} steps (1.00: an even share)\n",
                      history.last_layers.size());
  for (size_t i = 0; i < history.last_layers.back().size(); ++i) text += layer_text(history, i);
  return text;
} catch (const Json::exception&) {
  return "";  // another program's file
}

}  // namespace switchyard
