#include "trainer/config/visitors.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <type_traits>

namespace switchyard::config {
namespace {

namespace pb = google::protobuf;

// Number of Moe.NONE in the schema: an explicitly empty list of balance losses.
constexpr int kNoBalance = 5;

const pb::FieldDescriptor* field_of(const pb::Message& message, const char* name) {
  const pb::FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  CHECK(field, "the schema lacks ", name);
  return field;
}

template <class T>
T get(const pb::Message& m, const pb::FieldDescriptor* f) {
  const pb::Reflection* r = m.GetReflection();
  if constexpr (std::is_same_v<T, bool>)
    return r->GetBool(m, f);
  else if constexpr (std::is_enum_v<T>)
    return static_cast<T>(r->GetEnumValue(m, f));
  else if constexpr (std::is_same_v<T, int64_t>)
    return r->GetInt64(m, f);
  else if constexpr (std::is_same_v<T, uint64_t>)
    return r->GetUInt64(m, f);
  else if constexpr (std::is_same_v<T, double>)
    return r->GetDouble(m, f);
  else
    return r->GetString(m, f);
}

template <class T>
T get(const pb::Message& m, const pb::FieldDescriptor* f, int index) {
  const pb::Reflection* r = m.GetReflection();
  if constexpr (std::is_enum_v<T>)
    return static_cast<T>(r->GetRepeatedEnumValue(m, f, index));
  else if constexpr (std::is_same_v<T, int64_t>)
    return r->GetRepeatedInt64(m, f, index);
  else
    return r->GetRepeatedString(m, f, index);
}

template <class T>
void set(pb::Message& m, const pb::FieldDescriptor* f, const T& value) {
  const pb::Reflection* r = m.GetReflection();
  if constexpr (std::is_same_v<T, bool>)
    r->SetBool(&m, f, value);
  else if constexpr (std::is_enum_v<T>)
    r->SetEnumValue(&m, f, static_cast<int>(value));
  else if constexpr (std::is_same_v<T, int64_t>)
    r->SetInt64(&m, f, value);
  else if constexpr (std::is_same_v<T, uint64_t>)
    r->SetUInt64(&m, f, value);
  else if constexpr (std::is_same_v<T, double>)
    r->SetDouble(&m, f, value);
  else
    r->SetString(&m, f, value);
}

template <class T>
void add(pb::Message& m, const pb::FieldDescriptor* f, const T& value) {
  const pb::Reflection* r = m.GetReflection();
  if constexpr (std::is_enum_v<T>)
    r->AddEnumValue(&m, f, static_cast<int>(value));
  else if constexpr (std::is_same_v<T, int64_t>)
    r->AddInt64(&m, f, value);
  else
    r->AddString(&m, f, value);
}

std::string complaint_about_enum(const std::string& path, int number, const pb::EnumDescriptor* type) {
  if (type->FindValueByNumber(number)) return "";
  std::string names;
  for (int i = 0; i < type->value_count(); ++i) names += (i ? ", " : "") + type->value(i)->name();
  return fmt::format("{} is {}, which is no value of it ({})", path, number, names);
}

struct Reader {
  const pb::Message& message;
  std::string prefix;
  const OnBadValue& bad;

  void report(const char* name, int index, const std::string& what) const {
    if (!what.empty()) bad(prefix + name, index, what);
  }

  template <class T>
  void check(const char* name, int index, const T& value, const Rule& rule) const {
    const std::string path = prefix + name;
    if constexpr (std::is_enum_v<T>) {
      report(name, index,
             complaint_about_enum(path, static_cast<int>(value), field_of(message, name)->enum_type()));
    } else if constexpr (std::is_same_v<T, std::string>) {
      report(name, index, complaint(path, value, rule));
    } else if constexpr (!std::is_same_v<T, bool>) {
      report(name, index, complaint(path, static_cast<double>(value), fmt::format("{}", value), rule));
    }
  }

  template <class T>
  void operator()(const char* name, T& member, const Rule& rule) {
    const pb::FieldDescriptor* field = field_of(message, name);
    if (!message.GetReflection()->HasField(message, field)) return;
    // Checked as the message holds it: a number outside the C++ enum must not be narrowed first.
    if constexpr (std::is_enum_v<T>) {
      const int number = message.GetReflection()->GetEnumValue(message, field);
      report(name, 0, complaint_about_enum(prefix + name, number, field->enum_type()));
    }
    member = get<T>(message, field);
    if constexpr (!std::is_enum_v<T>) check(name, 0, member, rule);
  }

