#include "trainer/config/overrides.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "trainer/config/excerpt.h"
#include "trainer/config/source.h"
#include "trainer/config/suggest.h"
#include "trainer/files/files.h"

namespace switchyard::config {
namespace {

namespace pb = google::protobuf;

struct FirstMessage : pb::io::ErrorCollector {
  std::string message;
  void AddError(int, int, const std::string& text) override {
    if (message.empty()) message = text;
  }
};

std::string_view trim(std::string_view text) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

// "a, 'b, c', {d, e}" at the commas outside quotes and braces.
std::vector<std::string_view> split_list(std::string_view text) {
  std::vector<std::string_view> items;
  if (trim(text).empty()) return items;
  size_t start = 0;
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quote && text[i] == '\\')
      ++i;
    else if (quote)
      quote = text[i] == quote ? 0 : quote;
    else if (text[i] == '"' || text[i] == '\'')
      quote = text[i];
    else if (text[i] == '{' || text[i] == '}')
      depth += text[i] == '{' ? 1 : -1;
    else if (text[i] == ',' && depth == 0) {
      items.push_back(trim(text.substr(start, i - start)));
      start = i + 1;
    }
  }
  items.push_back(trim(text.substr(start)));
  return items;
}

struct Place {
  pb::Message* message;
  const pb::FieldDescriptor* field;
};

// The field at the path; makes the messages on the way.
Place walk(pb::Message& root, std::string_view path, const std::string& where) {
  pb::Message* message = &root;
  while (true) {
    const size_t dot = path.find('.');
    const std::string name(path.substr(0, dot));
    const pb::FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (!field) {
      const std::vector<std::string> names = field_names(message->GetDescriptor());
      std::string hint = did_you_mean(name, names);
      const std::vector<std::string> elsewhere = paths_ending_in(name);
      if (hint.empty() && !elsewhere.empty()) hint = "; did you mean \"" + elsewhere[0] + "\"?";
      if (hint.empty()) hint = "; its fields: " + join(names);
      fail(Fault::kUsage, where, ": ", name_of_message(message->GetDescriptor()), " has no field \"", name,
           "\"", hint);
    }
    if (dot == std::string_view::npos) return {message, field};
    if (!field->message_type()) fail(Fault::kUsage, where, ": ", name, " is a value; it has no fields");
    if (field->is_repeated())
      fail(Fault::kUsage, where, ": ", name, " is a list; set it whole: ", name, "=[{..}, {..}]");
    message = message->GetReflection()->MutableMessage(message, field);
    path.remove_prefix(dot + 1);
  }
}

void set_string(const Place& place, const std::string& value) {
  const pb::Reflection* reflection = place.message->GetReflection();
  if (place.field->is_repeated())
    reflection->AddString(place.message, place.field, value);
  else
    reflection->SetString(place.message, place.field, value);
}

void set_value(const Place& place, std::string_view value, const std::string& where) {
  const bool quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
  if (place.field->cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING && !quoted) {
    return set_string(place, std::string(value));
  }
  for (const Token& token : tokenize(value)) {
    if (is_octal(token))
      fail(Fault::kUsage, where, ": \"", token.text,
           "\" would be octal; write the number without leading zeros");
  }
  pb::TextFormat::Parser parser;
  FirstMessage collector;
  parser.RecordErrorsTo(&collector);
  parser.SetRecursionLimit(16);
  if (parser.ParseFieldValueFromString(std::string(value), place.field, place.message) &&
      collector.message.empty())
    return;
  if (collector.message.empty()) collector.message = "not a value of this field";
  fail(Fault::kUsage, where, ": ", explain(collector.message, Experiment::descriptor()));
}

void clear(pb::Message& root, std::string_view path) {
  pb::Message* message = &root;
  for (size_t dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.')) {
    const pb::FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(std::string(path.substr(0, dot)));
    if (!message->GetReflection()->HasField(*message, field)) return;
    message = message->GetReflection()->MutableMessage(message, field);
    path.remove_prefix(dot + 1);
  }
  message->GetReflection()->ClearField(message, message->GetDescriptor()->FindFieldByName(std::string(path)));
}

}  // namespace

Override parse_override(const std::string& text) {
  const std::string where = concat("--set ", text.substr(0, 200));
  if (text.find('\0') != std::string::npos || first_invalid_utf8(text) != std::string::npos) {
    fail(Fault::kUsage, "--set: not UTF-8 text");
  }
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) fail(Fault::kUsage, where, ": expected path=value");
  Override result;
  result.append = text[equals - 1] == '+';
  result.path = trim(std::string_view(text).substr(0, equals - (result.append ? 1 : 0)));
  result.value = std::make_unique<Experiment>();
  const Place place = walk(*result.value, result.path, where);
  const std::string_view value = trim(std::string_view(text).substr(equals + 1));
  if (!place.field->is_repeated()) {
    if (result.append) fail(Fault::kUsage, where, ": ", result.path, " is no list; += appends to lists");
    set_value(place, value, where);
  } else if (value.starts_with('[') && value.ends_with(']')) {
    for (const std::string_view item : split_list(value.substr(1, value.size() - 2)))
      set_value(place, item, where);
  } else if (value.starts_with('[')) {
    fail(Fault::kUsage, where, ": the list has no closing ]; text that starts with [ stands in quotes");
  } else {
    set_value(place, value, where);
  }
  return result;
}

void apply(const Override& change, Experiment& onto) {
  if (!change.append) clear(onto, change.path);
  onto.MergeFrom(*change.value);
}

}  // namespace switchyard::config
