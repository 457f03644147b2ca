// Kernels for AArch64 Advanced SIMD, which every AArch64 processor has.
// Only intrinsics and functions of this unit: see distance_kernels.hpp.
#include "distance_kernels.hpp"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace upvec::simd {
namespace {

constexpr std::size_t kLanes = 4;
// Enough independent sums to hide most of the latency of a fused multiply-add.
constexpr std::size_t kSums = 4;

using Lanes = float32x4_t;
using Accumulate = Lanes (*)(Lanes sum, const float* a, const float* b);

Lanes add_squared_difference(Lanes sum, const float* a, const float* b) {
  const Lanes difference = vsubq_f32(vld1q_f32(a), vld1q_f32(b));
  return vfmaq_f32(sum, difference, difference);
}

Lanes add_product(Lanes sum, const float* a, const float* b) {
  return vfmaq_f32(sum, vld1q_f32(a), vld1q_f32(b));
}

float sum_lanes(Lanes lanes) { return vaddvq_f32(lanes); }

// Sum of kSums x kLanes partial sums; block i of the vector goes to partial sum i mod kSums.
template <Accumulate accumulate>
float accumulate_one(const float* a, const float* b, std::size_t padded_dim) {
  Lanes sum0 = vdupq_n_f32(0.0F);
  Lanes sum1 = vdupq_n_f32(0.0F);
  Lanes sum2 = vdupq_n_f32(0.0F);
  Lanes sum3 = vdupq_n_f32(0.0F);
  static_assert(kPadFloats == kSums * kLanes);  // so nothing is left over
  for (std::size_t d = 0; d < padded_dim; d += kSums * kLanes) {
    sum0 = accumulate(sum0, a + d, b + d);
    sum1 = accumulate(sum1, a + d + kLanes, b + d + kLanes);
    sum2 = accumulate(sum2, a + d + 2 * kLanes, b + d + 2 * kLanes);
    sum3 = accumulate(sum3, a + d + 3 * kLanes, b + d + 3 * kLanes);
  }
  return sum_lanes(vaddq_f32(vaddq_f32(sum0, sum1), vaddq_f32(sum2, sum3)));
}

template <Accumulate accumulate>
void accumulate_many(const float* query, const float* const* vectors, std::size_t n,
                     std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = accumulate_one<accumulate>(query, vectors[i], padded_dim);
  }
}

constexpr DistanceKernels kTable{
    "neon",
    accumulate_one<add_squared_difference>,
    accumulate_one<add_product>,
    accumulate_many<add_squared_difference>,
    accumulate_many<add_product>,
};

}  // namespace

constinit const DistanceKernels* const kNeonKernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kNeonKernels = nullptr;

}  // namespace upvec::simd

#endif
