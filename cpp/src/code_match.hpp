// Which codes of a chunk lie in a range, as bits.
//
// Thread safety: functions of their arguments alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace upvec {

// Codes are compared in blocks of so many; they must be padded to whole ones.
constexpr std::size_t kCodeBlock = 64;

#if defined(__SSE2__)

inline std::uint64_t bits_in_range(const std::uint8_t* codes, std::uint8_t low,
                                   std::uint8_t width) noexcept {
  const __m128i lows = _mm_set1_epi8(static_cast<char>(low));
  const __m128i widths = _mm_set1_epi8(static_cast<char>(width));
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kCodeBlock; i += 16) {
    const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    const __m128i above = _mm_sub_epi8(at, lows);
    const __m128i inside = _mm_cmpeq_epi8(_mm_min_epu8(above, widths), above);
    bits |= std::uint64_t{static_cast<std::uint32_t>(_mm_movemask_epi8(inside))} << i;
  }
  return bits;
}

inline std::uint64_t bits_in_range(const std::uint16_t* codes, std::uint16_t low,
                                   std::uint16_t width) noexcept {
  const __m128i lows = _mm_set1_epi16(static_cast<short>(low));
  const __m128i widths = _mm_set1_epi16(static_cast<short>(width));
  const auto inside = [&](const std::uint16_t* eight) noexcept {
    const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(eight));
    const __m128i beyond = _mm_subs_epu16(_mm_sub_epi16(at, lows), widths);
    return _mm_cmpeq_epi16(beyond, _mm_setzero_si128());
  };
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kCodeBlock; i += 16) {
    const __m128i both = _mm_packs_epi16(inside(codes + i), inside(codes + i + 8));
    bits |= std::uint64_t{static_cast<std::uint32_t>(_mm_movemask_epi8(both))} << i;
  }
  return bits;
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

// A bit of each of 16 bytes that are all ones or all zeros.
inline std::uint64_t bits_of_bytes(uint8x16_t inside) noexcept {
  static constexpr std::uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                             1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(inside, vld1q_u8(kBits));
  return std::uint64_t{vaddv_u8(vget_low_u8(bits))} | std::uint64_t{vaddv_u8(vget_high_u8(bits))}
                                                          << 8;
}

inline std::uint64_t bits_in_range(const std::uint8_t* codes, std::uint8_t low,
                                   std::uint8_t width) noexcept {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kCodeBlock; i += 16) {
    const uint8x16_t above = vsubq_u8(vld1q_u8(codes + i), vdupq_n_u8(low));
    bits |= bits_of_bytes(vcleq_u8(above, vdupq_n_u8(width))) << i;
  }
  return bits;
}

inline std::uint64_t bits_in_range(const std::uint16_t* codes, std::uint16_t low,
                                   std::uint16_t width) noexcept {
  const auto inside = [&](const std::uint16_t* eight) noexcept {
    const uint16x8_t above = vsubq_u16(vld1q_u16(eight), vdupq_n_u16(low));
    return vmovn_u16(vcleq_u16(above, vdupq_n_u16(width)));
  };
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kCodeBlock; i += 16) {
    bits |= bits_of_bytes(vcombine_u8(inside(codes + i), inside(codes + i + 8))) << i;
  }
  return bits;
}

#else

template <class Code>
std::uint64_t bits_in_range(const Code* codes, Code low, Code width) noexcept {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kCodeBlock; ++i) {
    const auto above = static_cast<Code>(codes[i] - low);
    bits |= std::uint64_t{above <= width} << i;
  }
  return bits;
}

#endif

// Sets the bits of the codes in [low, low + width]. Reads whole blocks: one per word of bits.
template <class Code>
void match_codes(const Code* codes, Code low, Code width, std::span<std::uint64_t> bits) noexcept {
  for (std::size_t word = 0; word < bits.size(); ++word) {
    bits[word] |= bits_in_range(codes + word * kCodeBlock, low, width);
  }
}

// Sets the bits of the codes that `wanted` has a one for.
template <class Code>
void match_table(const Code* codes, const std::uint8_t* wanted,
                 std::span<std::uint64_t> bits) noexcept {
  for (std::size_t word = 0; word < bits.size(); ++word) {
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < kCodeBlock; ++i) {
      found |= std::uint64_t{wanted[codes[word * kCodeBlock + i]]} << i;
    }
    bits[word] |= found;
  }
}

}  // namespace upvec
