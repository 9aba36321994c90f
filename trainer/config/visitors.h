// Between option structs and protobuf messages, field by field (fields.h).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config/fields.h"

namespace google::protobuf {
class Message;
class FieldDescriptor;
}  // namespace google::protobuf

namespace switchyard::config {

// Told the field's path, the element's index and what is wrong; does not return.
using OnBadValue = std::function<void(const std::string& path, int index, const std::string& message)>;

// Fields that the message has replace those of the struct; the others stay.
void read(const google::protobuf::Message& experiment, Config& into, const OnBadValue& bad);
void read_model(const google::protobuf::Message& model, ModelOptions& into, const OnBadValue& bad);
// All fields, given or not.
void write(const Config&, google::protobuf::Message& experiment);
void write_model(const ModelOptions&, google::protobuf::Message& model);

// What is wrong with one value, or "".
std::string complaint(const std::string& path, double value, const std::string& shown, const Rule&);
std::string complaint(const std::string& path, const std::string& value, const Rule&);

}  // namespace switchyard::config
