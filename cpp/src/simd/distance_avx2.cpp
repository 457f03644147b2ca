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
using Accumulate = Lanes (*)(Lanes sum, Lanes a, Lanes b);

// What kernels measure: the next kLanes components from d on, as floats.
struct Floats {
  const float* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    return _mm256_load_ps(values + d);
  }
};
struct Bfloats {
  const std::uint16_t* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(values + d));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
};
struct Code {
  const std::int8_t* values;
  float scale;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(values + d));
    const Lanes steps = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    return _mm256_mul_ps(steps, _mm256_set1_ps(scale));
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
  const Lanes difference = _mm256_sub_ps(a, b);
  return _mm256_fmadd_ps(difference, difference, sum);
}

Lanes add_product(Lanes sum, Lanes a, Lanes b) { return _mm256_fmadd_ps(a, b, sum); }

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

template <Accumulate accumulate, typename A, typename B>
[[gnu::always_inline]] inline void add_blocks(Sums& sums, A a, B b, std::size_t d) {
  sums.first = accumulate(sums.first, a.at(d), b.at(d));
  sums.second = accumulate(sums.second, a.at(d + kLanes), b.at(d + kLanes));
  sums.third = accumulate(sums.third, a.at(d + 2 * kLanes), b.at(d + 2 * kLanes));
  sums.fourth = accumulate(sums.fourth, a.at(d + 3 * kLanes), b.at(d + 3 * kLanes));
}

// The blocks, fewer than kSums, after the last whole group.
template <Accumulate accumulate, typename A, typename B>
[[gnu::always_inline]] inline void add_rest(Sums& sums, A a, B b, std::size_t d, std::size_t rest) {
  if (rest > 0) {  // padding leaves exactly two blocks, if any
    sums.first = accumulate(sums.first, a.at(d), b.at(d));
    sums.second = accumulate(sums.second, a.at(d + kLanes), b.at(d + kLanes));
  }
}

template <Accumulate accumulate, typename A, typename B>
[[gnu::always_inline]] inline float accumulate_one(A a, B b, std::size_t padded_dim) {
  Sums sums;
  std::size_t d = 0;
  for (; d + kGroup <= padded_dim; d += kGroup) {
    add_blocks<accumulate>(sums, a, b, d);
  }
  add_rest<accumulate>(sums, a, b, d, padded_dim - d);
  return sums.total();
}

template <Accumulate accumulate, typename Query, typename List>
[[gnu::always_inline]] inline void accumulate_many(Query query, List vectors, std::size_t n,
                                                   std::size_t padded_dim, float* out) {
  std::size_t i = 0;
  for (; i + kTogether <= n; i += kTogether) {
    const auto w = vectors[i + 0];
    const auto x = vectors[i + 1];
    Sums sums_w;
    Sums sums_x;
    std::size_t d = 0;
    for (; d + kGroup <= padded_dim; d += kGroup) {
      add_blocks<accumulate>(sums_w, query, w, d);
      add_blocks<accumulate>(sums_x, query, x, d);
    }
    add_rest<accumulate>(sums_w, query, w, d, padded_dim - d);
    add_rest<accumulate>(sums_x, query, x, d, padded_dim - d);
    out[i + 0] = sums_w.total();
    out[i + 1] = sums_x.total();
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

constinit const DistanceKernels* const kAvx2Kernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kAvx2Kernels = nullptr;

}  // namespace upvec::simd

#endif
