// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78): eight bytes a step by tables.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace upvec {

namespace checksum_detail {
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
    tables[0][i] = crc;
  }
  for (std::size_t t = 1; t < 8; ++t) {
    for (std::size_t i = 0; i < 256; ++i) {
      tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
    }
  }
  return tables;
}
inline constexpr Tables kTables = make_tables();
}  // namespace checksum_detail

// Pass the previous result to continue over several pieces.
inline std::uint32_t crc32c(const void* data, std::size_t size_bytes,
                            std::uint32_t crc = 0) noexcept {
  const auto& t = checksum_detail::kTables;
  const auto* at = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; size_bytes >= 8; size_bytes -= 8, at += 8) {
    const std::uint32_t low = crc ^ (std::uint32_t{at[0]} | std::uint32_t{at[1]} << 8 |
                                     std::uint32_t{at[2]} << 16 | std::uint32_t{at[3]} << 24);
    crc = t[7][low & 0xff] ^ t[6][low >> 8 & 0xff] ^ t[5][low >> 16 & 0xff] ^ t[4][low >> 24] ^
          t[3][at[4]] ^ t[2][at[5]] ^ t[1][at[6]] ^ t[0][at[7]];
  }
  for (; size_bytes > 0; --size_bytes, ++at) crc = (crc >> 8) ^ t[0][(crc ^ *at) & 0xff];
  return ~crc;
}

}  // namespace upvec
