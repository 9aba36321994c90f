// Texts to ids and back:   tokenize TOKENIZER <TEXTS >IDS
// A JSON string a line comes in; {"ids": [..], "text": ..} goes out, where text is the ids' text again.
#include <fmt/format.h>

#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>

#include "trainer/data/tokenizer.h"

namespace {

void tokenize(const std::string& path) {
  const auto tokenizer = switchyard::load_tokenizer(path);
  for (std::string line; std::getline(std::cin, line);) {
    const std::vector<int32_t> ids = tokenizer->encode(nlohmann::json::parse(line).get<std::string>());
    const nlohmann::json result = {{"ids", ids}, {"text", tokenizer->decode(ids)}};
    std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    tokenize(argv[1]);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "tokenize: {}\n", error.what());
    return 3;
  }
}
