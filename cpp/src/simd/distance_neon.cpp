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
constexpr std::size_t kGroup = kSums * kLanes;
// Vectors measured side by side in the *_many form, so that they share the loads of the query.
constexpr std::size_t kTogether = 4;

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

// Block i of a vector goes to partial sum i mod kSums.
struct Sums {
  Lanes first = vdupq_n_f32(0.0F);
  Lanes second = vdupq_n_f32(0.0F);
  Lanes third = vdupq_n_f32(0.0F);
  Lanes fourth = vdupq_n_f32(0.0F);

  [[nodiscard]] float total() const {
    return sum_lanes(vaddq_f32(vaddq_f32(first, second), vaddq_f32(third, fourth)));
  }
};

template <Accumulate accumulate>
[[gnu::always_inline]] inline void add_blocks(Sums& sums, const float* a, const float* b) {
  sums.first = accumulate(sums.first, a, b);
  sums.second = accumulate(sums.second, a + kLanes, b + kLanes);
  sums.third = accumulate(sums.third, a + 2 * kLanes, b + 2 * kLanes);
  sums.fourth = accumulate(sums.fourth, a + 3 * kLanes, b + 3 * kLanes);
}

template <Accumulate accumulate>
float accumulate_one(const float* a, const float* b, std::size_t padded_dim) {
  static_assert(kPadFloats == kGroup);  // so nothing is left over
  Sums sums;
  for (std::size_t d = 0; d < padded_dim; d += kGroup) {
    add_blocks<accumulate>(sums, a + d, b + d);
  }
  return sums.total();
}

template <Accumulate accumulate>
void accumulate_many(const float* query, const void* const* vectors, std::size_t n,
                     std::size_t padded_dim, float* out) {
  std::size_t i = 0;
  for (; i + kTogether <= n; i += kTogether) {
    const float* const w = static_cast<const float*>(vectors[i + 0]);
    const float* const x = static_cast<const float*>(vectors[i + 1]);
    const float* const y = static_cast<const float*>(vectors[i + 2]);
    const float* const z = static_cast<const float*>(vectors[i + 3]);
    Sums sums_w;
    Sums sums_x;
    Sums sums_y;
    Sums sums_z;
    for (std::size_t d = 0; d < padded_dim; d += kGroup) {
      add_blocks<accumulate>(sums_w, query + d, w + d);
      add_blocks<accumulate>(sums_x, query + d, x + d);
      add_blocks<accumulate>(sums_y, query + d, y + d);
      add_blocks<accumulate>(sums_z, query + d, z + d);
    }
    out[i + 0] = sums_w.total();
    out[i + 1] = sums_x.total();
    out[i + 2] = sums_y.total();
    out[i + 3] = sums_z.total();
  }
  for (; i < n; ++i) {
    out[i] = accumulate_one<accumulate>(query, static_cast<const float*>(vectors[i]), padded_dim);
  }
}

// Codes ---------------------------------------------------------------------------------------

constexpr std::size_t kCodeLanes = 16;

// Relaxed, word by word: see distance_kernels.hpp.
[[gnu::always_inline]] inline int8x16_t load_codes(const std::int8_t* codes) {
  int8x16_t lanes;
  asm("ldr %q0, %1" : "=w"(lanes) : "m"(*reinterpret_cast<const int8x16_t*>(codes)));
  return lanes;
}

// Two products of at most 127 * 127 fit a signed word of 16 bits.
[[gnu::always_inline]] inline int32x4_t add_code_products(int32x4_t sum, int8x16_t a, int8x16_t b) {
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
  return vpadalq_s16(sum, vmlal_s8(low, vget_high_s8(a), vget_high_s8(b)));
}

std::int32_t dot_codes(const std::int8_t* a, const std::int8_t* b, std::size_t padded_dim) {
  int32x4_t even = vdupq_n_s32(0);
  int32x4_t odd = vdupq_n_s32(0);
  for (std::size_t d = 0; d < padded_dim; d += kPadCodes) {
    even = add_code_products(even, load_codes(a + d), load_codes(b + d));
    odd = add_code_products(odd, load_codes(a + d + kCodeLanes), load_codes(b + d + kCodeLanes));
  }
  return vaddvq_s32(vaddq_s32(even, odd));
}

void dot_codes_many(const std::int8_t* query, const void* const* codes, std::size_t n,
                    std::size_t padded_dim, std::int32_t* out) {
  for (std::size_t i = 0; i < n; ++i)
    out[i] = dot_codes(query, static_cast<const std::int8_t*>(codes[i]), padded_dim);
}

constexpr DistanceKernels kTable{
    "neon",
    accumulate_one<add_squared_difference>,
    accumulate_one<add_product>,
    accumulate_many<add_squared_difference>,
    accumulate_many<add_product>,
    dot_codes,
    dot_codes_many,
};

}  // namespace

constinit const DistanceKernels* const kNeonKernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kNeonKernels = nullptr;

}  // namespace upvec::simd

#endif
