// Space: how rows keep their vectors, and the metric of an index as a function of what they keep.
//
// A row holds, by Keep:
//   kF32   padded_dim floats
//   kBf16  padded_dim bfloat16: floats rounded to the nearest, ties to even, with the lower half
//          left out
//   kNone  the record of its code (see codes.hpp)
// A query is always padded_dim floats. Nothing here is ever replaced while it is measured: rows are
// immutable.
//
// Rounded to bfloat16, vectors of unit length are off it by up to 2^-8. 1 - dot would have errors
// of that size, more than what lies between near neighbours; half the squared distance, which is
// the same for unit vectors, has errors of that share of itself. Of 400 vectors of 384 dimensions
// that lie within .08, a search then finds .93 of the ten nearest, and by 1 - dot .64; of f32, .94.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "codes.hpp"
#include "simd/distance.hpp"
#include "upvec/types.hpp"

namespace upvec {

// Dimension rounded up so that every vector starts on a cache line and kernels need no tail.
inline std::size_t pad_dim(std::size_t dim) {
  return (dim + simd::kPadFloats - 1) / simd::kPadFloats * simd::kPadFloats;
}

// Infinity and NaN are none of our numbers.
inline std::uint16_t to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_bf16(std::uint16_t value) noexcept {
  return std::bit_cast<float>(std::uint32_t{value} << 16);
}

class Space {
 public:
  Space(Metric metric, std::size_t dim, Keep keep, const CodeSpace& codes)
      : one_(metric == Metric::kL2 ? simd::kernels().l2 : simd::kernels().dot),
        many_(metric == Metric::kL2 ? simd::kernels().l2_many : simd::kernels().dot_many),
        kernels_(simd::kernels()),
        codes_(codes),
        dim_(dim),
        padded_dim_(pad_dim(dim)),
        row_bytes_(bytes_of_row(keep, padded_dim_, codes)),
        metric_(metric),
        keep_(keep) {}

  [[nodiscard]] Metric metric() const noexcept { return metric_; }
  [[nodiscard]] Keep keep() const noexcept { return keep_; }
  [[nodiscard]] std::size_t padded_dim() const noexcept { return padded_dim_; }
  [[nodiscard]] std::size_t row_bytes() const noexcept { return row_bytes_; }

  // From a vector of padded_dim floats to what a row keeps of it.
  void encode(const float* vector, std::byte* row) const noexcept;
  // The dim floats that it stands for. Encoded again they give the same row.
  void decode(Point row, float* vector) const noexcept;
  // The same where they lie, or in `room` for dim of them.
  [[nodiscard]] const float* floats(Point row, float* room) const noexcept {
    if (keep_ == Keep::kF32) return static_cast<const float*>(row);
    decode(row, room);
    return room;
  }

  // What a row holds, without the padding, and what follows from the rest.
  [[nodiscard]] static std::size_t packed_bytes(Keep keep, std::size_t dim) noexcept;
  [[nodiscard]] std::size_t packed_bytes() const noexcept { return packed_bytes(keep_, dim_); }
  void pack(Point row, std::byte* packed) const noexcept;
  // The numbers may be any; a row that decode() and encode() give back is one that can be stored.
  void unpack(const std::byte* packed, std::byte* row) const noexcept;

  // Of two rows. Equal on every instruction set under kNone.
  [[nodiscard]] float distance(Point a, Point b) const noexcept {
    if (keep_ == Keep::kF32) return measure_floats(static_cast<const float*>(a), b);
    float result = 0.0F;
    distances(a, &b, 1, &result);
    return result;
  }
  // The same numbers, bit for bit, for one row against n, at most kMostTogether.
  void distances(Point a, const Point* others, std::size_t n, float* out) const noexcept {
    switch (keep_) {
      case Keep::kF32:
        measure_floats(static_cast<const float*>(a), others, n, out);
        return;
      case Keep::kBf16:
        measure_bf16(static_cast<const std::uint16_t*>(a), others, n, out);
        return;
      case Keep::kNone:
        codes_.distances(a, others, n, out);
    }
  }
  // Of a query and a row.
  [[nodiscard]] float distance_to(const float* query, Point row) const noexcept {
    if (keep_ == Keep::kF32) return measure_floats(query, row);
    float result = 0.0F;
    distances_to(query, &row, 1, &result);
    return result;
  }
  void distances_to(const float* query, const Point* rows, std::size_t n,
                    float* out) const noexcept {
    switch (keep_) {
      case Keep::kF32:
        measure_floats(query, rows, n, out);
        return;
      case Keep::kBf16:
        measure_to_bf16(query, rows, n, out);
        return;
      case Keep::kNone:
        codes_.distances_to(query, rows, n, out);
    }
  }

 private:
  static std::size_t bytes_of_row(Keep keep, std::size_t padded_dim,
                                  const CodeSpace& codes) noexcept;
  // What the kernels for l2 give is the distance; what those for dot give is not.
  void finish(std::size_t n, float* out) const noexcept {
    if (metric_ == Metric::kL2) return;
    for (std::size_t i = 0; i < n; ++i) out[i] = 1.0F - out[i];
  }
  // As said above: by squares under cosine, too.
  void finish_bf16(std::size_t n, float* out) const noexcept {
    if (metric_ == Metric::kL2) return;
    for (std::size_t i = 0; i < n; ++i) {
      out[i] = metric_ == Metric::kCosine ? 0.5F * out[i] : 1.0F - out[i];
    }
  }
  [[nodiscard]] float measure_floats(const float* a, Point b) const noexcept {
    const float value = one_(a, static_cast<const float*>(b), padded_dim_);
    return metric_ == Metric::kL2 ? value : 1.0F - value;
  }
  void measure_floats(const float* a, const Point* others, std::size_t n,
                      float* out) const noexcept {
    many_(a, others, n, padded_dim_, out);
    finish(n, out);
  }
  void measure_bf16(const std::uint16_t* a, const Point* others, std::size_t n,
                    float* out) const noexcept {
    const bool dot = metric_ == Metric::kInnerProduct;
    (dot ? kernels_.dot_bf16_many : kernels_.l2_bf16_many)(a, others, n, padded_dim_, out);
    finish_bf16(n, out);
  }
  void measure_to_bf16(const float* query, const Point* rows, std::size_t n,
                       float* out) const noexcept {
    const bool dot = metric_ == Metric::kInnerProduct;
    (dot ? kernels_.dot_to_bf16_many : kernels_.l2_to_bf16_many)(query, rows, n, padded_dim_, out);
    finish_bf16(n, out);
  }

  decltype(simd::DistanceKernels::dot) one_;  // kF32
  decltype(simd::DistanceKernels::dot_many) many_;
  const simd::DistanceKernels& kernels_;
  CodeSpace codes_;
  std::size_t dim_;
  std::size_t padded_dim_;
  std::size_t row_bytes_;
  Metric metric_;
  Keep keep_;
};

}  // namespace upvec
