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
using Accumulate = Lanes (*)(Lanes sum, Lanes a, Lanes b);

// What kernels measure: the next kLanes components from d on, as floats.
struct Floats {
  const float* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    return vld1q_f32(values + d);
  }
};
struct Bfloats {
  const std::uint16_t* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(values + d), 16));
  }
};
struct Code {
  const std::int8_t* values;
  float scale;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    std::int32_t four;
    __builtin_memcpy(&four, values + d, sizeof four);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), scale);
  }
};

// Vectors given by pointers.
template <typename Vector>
struct Many {
  const void* const* vectors;
  [[gnu::always_inline]] Vector operator[](std::size_t i) const {
    return {static_cast<decltype(Vector::values)>(vectors[i])};
  }
};
struct ManyCodes {
  const void* const* codes;
  const float* scales;
  [[gnu::always_inline]] Code operator[](std::size_t i) const {
    return {static_cast<const std::int8_t*>(codes[i]), scales[i]};
  }
};

Lanes add_squared_difference(Lanes sum, Lanes a, Lanes b) {
  const Lanes difference = vsubq_f32(a, b);
  return vfmaq_f32(sum, difference, difference);
}

Lanes add_product(Lanes sum, Lanes a, Lanes b) { return vfmaq_f32(sum, a, b); }

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

template <Accumulate accumulate, typename A, typename B>
[[gnu::always_inline]] inline void add_blocks(Sums& sums, A a, B b, std::size_t d) {
  sums.first = accumulate(sums.first, a.at(d), b.at(d));
  sums.second = accumulate(sums.second, a.at(d + kLanes), b.at(d + kLanes));
  sums.third = accumulate(sums.third, a.at(d + 2 * kLanes), b.at(d + 2 * kLanes));
  sums.fourth = accumulate(sums.fourth, a.at(d + 3 * kLanes), b.at(d + 3 * kLanes));
}

template <Accumulate accumulate, typename A, typename B>
[[gnu::always_inline]] inline float accumulate_one(A a, B b, std::size_t padded_dim) {
  static_assert(kPadFloats == kGroup);  // so nothing is left over
  Sums sums;
  for (std::size_t d = 0; d < padded_dim; d += kGroup) {
    add_blocks<accumulate>(sums, a, b, d);
  }
  return sums.total();
}

template <Accumulate accumulate, typename Query, typename List>
[[gnu::always_inline]] inline void accumulate_many(Query query, List vectors, std::size_t n,
                                                   std::size_t padded_dim, float* out) {
  std::size_t i = 0;
  for (; i + kTogether <= n; i += kTogether) {
    const auto w = vectors[i + 0];
    const auto x = vectors[i + 1];
    const auto y = vectors[i + 2];
    const auto z = vectors[i + 3];
    Sums sums_w;
    Sums sums_x;
    Sums sums_y;
    Sums sums_z;
    for (std::size_t d = 0; d < padded_dim; d += kGroup) {
      add_blocks<accumulate>(sums_w, query, w, d);
      add_blocks<accumulate>(sums_x, query, x, d);
      add_blocks<accumulate>(sums_y, query, y, d);
      add_blocks<accumulate>(sums_z, query, z, d);
    }
    out[i + 0] = sums_w.total();
    out[i + 1] = sums_x.total();
    out[i + 2] = sums_y.total();
    out[i + 3] = sums_z.total();
  }
  for (; i < n; ++i) {
    out[i] = accumulate_one<accumulate>(query, vectors[i], padded_dim);
  }
}

// The entries of the table -----------------------------------------------------------------------

template <Accumulate accumulate>
float floats(const float* a, const float* b, std::size_t padded_dim) {
  return accumulate_one<accumulate>(Floats{a}, Floats{b}, padded_dim);
}
template <Accumulate accumulate>
void floats_many(const float* query, const void* const* vectors, std::size_t n,
                 std::size_t padded_dim, float* out) {
  accumulate_many<accumulate>(Floats{query}, Many<Floats>{vectors}, n, padded_dim, out);
}

template <Accumulate accumulate>
float bf16(const std::uint16_t* a, const std::uint16_t* b, std::size_t padded_dim) {
  return accumulate_one<accumulate>(Bfloats{a}, Bfloats{b}, padded_dim);
}
template <Accumulate accumulate>
void bf16_many(const std::uint16_t* query, const void* const* vectors, std::size_t n,
               std::size_t padded_dim, float* out) {
  accumulate_many<accumulate>(Bfloats{query}, Many<Bfloats>{vectors}, n, padded_dim, out);
}

template <Accumulate accumulate>
float to_bf16(const float* query, const std::uint16_t* vector, std::size_t padded_dim) {
  return accumulate_one<accumulate>(Floats{query}, Bfloats{vector}, padded_dim);
}
template <Accumulate accumulate>
void to_bf16_many(const float* query, const void* const* vectors, std::size_t n,
                  std::size_t padded_dim, float* out) {
  accumulate_many<accumulate>(Floats{query}, Many<Bfloats>{vectors}, n, padded_dim, out);
}

template <Accumulate accumulate>
float to_code(const float* query, const std::int8_t* code, float scale, std::size_t padded_dim) {
  return accumulate_one<accumulate>(Floats{query}, Code{code, scale}, padded_dim);
}
template <Accumulate accumulate>
void to_code_many(const float* query, const void* const* codes, const float* scales, std::size_t n,
                  std::size_t padded_dim, float* out) {
  accumulate_many<accumulate>(Floats{query}, ManyCodes{codes, scales}, n, padded_dim, out);
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
    floats<add_squared_difference>,
    floats<add_product>,
    floats_many<add_squared_difference>,
    floats_many<add_product>,
    bf16<add_squared_difference>,
    bf16<add_product>,
    bf16_many<add_squared_difference>,
    bf16_many<add_product>,
    to_bf16<add_squared_difference>,
    to_bf16<add_product>,
    to_bf16_many<add_squared_difference>,
    to_bf16_many<add_product>,
    to_code<add_squared_difference>,
    to_code<add_product>,
    to_code_many<add_squared_difference>,
    to_code_many<add_product>,
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
