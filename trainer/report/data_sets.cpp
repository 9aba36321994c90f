#include "trainer/report/data_sets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/report/curves.h"
#include "trainer/report/heat_map.h"
#include "trainer/report/json_line.h"
#include "trainer/report/page.h"

namespace switchyard {
namespace {

DataSet data_set(const JsonLine& line, const nlohmann::json& json) {
  DataSet data;
  const auto prefix = json.find("data");
  const bool named = prefix != json.end() && prefix->is_string();
  data.name = named ? std::filesystem::path(prefix->get<std::string>()).filename().string() : "held-out";
  data.tokens = line.number(json, "tokens");
  data.loss = line.number(json, "loss");
  data.bits_per_byte = line.number(json, "bits_per_byte");
  for (const auto& layer : line.layers(json))
    data.layers.push_back({line.layer_number(layer), line.shares(layer)});
  return data;
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.3f}", value) : "–"; }

std::string losses_table(const std::vector<DataSet>& data) {
  double most = 0;
  for (const DataSet& set : data) most = std::max(most, set.loss);
  std::string html =
      "<div class=\"scroll\"><table><tr><th></th><th>tokens</th><th>bits per "
      "byte</th><th>loss</th><th></th></tr>\n";
  for (const DataSet& set : data) {
    const double width = most > 0 && set.loss > 0 ? 100 * set.loss / most : 0;
    html += fmt::format(
        "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td class=\"bar\"><i "
        "style=\"width:{:.1f}%\"></i></td></tr>\n",
        escaped(set.name), std::isfinite(set.tokens) ? short_number(set.tokens) : "–",
        number(set.bits_per_byte), number(set.loss), width);
  }
  return html + "</table></div>\n";
}

}  // namespace

std::vector<DataSet> read_evaluation(const std::filesystem::path& file, std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const auto number = std::count(text.begin(), text.end(), '\n') + 1;
  const JsonLine line(file, number, text.substr(text.rfind('\n') + 1));
  const auto parts = line.json().find("data");
  if (parts == line.json().end() || !parts->is_array()) return {data_set(line, line.json())};
  std::vector<DataSet> data;
  for (const auto& part : *parts) {
    if (!part.is_object()) line.wrong("data is no list of data sets");
    data.push_back(data_set(line, part));
    if (data.back().layers.size() != data.front().layers.size()) line.wrong("data sets of different models");
  }
  return data;
}

std::string data_sets_html(const std::vector<DataSet>& data) {
  if (data.empty()) return "";
  std::vector<std::string> names;
  for (const DataSet& set : data) names.push_back(set.name);
  std::string html =
      "<h2>Data sets</h2>\n<p>Loss on each, and the experts that its tokens are given to.</p>\n" +
      losses_table(data);
  if (data[0].layers.empty()) return html;
  const size_t experts = data[0].layers[0].shares.size();
  html += heat_legend() + heat_grid(experts);
  for (size_t i = 0; i < data[0].layers.size(); ++i) {
    Rows rows;
    for (const DataSet& set : data) rows.push_back(set.layers[i].shares);
    html += heat_table(fmt::format("layer {}", data[0].layers[i].number), names, rows);
  }
  return html + "</div>\n";
}

}  // namespace switchyard
