#include "trainer/report/json_line.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace switchyard {
namespace {

constexpr double kMostStep = 1e15, kMostValue = 1e30;
constexpr size_t kLongestLine = size_t{64} << 20, kMostExperts = 1 << 16, kMostLayers = 1 << 14;

}  // namespace

JsonLine::JsonLine(const std::filesystem::path& file, int64_t number, std::string_view text)
    : file_(file), number_(number) {
  if (text.size() > kLongestLine) wrong("more than 64 MiB");
  json_ = Json::parse(text, nullptr, false);
  if (!json_.is_object()) wrong("no JSON object");
}

void JsonLine::wrong(const std::string& what) const {
  fail(Fault::kData, file_.string(), ":", number_, ": ", what);
}

double JsonLine::number(const Json& object, const char* name) const {
  const auto field = object.find(name);
  if (field == object.end() || field->is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!field->is_number()) wrong(concat(name, " is no number"));
  const double value = field->get<double>();
  return std::abs(value) <= kMostValue ? value : std::numeric_limits<double>::quiet_NaN();
}

int64_t JsonLine::step() const {
  const double step = number("step");
  if (!(step >= 0 && step <= kMostStep && step == std::floor(step))) wrong("step is no step's number");
  return static_cast<int64_t>(step);
}

const JsonLine::Json& JsonLine::layers(const Json& object) const {
  static const Json kNone = Json::array();
  const auto field = object.find("layers");
  if (field == object.end()) return kNone;
  const bool list = field->is_array() && field->size() <= kMostLayers;
  if (!list ||
      !std::all_of(field->begin(), field->end(), [](const Json& layer) { return layer.is_object(); }))
    wrong("layers is no list of layers");
  return *field;
}

int64_t JsonLine::layer_number(const Json& layer) const {
  const double number = this->number(layer, "layer");
  if (!(number >= 0 && number < kMostLayers)) wrong("layer is no layer's number");
  return static_cast<int64_t>(number);
}

std::vector<double> JsonLine::shares(const Json& layer) const {
  const auto load = layer.find("load");
  if (load == layer.end()) return {};
  if (!load->is_array() || load->size() > kMostExperts) wrong("load is no list of shares");
  std::vector<double> shares;
  for (const Json& share : *load) {
    if (!share.is_number() || !(share.get<double>() >= 0 && share.get<double>() <= 1))
      wrong("load is no list of shares");
    shares.push_back(share.get<double>() * static_cast<double>(load->size()));
  }
  return shares;
}

}  // namespace switchyard
