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
constexpr std::size_t kGroup = kSums * kLanes;
// Vectors measured side by side in the *_many form, so that they share the loads of the query.
constexpr std::size_t kTogether = 2;

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

// Block i of a vector goes to partial sum i mod kSums.
struct Sums {
  Lanes first = _mm256_setzero_ps();
  Lanes second = _mm256_setzero_ps();
  Lanes third = _mm256_setzero_ps();
  Lanes fourth = _mm256_setzero_ps();

  [[nodiscard]] float total() const {
    return sum_lanes(_mm256_add_ps(_mm256_add_ps(first, second), _mm256_add_ps(third, fourth)));
  }
};

template <Accumulate accumulate>
[[gnu::always_inline]] inline void add_blocks(Sums& sums, const float* a, const float* b) {
  sums.first = accumulate(sums.first, a, b);
  sums.second = accumulate(sums.second, a + kLanes, b + kLanes);
  sums.third = accumulate(sums.third, a + 2 * kLanes, b + 2 * kLanes);
  sums.fourth = accumulate(sums.fourth, a + 3 * kLanes, b + 3 * kLanes);
}

// The blocks, fewer than kSums, after the last whole group.
template <Accumulate accumulate>
[[gnu::always_inline]] inline void add_rest(Sums& sums, const float* a, const float* b,
                                            std::size_t rest) {
  if (rest > 0) {  // padding leaves exactly two blocks, if any
    sums.first = accumulate(sums.first, a, b);
    sums.second = accumulate(sums.second, a + kLanes, b + kLanes);
  }
}

template <Accumulate accumulate>
float accumulate_one(const float* a, const float* b, std::size_t padded_dim) {
  Sums sums;
  std::size_t d = 0;
  for (; d + kGroup <= padded_dim; d += kGroup) {
    add_blocks<accumulate>(sums, a + d, b + d);
  }
  add_rest<accumulate>(sums, a + d, b + d, padded_dim - d);
  return sums.total();
}

template <Accumulate accumulate>
void accumulate_many(const float* query, const void* const* vectors, std::size_t n,
                     std::size_t padded_dim, float* out) {
  std::size_t i = 0;
  for (; i + kTogether <= n; i += kTogether) {
    const float* const w = static_cast<const float*>(vectors[i + 0]);
    const float* const x = static_cast<const float*>(vectors[i + 1]);
    Sums sums_w;
    Sums sums_x;
    std::size_t d = 0;
    for (; d + kGroup <= padded_dim; d += kGroup) {
      add_blocks<accumulate>(sums_w, query + d, w + d);
      add_blocks<accumulate>(sums_x, query + d, x + d);
    }
    add_rest<accumulate>(sums_w, query + d, w + d, padded_dim - d);
    add_rest<accumulate>(sums_x, query + d, x + d, padded_dim - d);
    out[i + 0] = sums_w.total();
    out[i + 1] = sums_x.total();
  }
  for (; i < n; ++i) {
    out[i] = accumulate_one<accumulate>(query, static_cast<const float*>(vectors[i]), padded_dim);
  }
}

// Codes ---------------------------------------------------------------------------------------

constexpr std::size_t kCodesTogether = 4;

// Relaxed, word by word: see distance_kernels.hpp.
[[gnu::always_inline]] inline __m256i load_codes(const std::int8_t* codes) {
  __m256i lanes;
  asm("vmovdqu %1, %0" : "=x"(lanes) : "m"(*reinterpret_cast<const __m256i_u*>(codes)));
  return lanes;
}

// The sum plus the products of 32 codes each: |a| is unsigned, b takes over the sign of a, and two
// products of at most 127 * 127 fit a signed word of 16 bits.
[[gnu::always_inline]] inline __m256i add_code_products(__m256i sum, __m256i magnitude, __m256i a,
                                                        __m256i b) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(b, a));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

std::int32_t sum_code_lanes(__m256i lanes) {
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01001110));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0b10110001)));
}

std::int32_t dot_codes(const std::int8_t* a, const std::int8_t* b, std::size_t padded_dim) {
  __m256i even = _mm256_setzero_si256();
  __m256i odd = _mm256_setzero_si256();
  std::size_t d = 0;
  for (; d + 2 * kPadCodes <= padded_dim; d += 2 * kPadCodes) {
    const __m256i first = load_codes(a + d);
    const __m256i second = load_codes(a + d + kPadCodes);
    even = add_code_products(even, _mm256_abs_epi8(first), first, load_codes(b + d));
    odd = add_code_products(odd, _mm256_abs_epi8(second), second, load_codes(b + d + kPadCodes));
  }
  if (d < padded_dim) {
    const __m256i last = load_codes(a + d);
    even = add_code_products(even, _mm256_abs_epi8(last), last, load_codes(b + d));
  }
  return sum_code_lanes(_mm256_add_epi32(even, odd));
}

void dot_codes_many(const std::int8_t* query, const void* const* codes, std::size_t n,
                    std::size_t padded_dim, std::int32_t* out) {
  std::size_t i = 0;
  for (; i + kCodesTogether <= n; i += kCodesTogether) {
    __m256i w = _mm256_setzero_si256();
    __m256i x = _mm256_setzero_si256();
    __m256i y = _mm256_setzero_si256();
    __m256i z = _mm256_setzero_si256();
    for (std::size_t d = 0; d < padded_dim; d += kPadCodes) {
      const __m256i mine = load_codes(query + d);
      const __m256i magnitude = _mm256_abs_epi8(mine);
      w = add_code_products(w, magnitude, mine,
                            load_codes(static_cast<const std::int8_t*>(codes[i + 0]) + d));
      x = add_code_products(x, magnitude, mine,
                            load_codes(static_cast<const std::int8_t*>(codes[i + 1]) + d));
      y = add_code_products(y, magnitude, mine,
                            load_codes(static_cast<const std::int8_t*>(codes[i + 2]) + d));
      z = add_code_products(z, magnitude, mine,
                            load_codes(static_cast<const std::int8_t*>(codes[i + 3]) + d));
    }
    // All four sums side by side.
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(w, x), _mm256_hadd_epi32(y, z));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + i),
        _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
  }
  for (; i < n; ++i)
    out[i] = dot_codes(query, static_cast<const std::int8_t*>(codes[i]), padded_dim);
}

constexpr DistanceKernels kTable{
    "avx2",
    accumulate_one<add_squared_difference>,
    accumulate_one<add_product>,
    accumulate_many<add_squared_difference>,
    accumulate_many<add_product>,
    dot_codes,
    dot_codes_many,
};

}  // namespace

constinit const DistanceKernels* const kAvx2Kernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kAvx2Kernels = nullptr;

}  // namespace upvec::simd

#endif
