// From what the text format parser says to what a user can act on.
#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "configs/schema/experiment.pb.h"
#include "trainer/config/source.h"
#include "trainer/config/suggest.h"
#include "trainer/files/files.h"

namespace switchyard::config {
namespace {

namespace pb = google::protobuf;

// The text between the n-th pair of double quotes.
std::string quoted(const std::string& text, int n) {
  size_t begin = 0, end = 0;
  for (int i = 0; i <= n; ++i) {
    begin = text.find('"', i == 0 ? 0 : end + 1);
    end = begin == std::string::npos ? begin : text.find('"', begin + 1);
    if (end == std::string::npos) return "";
  }
  return text.substr(begin + 1, end - begin - 1);
}

// Calls visit(path, field) for every field below `type`, outer fields first.
template <class Visit>
void each_path(const pb::Descriptor* type, const std::string& prefix, const Visit& visit) {
  for (int i = 0; i < type->field_count(); ++i) visit(prefix + type->field(i)->name(), type->field(i));
  for (int i = 0; i < type->field_count(); ++i) {
    const pb::FieldDescriptor* field = type->field(i);
    if (field->message_type()) each_path(field->message_type(), prefix + field->name() + ".", visit);
  }
}

std::string explain_unknown_field(const std::string& message) {
  const std::string name = quoted(message, 1);
  const auto* pool = Experiment::descriptor()->file()->pool();
  const pb::Descriptor* type = pool->FindMessageTypeByName(quoted(message, 0));
  if (!type) return message;
  std::string hint = did_you_mean(name, field_names(type));
  if (hint.empty()) {
    const std::vector<std::string> elsewhere = paths_ending_in(name);
    hint = Experiment::descriptor()->FindFieldByName(name) ? "; is a \"}\" missing before it?"
           : elsewhere.empty()                             ? concat("; its fields: ", join(field_names(type)))
                                                           : concat("; did you mean \"", elsewhere[0], "\"?");
  }
  return name_of_message(type) + " has no field \"" + name + "\"" + hint;
}

std::string explain_unknown_value(const std::string& message, const pb::Descriptor* root) {
  const std::string value = quoted(message, 0), name = quoted(message, 1);
  std::string text = concat('"', value, "\" is no value of ", name);
  each_path(root, "", [&](const std::string&, const pb::FieldDescriptor* field) {
    if (field->name() != name || !field->enum_type()) return;
    const std::vector<std::string> names = value_names(field->enum_type());
    text += concat(" (", join(names), ")", did_you_mean(value, names));
  });
  return text;
}

}  // namespace

std::string name_of_message(const pb::Descriptor* type) {
  std::string name = "the config";
  each_path(Experiment::descriptor(), "", [&](const std::string& path, const pb::FieldDescriptor* field) {
    if (field->message_type() == type) name = path;
  });
  return name;
}

std::vector<std::string> paths_ending_in(std::string_view name) {
  std::vector<std::string> paths;
  each_path(Experiment::descriptor(), "", [&](const std::string& path, const pb::FieldDescriptor* field) {
    if (field->name() == name) paths.push_back(path);
  });
  return paths;
}

std::vector<std::string> field_names(const pb::Descriptor* type) {
  std::vector<std::string> names;
  for (int i = 0; i < type->field_count(); ++i) names.push_back(type->field(i)->name());
  return names;
}

std::vector<std::string> value_names(const pb::EnumDescriptor* type) {
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) names.push_back(type->value(i)->name());
  return names;
}

std::string explain(const std::string& message, const pb::Descriptor* root) {
  if (message.find("has no field named") != std::string::npos) return explain_unknown_field(message);
  if (message.starts_with("Unknown enumeration value")) return explain_unknown_value(message, root);
  if (message.starts_with("Non-repeated field")) return concat('"', quoted(message, 0), "\" is given twice");
  if (message.starts_with("Invalid value for boolean field")) {
    return concat('"', quoted(message, 1), "\" is no value of ", quoted(message, 0), " (true, false)");
  }
  if (message.starts_with("Expected string, got: ")) return message + " (text stands in quotes)";
  if (message.ends_with("got: ")) return message + "the end of the text";
  return message;
}

}  // namespace switchyard::config
