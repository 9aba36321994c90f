#include "trainer/metrics/png.h"

#include <zlib.h>

#include "kernels/check.h"

namespace switchyard {
namespace {

std::string big_endian(uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

// length | name | data | CRC-32 of name and data
std::string chunk(const std::string& name, const std::string& data) {
  const std::string body = name + data;
  const uLong crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(static_cast<uint32_t>(crc));
}

std::string deflated(const std::string& bytes) {
  uLongf size = compressBound(bytes.size());
  std::string out(size, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(out.data()), &size,
                               reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 6);
  CHECK(status == Z_OK, "zlib: ", status);
  out.resize(size);
  return out;
}

}  // namespace

std::string to_png(const Image& image) {
  std::string rows;
  rows.reserve(image.pixels.size() * 4 + static_cast<size_t>(image.height));
  for (int y = 0; y < image.height; ++y) {
    rows += '\2';  // each byte less the one above it: the rows of a cell become zeros
    for (int x = 0; x < image.width; ++x) {
      const size_t i = static_cast<size_t>(y) * image.width + x;
      const Color c = image.pixels[i], above = y > 0 ? image.pixels[i - image.width] : Color();
      rows += static_cast<char>(c.red - above.red);
      rows += static_cast<char>(c.green - above.green);
      rows += static_cast<char>(c.blue - above.blue);
      rows += static_cast<char>(c.alpha - above.alpha);
    }
  }
  const std::string header = big_endian(static_cast<uint32_t>(image.width)) +
                             big_endian(static_cast<uint32_t>(image.height)) +
                             std::string("\x08\x06\0\0\0", 5);
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("IDAT", deflated(rows)) + chunk("IEND", "");
}

}  // namespace switchyard