  template <class T>
  void operator()(const char* name, std::vector<T>& member, const Rule& rule) {
    const pb::FieldDescriptor* field = field_of(message, name);
    const int size = message.GetReflection()->FieldSize(message, field);
    if (size == 0) return;
    member.clear();
    for (int i = 0; i < size; ++i) {
      member.push_back(get<T>(message, field, i));
      check(name, i, member.back(), rule);
      if (std::count(member.begin(), member.end(), member.back()) > 1 && !std::is_same_v<T, std::string>) {
        report(name, i, prefix + name + " names the same value twice");
      }
    }
  }

  void operator()(const char* name, std::vector<Balance>& member, const Rule&) {
    const pb::FieldDescriptor* field = field_of(message, name);
    const pb::Reflection* reflection = message.GetReflection();
    const int size = reflection->FieldSize(message, field);
    if (size > 0) member.clear();
    for (int i = 0; i < size; ++i) {
      const int number = reflection->GetRepeatedEnumValue(message, field, i);
      report(name, i, complaint_about_enum(prefix + name, number, field->enum_type()));
      if (number == kNoBalance && size > 1) report(name, i, prefix + name + ": NONE must stand alone");
      const auto balance = static_cast<Balance>(number);
      if (std::count(member.begin(), member.end(), balance) > 0)
        report(name, i, prefix + name + " names the same value twice");
      if (number != kNoBalance) member.push_back(balance);
    }
  }

  template <class T, class Visit>
  void group(const char* name, T& member, const Visit& visit) {
    const pb::FieldDescriptor* field = field_of(message, name);
    if (!message.GetReflection()->HasField(message, field)) return;
    Reader inner{message.GetReflection()->GetMessage(message, field), prefix + name + ".", bad};
    visit(inner, member);
  }

  template <class T, class Visit>
  void list(const char* name, std::vector<T>& member, const Visit& visit) {
    const pb::FieldDescriptor* field = field_of(message, name);
    const int size = message.GetReflection()->FieldSize(message, field);
    if (size > 0) member.assign(size, T{});
    for (int i = 0; i < size; ++i) {
      Reader inner{message.GetReflection()->GetRepeatedMessage(message, field, i),
                   fmt::format("{}{}[{}].", prefix, name, i), bad};
      visit(inner, member[i]);
    }
  }

  template <class T, class Visit>
  void group(const char* name, std::optional<T>& member, const Visit& visit) {
    if (!message.GetReflection()->HasField(message, field_of(message, name))) return;
    if (!member) member.emplace();
    group(name, *member, visit);
  }
};

struct Writer {
  pb::Message& message;

  template <class T>
  void operator()(const char* name, const T& member, const Rule&) {
    set(message, field_of(message, name), member);
  }

  template <class T>
  void operator()(const char* name, const std::vector<T>& member, const Rule&) {
    for (const T& value : member) add(message, field_of(message, name), value);
  }

  void operator()(const char* name, const std::vector<Balance>& member, const Rule&) {
    const pb::FieldDescriptor* field = field_of(message, name);
    for (const Balance balance : member) add(message, field, balance);
    if (member.empty()) message.GetReflection()->AddEnumValue(&message, field, kNoBalance);
  }

  template <class T, class Visit>
  void group(const char* name, const T& member, const Visit& visit) {
    Writer inner{*message.GetReflection()->MutableMessage(&message, field_of(message, name))};
    visit(inner, member);
  }

  template <class T, class Visit>
  void list(const char* name, const std::vector<T>& member, const Visit& visit) {
    for (const T& element : member) {
      Writer inner{*message.GetReflection()->AddMessage(&message, field_of(message, name))};
      visit(inner, element);
    }
  }

  template <class T, class Visit>
  void group(const char* name, const std::optional<T>& member, const Visit& visit) {
    if (member) group(name, *member, visit);
  }
};

}  // namespace

void read(const pb::Message& experiment, Config& into, const OnBadValue& bad) {
  Reader reader{experiment, "", bad};
  each_field(reader, into);
}

void read_model(const pb::Message& model, ModelOptions& into, const OnBadValue& bad) {
  Reader reader{model, "model.", bad};
  each_model_field(reader, into);
}

void write(const Config& config, pb::Message& experiment) {
  Writer writer{experiment};
  each_field(writer, config);
}

void write_model(const ModelOptions& model, pb::Message& message) {
  Writer writer{message};
  each_model_field(writer, model);
}

}  // namespace switchyard::config
