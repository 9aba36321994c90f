#include "trainer/metrics/tensorboard/summaries.h"

#include <bit>

#include "trainer/data/utf8.h"
#include "trainer/metrics/tensorboard/event.pb.h"

namespace switchyard::tensorboard {
namespace {

constexpr int kRgba = 4;

Summary::Value& add(Summary& to, const std::string& tag) {
  Summary::Value& value = *to.add_value();
  value.set_tag(tag);
  return value;
}

Tensor& add_tensor(Summary& to, const std::string& tag, const char* plugin, Tensor::Type type,
                   const std::string& description = "") {
  Summary::Value& value = add(to, tag);
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name(plugin);
  value.mutable_metadata()->set_summary_description(description);
  value.mutable_metadata()->set_data_class(Metadata::TENSOR);
  value.mutable_tensor()->set_dtype(type);
  value.mutable_tensor()->mutable_tensor_shape();  // no dimensions: a scalar
  return *value.mutable_tensor();
}

void append(std::string& bytes, double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(bits >> shift);
}

}  // namespace

void add_scalar(Summary& to, const std::string& tag, double value) {
  add(to, tag).set_simple_value(static_cast<float>(value));
}

void add_bars(Summary& to, const std::string& tag, const std::vector<int64_t>& counts,
              const std::string& description) {
  Tensor& tensor = add_tensor(to, tag, "histograms", Tensor::DOUBLE, description);
  tensor.mutable_tensor_shape()->add_dim()->set_size(static_cast<int64_t>(counts.size()));
  tensor.mutable_tensor_shape()->add_dim()->set_size(3);
  std::string& rows = *tensor.mutable_tensor_content();  // left, right, count
  for (size_t i = 0; i < counts.size(); ++i) {
    append(rows, static_cast<double>(i));
    append(rows, static_cast<double>(i + 1));
    append(rows, static_cast<double>(counts[i]));
  }
}

void add_image(Summary& to, const std::string& tag, const Image& image, const std::string& description) {
  Summary::Value& value = add(to, tag);
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("images");
  value.mutable_metadata()->set_summary_description(description);
  value.mutable_metadata()->set_data_class(Metadata::BLOB_SEQUENCE);
  value.mutable_image()->set_width(image.width);
  value.mutable_image()->set_height(image.height);
  value.mutable_image()->set_colorspace(kRgba);
  value.mutable_image()->set_encoded_image_string(to_png(image));
}

void add_text(Summary& to, const std::string& tag, std::string_view text) {
  // The plugin renders Markdown, in which lines indented by four are code.
  std::string indented;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    indented += "    " + to_utf8(text.substr(0, end)) + "\n";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  add_tensor(to, tag, "text", Tensor::STRING).add_string_val(indented);
}

}  // namespace switchyard::tensorboard
