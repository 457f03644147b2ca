// Seeded 64-bit hashing of integers and bytes, and a digest over a sequence of values.
//
// The one primitive is multiply-and-fold: the 128-bit product of two words, upper half xor lower
// half. Both factors are blinded with words drawn from the seed, as a factor that a caller can
// drive to zero would cancel the other one and let keys be crafted that collide under any seed.
// Results depend on the seed and the bytes alone, not on the machine, so they may be stored.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace upvec {

// Upper half xor lower half of the 128-bit product.
[[nodiscard]] inline std::uint64_t multiply_fold(std::uint64_t a, std::uint64_t b) noexcept {
#if defined(__SIZEOF_INT128__)
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product >> 64) ^ static_cast<std::uint64_t>(product);
#else
  constexpr std::uint64_t kLow = 0xffffffff;
  const std::uint64_t low_low = (a & kLow) * (b & kLow);
  const std::uint64_t high_low = (a >> 32) * (b & kLow);
  const std::uint64_t low_high = (a & kLow) * (b >> 32);
  const std::uint64_t high_high = (a >> 32) * (b >> 32);
  const std::uint64_t middle = (low_low >> 32) + (high_low & kLow) + (low_high & kLow);
  const std::uint64_t high = high_high + (high_low >> 32) + (low_high >> 32) + (middle >> 32);
  const std::uint64_t low = (middle << 32) | (low_low & kLow);
  return high ^ low;
#endif
}

class SeededHash {
 public:
  explicit SeededHash(std::uint64_t seed) noexcept {
    for (std::uint64_t* word : {&first_, &second_, &third_}) {
      seed += kGolden;
      *word = scramble(seed);
    }
    third_ |= 1;  // the last factor: never zero
  }

  [[nodiscard]] std::uint64_t operator()(std::uint64_t value) const noexcept {
    const std::uint64_t folded = multiply_fold(value ^ first_, std::rotl(value, 32) ^ second_);
    return multiply_fold(folded ^ second_, third_);
  }

  [[nodiscard]] std::uint64_t operator()(std::int64_t value) const noexcept {
    return (*this)(static_cast<std::uint64_t>(value));
  }

  [[nodiscard]] std::uint64_t operator()(std::string_view bytes) const noexcept {
    const char* at = bytes.data();
    std::size_t left = bytes.size();
    std::uint64_t state = multiply_fold(first_ ^ left, third_);
    for (; left > 16; at += 16, left -= 16) {
      state = multiply_fold(load64(at) ^ first_, load64(at + 8) ^ second_ ^ state);
    }
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    if (left >= 8) {
      // The two loads may overlap: with the length known they still tell all inputs apart.
      low = load64(at);
      high = load64(at + left - 8);
    } else if (left >= 4) {
      low = load32(at);
      high = load32(at + left - 4);
    } else if (left > 0) {
      low = byte(at[0]) << 16 | byte(at[left / 2]) << 8 | byte(at[left - 1]);
    }
    state = multiply_fold(low ^ first_, high ^ second_ ^ state);
    return multiply_fold(state ^ second_, third_);
  }

 private:
  static constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio

  // A permutation in which every bit of the input reaches every bit of the output: the finaliser
  // of splitmix64.
  static std::uint64_t scramble(std::uint64_t word) noexcept {
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }

  static std::uint64_t byte(char c) noexcept { return static_cast<unsigned char>(c); }

  static std::uint64_t load64(const char* at) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
      std::uint64_t word;
      std::memcpy(&word, at, sizeof word);
      return word;
    } else {
      return load32(at) | load32(at + 4) << 32;
    }
  }
  static std::uint64_t load32(const char* at) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
      std::uint32_t word;
      std::memcpy(&word, at, sizeof word);
      return word;
    } else {
      return byte(at[0]) | byte(at[1]) << 8 | byte(at[2]) << 16 | byte(at[3]) << 24;
    }
  }

  std::uint64_t first_;
  std::uint64_t second_;
  std::uint64_t third_;
};

// Order-dependent digest of a sequence. A word enters through a permutation of the state, so what
// was added before is never lost, whatever comes after.
class Digest {
 public:
  explicit Digest(std::uint64_t seed = 0) noexcept : hash_(seed), state_(seed) {}

  void add(std::uint64_t value) noexcept {
    state_ = (std::rotl(state_, 29) ^ hash_(value)) * 0x9e3779b97f4a7c15;
  }
  void add(std::string_view bytes) noexcept { add(hash_(bytes)); }
  void add(const void* data, std::size_t bytes) noexcept {
    add(std::string_view(static_cast<const char*>(data), bytes));
  }

  [[nodiscard]] std::uint64_t value() const noexcept { return hash_(state_); }

 private:
  SeededHash hash_;
  std::uint64_t state_;
};

}  // namespace upvec
