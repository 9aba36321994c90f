// A SentencePiece .model (a protobuf message) as the tokenizer.json that encodes alike.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

inline constexpr char kSpaceMarker[] = "\xe2\x96\x81";  // U+2581: how SentencePiece writes a space

// BPE models with byte fallback that leave the text as it is; others are refused.
// Fault::kData names `origin`.
std::string sentencepiece_to_json(std::string_view model, const std::string& origin);

}  // namespace switchyard
