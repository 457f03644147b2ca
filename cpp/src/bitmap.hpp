// Sets of row ids as bits: bit r % 64 of word r / 64 is row r.
//
// Thread safety: functions of their arguments alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace upvec {

[[nodiscard]] constexpr std::size_t words_for(std::size_t rows) noexcept {
  return (rows + 63) / 64;
}

[[nodiscard]] std::size_t count_bits(std::span<const std::uint64_t> words) noexcept;

// The rows whose bits are set, in order.
[[nodiscard]] std::vector<std::int64_t> rows_of_bits(std::span<const std::uint64_t> words);

// Sets the bits of rows, which must all be in [0, 64 * words.size()); false, with some of them set,
// if one is not.
[[nodiscard]] bool set_bits(std::span<const std::int64_t> rows,
                            std::span<std::uint64_t> words) noexcept;

}  // namespace upvec
