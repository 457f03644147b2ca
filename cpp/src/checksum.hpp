// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78).
#pragma once

#include <cstddef>
#include <cstdint>

namespace upvec {

// Pass the previous result to continue over several pieces.
[[nodiscard]] std::uint32_t crc32c(const void* data, std::size_t size_bytes,
                                   std::uint32_t crc = 0) noexcept;

// The same by tables, whatever the processor has.
[[nodiscard]] std::uint32_t crc32c_by_tables(const void* data, std::size_t size_bytes,
                                             std::uint32_t crc = 0) noexcept;

}  // namespace upvec
