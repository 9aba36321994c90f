#include <google/protobuf/descriptor.h>

#include <chrono>
#include <map>

#include "configs/schema/experiment.pb.h"
#include "trainer/config/visitors.h"
#include "trainer/data/utf8.h"
#include "trainer/metrics/tensorboard/event.pb.h"
#include "trainer/metrics/tensorboard/summaries.h"

namespace switchyard::tensorboard {
namespace {

namespace pb = google::protobuf;
using Values = std::map<std::string, HParams::Value>;

HParams::Value value_of(const pb::Message& message, const pb::FieldDescriptor& field) {
  const pb::Reflection& r = *message.GetReflection();
  HParams::Value value;
  switch (field.cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_BOOL: value.set_bool_value(r.GetBool(message, &field)); break;
    case pb::FieldDescriptor::CPPTYPE_DOUBLE: value.set_number_value(r.GetDouble(message, &field)); break;
    case pb::FieldDescriptor::CPPTYPE_INT64:
      value.set_number_value(static_cast<double>(r.GetInt64(message, &field)));
      break;
    case pb::FieldDescriptor::CPPTYPE_UINT64:
      value.set_number_value(static_cast<double>(r.GetUInt64(message, &field)));
      break;
    case pb::FieldDescriptor::CPPTYPE_ENUM: value.set_string_value(r.GetEnum(message, &field)->name()); break;
    case pb::FieldDescriptor::CPPTYPE_STRING:
      value.set_string_value(to_utf8(r.GetString(message, &field)));
      break;
    default: fail(Fault::kInternal, "a field of a new type: ", field.full_name());
  }
  return value;
}

void collect(const pb::Message& message, const std::string& prefix, Values& into) {
  std::vector<const pb::FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const pb::FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    if (field->is_repeated()) continue;
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE)
      collect(message.GetReflection()->GetMessage(message, field), path + ".", into);
    else
      into[path] = value_of(message, *field);
  }
}

HParams::Type type_of(const HParams::Value& value) {
  if (value.kind_case() == HParams::Value::kBoolValue) return HParams::BOOL;
  return value.kind_case() == HParams::Value::kNumberValue ? HParams::FLOAT64 : HParams::STRING;
}

// All that counts is in the metadata; the value is an empty tensor.
void add(Summary& to, const std::string& tag, const HParams& content) {
  Summary::Value& value = *to.add_value();
  value.set_tag("_hparams_/" + tag);
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("hparams");
  value.mutable_metadata()->mutable_plugin_data()->set_content(content.SerializeAsString());
  value.mutable_metadata()->set_data_class(Metadata::TENSOR);
  value.mutable_tensor()->set_dtype(Tensor::FLOAT);
  value.mutable_tensor()->mutable_tensor_shape()->add_dim()->set_size(0);
}

}  // namespace

void add_hparams(Summary& to, const Config& config, const std::vector<std::string>& metric_tags) {
  config::Experiment resolved;
  config::write(config, resolved);
  Values values;
  collect(resolved, "", values);

  HParams experiment, start;
  for (const auto& [path, value] : values) {
    HParams::Parameter& parameter = *experiment.mutable_experiment()->add_hparam_infos();
    parameter.set_name(path);
    parameter.set_type(type_of(value));
    (*start.mutable_session_start_info()->mutable_hparams())[path] = value;
  }
  for (const std::string& tag : metric_tags)
    experiment.mutable_experiment()->add_metric_infos()->mutable_name()->set_tag(tag);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  start.mutable_session_start_info()->set_start_time_secs(std::chrono::duration<double>(now).count());
  add(to, "experiment", experiment);
  add(to, "session_start_info", start);
}

}  // namespace switchyard::tensorboard
