// Space: the metric of an index, as a function of two padded vectors.
#pragma once

#include <cstddef>

#include "simd/distance.hpp"
#include "upvec/types.hpp"

namespace upvec {

class Space {
 public:
  Space(Metric metric, std::size_t padded_dim)
      : one_(metric == Metric::kL2 ? simd::kernels().l2 : simd::kernels().dot),
        many_(metric == Metric::kL2 ? simd::kernels().l2_many : simd::kernels().dot_many),
        padded_dim_(padded_dim),
        metric_(metric) {}

  [[nodiscard]] float distance(const float* a, const float* b) const noexcept {
    const float value = one_(a, b, padded_dim_);
    return metric_ == Metric::kL2 ? value : 1.0F - value;
  }
  // The same numbers, bit for bit, for one vector against n: the kernels share its loads.
  void distances(const float* a, const void* const* others, std::size_t n,
                 float* out) const noexcept {
    many_(a, others, n, padded_dim_, out);
    if (metric_ == Metric::kL2) return;
    for (std::size_t i = 0; i < n; ++i) out[i] = 1.0F - out[i];
  }
  [[nodiscard]] Metric metric() const noexcept { return metric_; }
  [[nodiscard]] std::size_t padded_dim() const noexcept { return padded_dim_; }
  [[nodiscard]] std::size_t vector_bytes() const noexcept { return padded_dim_ * sizeof(float); }

 private:
  decltype(simd::DistanceKernels::dot) one_;
  decltype(simd::DistanceKernels::dot_many) many_;
  std::size_t padded_dim_;
  Metric metric_;
};

}  // namespace upvec
