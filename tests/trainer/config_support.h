// Small configs as text, and what their errors say.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "trainer/config.h"

namespace switchyard {

inline const char* const kModel =
    "model { hidden_size: 64 num_layers: 2 num_attention_heads: 4 "
    "moe { num_experts: 8 top_k: 2 moe_intermediate_size: 32 } }\n";

using Texts = std::vector<std::string>;

inline Config parse(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return parse_config(text, "f.txtpb", sets, merges);
}

inline Config parse_after_model(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return parse(kModel + text, sets, merges);
}

// The message of the error that `body` must throw, with its exit code checked.
template <class Body>
std::string error_of(const Body& body, Fault fault = Fault::kUsage) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), fault) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

inline std::string config_error(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return error_of([&] { parse(text, sets, merges); });
}

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in:\n" << text;
}

}  // namespace switchyard
