// Space: the metric of an index, as a function of two padded vectors.
#pragma once

#include <cstddef>

#include "simd/distance.hpp"
#include "upvec/types.hpp"

namespace upvec {

class Space {
 public:
  Space(Metric metric, std::size_t padded_dim)
      : function_(metric == Metric::kL2 ? simd::kernels().l2 : simd::kernels().dot),
        padded_dim_(padded_dim),
        metric_(metric) {}

  [[nodiscard]] float distance(const float* a, const float* b) const noexcept {
    const float value = function_(a, b, padded_dim_);
    return metric_ == Metric::kL2 ? value : 1.0F - value;
  }
  [[nodiscard]] Metric metric() const noexcept { return metric_; }
  [[nodiscard]] std::size_t padded_dim() const noexcept { return padded_dim_; }
  [[nodiscard]] std::size_t vector_bytes() const noexcept { return padded_dim_ * sizeof(float); }

 private:
  float (*function_)(const float*, const float*, std::size_t);
  std::size_t padded_dim_;
  Metric metric_;
};

}  // namespace upvec
