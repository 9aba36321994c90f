#include "trainer/config/source.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "trainer/config/excerpt.h"

namespace switchyard::config {
namespace {

namespace pb = google::protobuf;

struct Quiet : pb::io::ErrorCollector {
  void AddError(int, int, const std::string&) override {}
};

struct FirstError : pb::io::ErrorCollector {
  std::optional<std::pair<Position, std::string>> error;
  void AddError(int line, int column, const std::string& message) override {
    if (!error) error = {Position{line, column}, message};
  }
};

bool before(Position a, Position b) { return a.line < b.line || (a.line == b.line && a.column < b.column); }

// The parser complains about these only after it has consumed the token at fault.
bool is_late(const std::string& message) {
  for (const char* late : {"has no field named", "Unknown enumeration value", "Non-repeated field",
                           "Invalid value for boolean field"}) {
    if (message.find(late) != std::string::npos) return true;
  }
  return false;
}

std::pair<std::string_view, std::string_view> split_first(std::string_view path) {
  const size_t dot = path.find('.');
  if (dot == std::string_view::npos) return {path, {}};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

// "blend[2]" is element 2 of the list; without an index the first.
std::pair<std::string, int> split_index(std::string_view step) {
  const size_t bracket = step.find('[');
  int index = 0;
  if (bracket != std::string_view::npos) {
    std::from_chars(step.data() + bracket + 1, step.data() + step.size(), index);
  }
  return {std::string(step.substr(0, bracket)), index};
}

// The token after the element of a list that starts at `token`: its comma, or the list's end.
std::vector<Token>::const_iterator skip_element(std::vector<Token>::const_iterator token,
                                                std::vector<Token>::const_iterator end) {
  for (int depth = 0; token != end; ++token) {
    if (depth == 0 && (token->text == "," || token->text == "]")) break;
    depth += token->text == "{" || token->text == "<";
    depth -= token->text == "}" || token->text == ">";
  }
  return token;
}

}  // namespace

bool has_field(const pb::Message& root, std::string_view path) {
  const pb::Message* message = &root;
  while (true) {
    const auto [step, rest] = split_first(path);
    const auto [name, index] = split_index(step);
    const pb::FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (!field) return false;
    const pb::Reflection* reflection = message->GetReflection();
    const bool present = field->is_repeated() ? reflection->FieldSize(*message, field) > index
                                              : reflection->HasField(*message, field);
    if (!present || rest.empty()) return present;
    message = field->is_repeated() ? &reflection->GetRepeatedMessage(*message, field, index)
                                   : &reflection->GetMessage(*message, field);
    path = rest;
  }
}

std::vector<Token> tokenize(std::string_view text) {
  pb::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  Quiet quiet;
  pb::io::Tokenizer tokenizer(&stream, &quiet);
  tokenizer.set_comment_style(pb::io::Tokenizer::SH_COMMENT_STYLE);
  tokenizer.set_allow_f_after_float(true);
  tokenizer.set_require_space_after_number(false);
  std::vector<Token> tokens;
  while (tokenizer.Next()) tokens.push_back(tokenizer.current());
  return tokens;
}

bool is_octal(const Token& token) {
  return token.type == pb::io::Tokenizer::TYPE_INTEGER && token.text.size() > 1 && token.text[0] == '0' &&
         token.text[1] >= '0' && token.text[1] <= '9';
}

Source::Source(std::string name, std::string text, std::unique_ptr<pb::Message> root, Fault fault)
    : name_(std::move(name)), text_(std::move(text)), root_(std::move(root)), fault_(fault) {}

Source::Source(std::string name, std::unique_ptr<pb::Message> root)
    : name_(std::move(name)), root_(std::move(root)) {}

void Source::check_bytes() const {
  constexpr size_t kMostBytes = 1 << 20;
  if (text_.size() > kMostBytes) fail(fault_, name_, ": ", text_.size(), " bytes are too many for a config");
  const size_t nul = text_.find('\0');
  const size_t bad = std::min(nul, first_invalid_utf8(text_));
  if (bad == std::string::npos) return;
  const auto line = static_cast<int>(std::count(text_.begin(), text_.begin() + static_cast<long>(bad), '\n'));
  const size_t newline = text_.rfind('\n', bad);
  const size_t start = newline == std::string::npos ? 0 : newline + 1;
  fail_at({line, tokenizer_column(line_of(text_, line), bad - start)},
          bad == nul ? "a NUL byte in the text" : "this is not UTF-8 text");
}

void Source::parse() {
  constexpr const char* kByteOrderMark = "\xef\xbb\xbf";
  if (text_.starts_with(kByteOrderMark)) text_.erase(0, 3);
  check_bytes();
  tokens_ = tokenize(text_);
  for (const Token& token : tokens_) {
    if (!is_octal(token)) continue;
    fail_at({token.line, token.column},
            concat("\"", token.text, "\" would be octal; write the number without leading zeros"));
  }
  pb::TextFormat::Parser parser;
  FirstError collector;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&tree_);
  parser.SetRecursionLimit(16);
  const bool parsed = parser.ParseFromString(text_, root_.get());
  if (parsed && !collector.error) return;
  if (!collector.error) fail(fault_, name_, ": not in protobuf text format");
  auto [at, message] = *collector.error;
  if (const Token* token = is_late(message) ? token_before(at) : nullptr) at = {token->line, token->column};
  fail_at(at, explain(message, root_->GetDescriptor()));
}

const Token* Source::token_before(Position at) const {
  const Token* last = nullptr;
  for (const Token& token : tokens_) {
    if (!before({token.line, token.column}, at)) break;
    last = &token;
  }
  return last;
}

// The tree knows where a field's statements begin (`name: value` or `name: [a, b]`);
// the tokens lead to the value.
std::optional<Position> Source::find(std::string_view path, int index) const {
  const pb::TextFormat::ParseInfoTree* tree = &tree_;
  const pb::Descriptor* type = root_->GetDescriptor();
  auto [step, rest] = split_first(path);
  for (; !rest.empty(); std::tie(step, rest) = split_first(rest)) {
    const auto [outer_name, element] = split_index(step);
    const pb::FieldDescriptor* outer = type->FindFieldByName(outer_name);
    tree = tree->GetTreeForNested(outer, outer->is_repeated() ? element : -1);
    if (!tree) return std::nullopt;
    type = outer->message_type();
  }
  const auto [name, own_index] = split_index(step);
  if (own_index > 0) index = own_index;
  const pb::FieldDescriptor* field = type->FindFieldByName(name);
  for (int statement = 0, element = 0;; ++statement) {
    const auto start = tree->GetLocation(field, field->is_repeated() ? statement : -1);
    if (start.line < 0) return std::nullopt;
    auto token = std::find_if(tokens_.begin(), tokens_.end(), [&](const Token& t) {
      return t.line == start.line && t.column == start.column;
    });
    const auto skip = [&](std::string_view text) {
      if (token != tokens_.end() && token->text == text) ++token;
    };
    skip(name);
    skip(":");
    if (token == tokens_.end()) return Position{start.line, start.column};
    if (!field->is_repeated()) return Position{token->line, token->column};
    const bool list = token->text == "[";
    skip("[");
    for (; token != tokens_.end(); ++token) {
      if (list && token->text == "]") break;
      if (element == index) return Position{token->line, token->column};
      if (list) token = skip_element(token, tokens_.end());
      ++element;
      if (!list || token == tokens_.end() || token->text == "]") break;
    }
  }
}

void Source::fail_field(std::string_view path, int index, const std::string& message) const {
  if (const auto at = find(path, index)) fail_at(*at, message);
  fail(fault_, name_, ": ", message);
}

void Source::fail_at(Position at, const std::string& message) const {
  const std::string_view line = line_of(text_, at.line);
  const size_t offset = byte_offset(line, at.column);
  fail(fault_, name_, ":", at.line + 1, ":", code_points(line.substr(0, offset)) + 1, ": ", message, "\n",
       excerpt(line, offset));
}

}  // namespace switchyard::config
