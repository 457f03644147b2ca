#include "codes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace upvec {

void CodeSpace::encode(const float* vector, std::byte* record) const noexcept {
  float largest = 0.0F;
  for (std::size_t d = 0; d < dim_; ++d) largest = std::max(largest, std::fabs(vector[d]));
  constexpr float kLargestCode = 127.0F;
  const float scale = largest / kLargestCode;
  // Of a vector so short that this overflows, nothing is left but its length of nearly zero.
  const float inverse = kLargestCode / largest;
  auto* const values = reinterpret_cast<std::int8_t*>(record);
  std::memset(values, 0, padded_dim_);
  std::int32_t squares = 0;
  if (std::isfinite(inverse)) {
    for (std::size_t d = 0; d < dim_; ++d) {
      const float scaled = vector[d] * inverse;
      const auto value = static_cast<std::int32_t>(scaled + std::copysign(0.5F, scaled));
      values[d] = static_cast<std::int8_t>(std::clamp(value, -127, 127));
      squares += value * value;
    }
  }
  const Scalars scalars{scale, scale * scale * static_cast<float>(squares)};
  std::memcpy(record + padded_dim_, &scalars, sizeof scalars);
}

void CodeSpace::copy(Point from, std::byte* to) const noexcept {
  const std::size_t words = point_bytes() / sizeof(std::uint64_t);
  for (std::size_t i = 0; i < words; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, values(from) + i * sizeof word, sizeof word);
    __atomic_store_n(reinterpret_cast<std::uint64_t*>(to) + i, word, __ATOMIC_RELAXED);
  }
}

void CodeSpace::distances(Point a, const Point* others, std::size_t n, float* out) const noexcept {
  std::array<std::int32_t, kMostTogether> dots;
  many_(values(a), others, n, padded_dim_, dots.data());
  const Scalars mine = scalars(a);
  for (std::size_t i = 0; i < n; ++i) out[i] = decode(mine, scalars(others[i]), dots[i]);
}

}  // namespace upvec
