// Codes: int8 images of the vectors, by which the graph is built and walked.
//
// A code is made from its vector alone: every component is divided by the vector's own scale
// (largest magnitude / 127) and rounded. Nothing is trained, so nothing ages when the data drift.
// Distances between codes are those of the decoded vectors, from an exact integer dot product:
// equal on every instruction set. They show the way; answers are measured by exact vectors.
//
// Where no exact vectors are kept, codes are the vectors, and answers are measured from the query's
// floats to the decoded values. Then the scale is one that coding a decoded vector gives again, so
// that what was read can be put back:
//   l2, ip  largest magnitude / 127, rounded to 17 bits, so that its product with a value is exact
//   cosine  what makes the decoded vector one of unit length: it follows from the values
//
// A record is padded_dim int8 values, then float scale, then float squared norm of the decoded
// vector. It may be replaced while readers measure it, so it is written and read by relaxed atomic
// words (see simd/distance_kernels.hpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "simd/distance.hpp"
#include "upvec/types.hpp"

namespace upvec {

// A vector as the graph measures it: the record of a code, or what a row holds.
using Point = const void*;

// Points that a kernel measures side by side, and points that may be measured by one call.
inline constexpr std::size_t kTogether = 4;
inline constexpr std::size_t kMostTogether = 32;

class CodeSpace {
 public:
  // repeatable: codes are the vectors.
  CodeSpace(Metric metric, std::size_t dim, bool repeatable = false)
      : one_(simd::kernels().dot_codes),
        many_(simd::kernels().dot_codes_many),
        dim_(dim),
        padded_dim_((dim + simd::kPadCodes - 1) / simd::kPadCodes * simd::kPadCodes),
        metric_(metric),
        repeatable_(repeatable) {}

  [[nodiscard]] std::size_t point_bytes() const noexcept { return padded_dim_ + 2 * sizeof(float); }
  // The record of a vector of dim floats.
  void encode(const float* vector, std::byte* record) const noexcept;
  // The dim floats that a record stands for.
  void decode(Point record, float* vector) const noexcept;
  // A record without padding and squared norm.
  [[nodiscard]] static std::size_t packed_bytes(std::size_t dim) noexcept {
    return dim + sizeof(float);
  }
  void pack(Point record, std::byte* packed) const noexcept;
  void unpack(const std::byte* packed, std::byte* record) const noexcept;
  // Replaces a record that readers may be looking at.
  void copy(Point from, std::byte* to) const noexcept;

  [[nodiscard]] float distance(Point a, Point b) const noexcept {
    return combine(scalars(a), scalars(b), one_(values(a), values(b), padded_dim_));
  }
  // The same numbers for one against n, n at most kMostTogether.
  void distances(Point a, const Point* others, std::size_t n, float* out) const noexcept;
  // From padded floats to decoded vectors, of n records that nobody may be replacing.
  void distances_to(const float* query, const Point* records, std::size_t n,
                    float* out) const noexcept;

  // Distances from this point up to here say little: they are no more than kBlur times what
  // rounding alone makes of two equal vectors. (Rounding errors are even between -1/2 and 1/2 of
  // the scale.) With 2,000 records around one place at 384 dimensions, recall@10 at ef 128 by codes
  // alone is .95 at 47 times that, as by exact vectors, and .29 at 2 times.
  [[nodiscard]] float blur(Point a) const noexcept {
    constexpr float kBlur = 16.0F;
    const float scale = scalars(a).scale;
    const float rounding = 2.0F * scale * scale * static_cast<float>(dim_) / 12.0F;
    return kBlur * (metric_ == Metric::kL2 ? rounding : 0.5F * rounding);
  }

  // By how much codes may overestimate a distance from this point, if the other's code is about as
  // coarse: kDeviations standard deviations of what rounding does to it. Of the rows within a
  // radius that leaves 1 to 1,000 hits a query (18,000 texts, 50,000 of SIFT), codes put none
  // beyond that; with 2 deviations 2 to 5 in 10,000, with none 3 to 5 in 1,000. Between 4 and 5 %
  // more are within it that do not belong there.
  [[nodiscard]] float slack(Point a, float distance) const noexcept {
    const Scalars mine = scalars(a);
    const float rounding = 2.0F * mine.scale * mine.scale / 12.0F;  // of both, a dimension
    const float square = std::max(distance, 0.0F);
    const float spread = metric_ == Metric::kL2       ? 2.0F * std::sqrt(square * rounding)
                         : metric_ == Metric::kCosine ? std::sqrt(2.0F * square * rounding)
                                                      : std::sqrt(mine.squared_norm * rounding);
    return kDeviations * spread + static_cast<float>(dim_) * rounding;
  }
  static constexpr float kDeviations = 4.0F;

 private:
  struct Scalars {
    float scale;
    float squared_norm;
  };
  static const std::int8_t* values(Point point) noexcept {
    return static_cast<const std::int8_t*>(point);
  }
  [[nodiscard]] Scalars scalars(Point point) const noexcept {
    const auto* const word = reinterpret_cast<const std::uint64_t*>(values(point) + padded_dim_);
    return std::bit_cast<Scalars>(__atomic_load_n(word, __ATOMIC_RELAXED));
  }
  [[nodiscard]] float repeatable_scale(float largest) const noexcept;
  [[nodiscard]] float combine(Scalars a, Scalars b, std::int32_t dot) const noexcept {
    const float product = a.scale * b.scale * static_cast<float>(dot);
    if (metric_ == Metric::kInnerProduct) return 1.0F - product;
    // Under cosine by the same formula, as the decoded vectors are not quite of unit length.
    const float square = a.squared_norm + b.squared_norm - 2.0F * product;
    return metric_ == Metric::kL2 ? square : 0.5F * square;
  }

  decltype(simd::DistanceKernels::dot_codes) one_;
  decltype(simd::DistanceKernels::dot_codes_many) many_;
  std::size_t dim_;
  std::size_t padded_dim_;
  Metric metric_;
  bool repeatable_;
};

}  // namespace upvec
