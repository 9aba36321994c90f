#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

namespace switchyard::fuzz {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kWords[] = {"{"sv,
                                       "}"sv,
                                       "["sv,
                                       "]"sv,
                                       ","sv,
                                       ":"sv,
                                       "\""sv,
                                       "\\"sv,
                                       "\\u0000"sv,
                                       "\\ud800"sv,
                                       "null"sv,
                                       "true"sv,
                                       "{}"sv,
                                       "[]"sv,
                                       "[[[[[[[[[[[[[[[["sv,
                                       "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"sv,
                                       "-"sv,
                                       "1e999"sv,
                                       "nan"sv,
                                       "inf"sv,
                                       "0"sv,
                                       "-1"sv,
                                       "010"sv,
                                       "../"sv,
                                       "/dev/zero"sv,
                                       "\0"sv,
                                       "\xff"sv,
                                       "\xef\xbb\xbf"sv,
                                       "\xed\xa0\x80"sv,
                                       "\xf4\x90\x80\x80"sv,
                                       "\n"sv,
                                       "\r"sv,
                                       "\t"sv,
                                       " "sv,
                                       "F32"sv,
                                       "BF16"sv,
                                       "U8"sv,
                                       "F4"sv,
                                       "\"shape\":[]"sv,
                                       "\"data_offsets\":[0,0]"sv,
                                       "__metadata__"sv,
                                       "(?R)"sv,
                                       "(a*)*"sv,
                                       "\\p{L}"sv,
                                       "\xe2\x96\x81"sv,
                                       "<0x00>"sv,
                                       "<"sv,
                                       ">"sv,
                                       "#"sv,
                                       "'"sv};

constexpr std::string_view kDigits[] = {"0",
                                        "1",
                                        "-1",
                                        "2",
                                        "127",
                                        "255",
                                        "256",
                                        "65535",
                                        "65536",
                                        "16777215",
                                        "2147483647",
                                        "2147483648",
                                        "4294967295",
                                        "4294967296",
                                        "9007199254740993",
                                        "1e15",
                                        "1.5",
                                        "1e-320",
                                        "9223372036854775807",
                                        "9223372036854775808",
                                        "18446744073709551615",
                                        "18446744073709551616",
                                        "99999999999999999999999999"};

constexpr uint64_t kNumbers[] = {0,
                                 1,
                                 2,
                                 7,
                                 8,
                                 127,
                                 128,
                                 255,
                                 256,
                                 32767,
                                 65535,
                                 65536,
                                 1 << 24,
                                 INT32_MAX,
                                 uint64_t{1} << 31,
                                 UINT32_MAX,
                                 uint64_t{1} << 32,
                                 uint64_t{1} << 40,
                                 INT64_MAX,
                                 uint64_t{1} << 63,
                                 UINT64_MAX - 7,
                                 UINT64_MAX};

void write_number(std::string& text, Random& random) {
  const size_t width = size_t{1} << random.below(4);
  if (text.size() < width) return;
  const size_t at = random.below(text.size() - width + 1);
  uint64_t value = kNumbers[random.below(std::size(kNumbers))];
  if (random.one_in(3)) {
    std::memcpy(&value, text.data() + at, width);
    value += random.below(33) - 16;
  }
  std::memcpy(text.data() + at, &value, width);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Another number in the place of one that is written in digits.
void replace_digits(std::string& text, Random& random) {
  if (text.empty()) return;
  const auto from = text.begin() + static_cast<std::ptrdiff_t>(random.below(text.size()));
  const auto begin = std::find_if(from, text.end(), is_digit);
  const auto end = std::find_if_not(begin, text.end(), is_digit);
  if (begin == text.end()) return;
  const std::string_view digits = kDigits[random.below(std::size(kDigits))];
  text.replace(begin, end, digits.begin(), digits.end());
}

void insert(std::string& text, std::string_view part, Random& random) {
  if (text.size() + part.size() <= kMostBytes) text.insert(random.below(text.size() + 1), part);
}

std::string_view part_of(std::string_view text, Random& random) {
  const size_t begin = random.below(text.size() + 1);
  return text.substr(begin, random.below(std::min<size_t>(text.size() - begin, 256) + 1));
}

void change(std::string& text, const std::string& other, Random& random) {
  const size_t at = random.below(text.size());
  switch (random.below(10)) {
    case 0:
      if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
      break;
    case 1:
      if (!text.empty()) text[at] = static_cast<char>(random.next());
      break;
    case 2: write_number(text, random); break;
    case 3:
    case 4: replace_digits(text, random); break;
    case 5: insert(text, kWords[random.below(std::size(kWords))], random); break;
    case 6: insert(text, std::string(part_of(text, random)), random); break;
    case 7: insert(text, part_of(other, random), random); break;
    case 8: text.erase(at, random.below(random.one_in(4) ? 4096 : 16) + 1); break;
    default:
      if (random.one_in(4)) text.resize(at);
  }
}

}  // namespace

std::string mutated(std::string text, const std::string& other, Random& random) {
  for (size_t left = 1 + random.below(random.one_in(2) ? 1 : 8); left > 0; --left)
    change(text, other, random);
  return text;
}

}  // namespace switchyard::fuzz
