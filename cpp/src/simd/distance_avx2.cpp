// Kernels for AVX2 with FMA.
// Only intrinsics and functions of this unit: see distance_kernels.hpp.
#include "distance_kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

namespace upvec::simd {
namespace {

constexpr std::size_t kLanes = 8;
// Enough independent sums to hide most of the latency of a fused multiply-add.
constexpr std::size_t kSums = 4;

using Lanes = __m256;
using Accumulate = Lanes (*)(Lanes sum, const float* a, const float* b);

Lanes add_squared_difference(Lanes sum, const float* a, const float* b) {
  const Lanes difference = _mm256_sub_ps(_mm256_load_ps(a), _mm256_load_ps(b));
  return _mm256_fmadd_ps(difference, difference, sum);
}

Lanes add_product(Lanes sum, const float* a, const float* b) {
  return _mm256_fmadd_ps(_mm256_load_ps(a), _mm256_load_ps(b), sum);
}

float sum_lanes(Lanes lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Sum of kSums x kLanes partial sums; block i of the vector goes to partial sum i mod kSums.
template <Accumulate accumulate>
float accumulate_one(const float* a, const float* b, std::size_t padded_dim) {
  Lanes sum0 = _mm256_setzero_ps();
  Lanes sum1 = _mm256_setzero_ps();
  Lanes sum2 = _mm256_setzero_ps();
  Lanes sum3 = _mm256_setzero_ps();
  std::size_t d = 0;
  for (; d + kSums * kLanes <= padded_dim; d += kSums * kLanes) {
    sum0 = accumulate(sum0, a + d, b + d);
    sum1 = accumulate(sum1, a + d + kLanes, b + d + kLanes);
    sum2 = accumulate(sum2, a + d + 2 * kLanes, b + d + 2 * kLanes);
    sum3 = accumulate(sum3, a + d + 3 * kLanes, b + d + 3 * kLanes);
  }
  if (d < padded_dim) {  // padding leaves exactly two blocks, if any
    sum0 = accumulate(sum0, a + d, b + d);
    sum1 = accumulate(sum1, a + d + kLanes, b + d + kLanes);
  }
  return sum_lanes(_mm256_add_ps(_mm256_add_ps(sum0, sum1), _mm256_add_ps(sum2, sum3)));
}

template <Accumulate accumulate>
void accumulate_many(const float* query, const float* const* vectors, std::size_t n,
                     std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = accumulate_one<accumulate>(query, vectors[i], padded_dim);
  }
}

constexpr DistanceKernels kTable{
    "avx2",
    accumulate_one<add_squared_difference>,
    accumulate_one<add_product>,
    accumulate_many<add_squared_difference>,
    accumulate_many<add_product>,
};

}  // namespace

constinit const DistanceKernels* const kAvx2Kernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kAvx2Kernels = nullptr;

}  // namespace upvec::simd

#endif
