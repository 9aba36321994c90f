// TFRecord, the framing of TensorBoard's event files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

// CRC-32C (Castagnoli), reflected; of "123456789" it is e3069283.
uint32_t crc32c(std::string_view bytes);

// length u64 | masked crc32c of the length's bytes | data | masked crc32c of the data, all little-endian,
// where masked(c) = (c rotated right by 15) + a282ead8.
std::string tf_record(std::string_view data);

}  // namespace switchyard
