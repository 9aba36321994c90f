// Options back to text, and comparing them field by field.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <memory>
#include <set>

#include "configs/schema/experiment.pb.h"
#include "trainer/config.h"
#include "trainer/config/source.h"
#include "trainer/config/visitors.h"

namespace switchyard {
namespace {

namespace pb = google::protobuf;

std::string print(const pb::Message& message) {
  pb::TextFormat::Printer printer;
  printer.SetUseShortRepeatedPrimitives(true);
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  CHECK(printer.PrintToString(message, &text));
  return text;
}

// Paths of the fields on which a tensor's shape or presence depends.
struct ShapeFields {
  std::set<std::string>& paths;
  std::string prefix;

  template <class T>
  void operator()(const char* name, const T&, const config::Rule& rule) {
    if (rule.fixes_shape) paths.insert(prefix + name);
  }
  template <class T, class Visit>
  void group(const char* name, const std::optional<T>&, const Visit& visit) {
    paths.insert(prefix + name);
    ShapeFields inner{paths, prefix + name + "."};
    const T any{};
    visit(inner, any);
  }
};

std::set<std::string> shape_fields() {
  std::set<std::string> paths;
  ShapeFields visitor{paths, "model."};
  config::each_model_field(visitor, static_cast<const ModelOptions&>(ModelOptions{}));
  return paths;
}

std::string value_text(const pb::Message& message, const pb::FieldDescriptor* field) {
  const pb::Reflection* reflection = message.GetReflection();
  std::string text;
  if (!field->is_repeated()) {
    pb::TextFormat::PrintFieldValueToString(message, field, -1, &text);
    return text;
  }
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    std::string element;
    pb::TextFormat::PrintFieldValueToString(message, field, i, &element);
    text += (i ? ", " : "") + element;
  }
  return "[" + text + "]";
}

void compare(const pb::Message& first, const pb::Message& second, const std::string& prefix,
             const std::set<std::string>& shapes, std::vector<FieldDifference>& differences) {
  const pb::Descriptor* type = first.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const pb::FieldDescriptor* field = type->field(i);
    const std::string path = prefix + field->name();
    if (!field->message_type()) {
      std::string a = value_text(first, field), b = value_text(second, field);
      if (a != b) differences.push_back({path, std::move(a), std::move(b), shapes.count(path) > 0});
      continue;
    }
    const bool in_first = first.GetReflection()->HasField(first, field);
    const bool in_second = second.GetReflection()->HasField(second, field);
    if (in_first != in_second) {
      differences.push_back(
          {path, in_first ? "given" : "absent", in_second ? "given" : "absent", shapes.count(path) > 0});
    } else if (in_first) {
      compare(first.GetReflection()->GetMessage(first, field),
              second.GetReflection()->GetMessage(second, field), path + ".", shapes, differences);
    }
  }
}

bool has_dense_branch(const ModelOptions& model) { return model.moe && model.moe->dense_weight > 0; }

std::vector<bool> moe_layers(const ModelOptions& model) {
  std::vector<bool> layers;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) layers.push_back(model.is_moe(layer));
  return layers;
}

// Fields that fix a shape in some models only.
void refine(FieldDifference& difference, const ModelOptions& first, const ModelOptions& second) {
  const std::string& field = difference.field;
  if (field == "model.moe.dense_weight") {
    difference.fixes_shape = has_dense_branch(first) != has_dense_branch(second);
  } else if (field == "model.intermediate_size") {
    const auto used = [](const ModelOptions& m) {
      const std::vector<bool> layers = moe_layers(m);
      return has_dense_branch(m) || std::find(layers.begin(), layers.end(), false) != layers.end();
    };
    difference.fixes_shape = used(first) || used(second);
  } else if (field == "model.first_dense_layers" || field == "model.moe_layer_interval" ||
             field == "model.dense_layers") {
    difference.fixes_shape = moe_layers(first) != moe_layers(second);
  }
}

}  // namespace

std::string resolved_text(const Config& config) {
  config::Experiment experiment;
  config::write(config, experiment);
  return "# proto-file: configs/schema/experiment.proto\n# proto-message: switchyard.config.Experiment\n"
         "# Every field as the run used it.\n\n" +
         print(experiment);
}

std::string model_to_text(const ModelOptions& model) {
  config::Model message;
  config::write_model(model, message);
  return print(message);
}

ModelOptions model_from_text(std::string_view text, const std::string& where) {
  config::Source source(where, std::string(text), std::make_unique<config::Model>(), Fault::kData);
  source.parse();
  ModelOptions model;
  config::read_model(source.root(), model,
                     [&](const std::string& path, int index, const std::string& message) {
                       source.fail_field(path.substr(path.find('.') + 1), index, message);
                     });
  check_model(model, where, Fault::kData);
  return model;
}

std::vector<FieldDifference> model_differences(const ModelOptions& first, const ModelOptions& second) {
  config::Model a, b;
  config::write_model(first, a);
  config::write_model(second, b);
  std::vector<FieldDifference> differences;
  compare(a, b, "model.", shape_fields(), differences);
  for (FieldDifference& difference : differences) refine(difference, first, second);
  return differences;
}

}  // namespace switchyard
