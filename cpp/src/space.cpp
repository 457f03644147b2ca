#include "space.hpp"

#include <cstring>

namespace upvec {

std::size_t Space::bytes_of_row(Keep keep, std::size_t padded_dim,
                                const CodeSpace& codes) noexcept {
  switch (keep) {
    case Keep::kF32:
      return padded_dim * sizeof(float);
    case Keep::kBf16:
      return padded_dim * sizeof(std::uint16_t);
    case Keep::kNone:
      break;
  }
  return codes.point_bytes();
}

void Space::encode(const float* vector, std::byte* row) const noexcept {
  switch (keep_) {
    case Keep::kF32:
      std::memcpy(row, vector, padded_dim_ * sizeof(float));
      return;
    case Keep::kBf16: {
      auto* const halves = reinterpret_cast<std::uint16_t*>(row);
      for (std::size_t d = 0; d < padded_dim_; ++d) halves[d] = to_bf16(vector[d]);
      return;
    }
    case Keep::kNone:
      codes_.encode(vector, row);
  }
}

void Space::decode(Point row, float* vector) const noexcept {
  switch (keep_) {
    case Keep::kF32:
      std::memcpy(vector, row, dim_ * sizeof(float));
      return;
    case Keep::kBf16: {
      const auto* const halves = static_cast<const std::uint16_t*>(row);
      for (std::size_t d = 0; d < dim_; ++d) vector[d] = from_bf16(halves[d]);
      return;
    }
    case Keep::kNone:
      codes_.decode(row, vector);
  }
}

std::size_t Space::packed_bytes(Keep keep, std::size_t dim) noexcept {
  switch (keep) {
    case Keep::kF32:
      return dim * sizeof(float);
    case Keep::kBf16:
      return dim * sizeof(std::uint16_t);
    case Keep::kNone:
      break;
  }
  return CodeSpace::packed_bytes(dim);
}

void Space::pack(Point row, std::byte* packed) const noexcept {
  if (keep_ == Keep::kNone) {
    codes_.pack(row, packed);
  } else {
    std::memcpy(packed, row, packed_bytes());
  }
}

void Space::unpack(const std::byte* packed, std::byte* row) const noexcept {
  if (keep_ == Keep::kNone) {
    codes_.unpack(packed, row);
  } else {
    std::memset(row, 0, row_bytes());
    std::memcpy(row, packed, packed_bytes());
  }
}

}  // namespace upvec
