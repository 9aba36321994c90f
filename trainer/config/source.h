// One text of configuration (the file, a --merge text or a --set) with what its messages need: where every
// field and value stands.
#pragma once

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"

namespace switchyard::config {

// Line and column are zero-based; the column is the tokenizer's: a tab moves it to the next multiple of 8.
struct Position {
  int line = 0, column = 0;
};

using Token = google::protobuf::io::Tokenizer::Token;

// The tokens of a text as far as it can be read. An octal-looking integer is among them.
std::vector<Token> tokenize(std::string_view text);
// "08", "010": an octal literal for the parser, a surprise for everybody else.
bool is_octal(const Token&);

// The name by which messages call a message type: "model.moe".
std::string name_of_message(const google::protobuf::Descriptor* type);
// Every field's path under the experiment that ends in `.name`; for "did you mean".
std::vector<std::string> paths_ending_in(std::string_view name);
std::vector<std::string> field_names(const google::protobuf::Descriptor* type);
std::vector<std::string> value_names(const google::protobuf::EnumDescriptor* type);
// A clearer text for what the parser says, with a suggestion.
std::string explain(const std::string& parser_message, const google::protobuf::Descriptor* root);

// Whether the message has the field, e.g. "model.moe.top_k".
bool has_field(const google::protobuf::Message& root, std::string_view path);

class Source {
 public:
  // A text to parse into `root`'s type; parse() fills it. `fault` is the exit code of every error in it.
  Source(std::string name, std::string text, std::unique_ptr<google::protobuf::Message> root, Fault fault);
  // A --set: already parsed, without positions.
  Source(std::string name, std::unique_ptr<google::protobuf::Message> root);

  void parse();
  const google::protobuf::Message& root() const { return *root_; }

  bool has(std::string_view path) const { return has_field(*root_, path); }
  // Throws: at the field's value where the text has one, else with the source's and the field's name. `index`
  // counts the elements of a repeated field.
  [[noreturn]] void fail_field(std::string_view path, int index, const std::string& message) const;
  [[noreturn]] void fail_at(Position at, const std::string& message) const;

 private:
  void check_bytes() const;
  std::optional<Position> find(std::string_view path, int index) const;
  const Token* token_before(Position at) const;

  std::string name_, text_;
  std::unique_ptr<google::protobuf::Message> root_;
  Fault fault_ = Fault::kUsage;
  std::vector<Token> tokens_;
  google::protobuf::TextFormat::ParseInfoTree tree_;
};

}  // namespace switchyard::config
