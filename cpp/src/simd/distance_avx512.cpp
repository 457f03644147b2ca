// Kernels for AVX-512 (F, BW, VL, DQ, VNNI): Ice Lake, Zen 4 and later.
// Only intrinsics and functions of this unit: see distance_kernels.hpp.
#include "distance_kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include <immintrin.h>

namespace upvec::simd {
namespace {

constexpr std::size_t kLanes = 16;
// Enough independent sums to hide most of the latency of a fused multiply-add.
constexpr std::size_t kSums = 4;
constexpr std::size_t kGroup = kSums * kLanes;
// Vectors measured side by side in the *_many form, so that they share the loads of the query.
constexpr std::size_t kTogether = 4;

using Lanes = __m512;
using Accumulate = Lanes (*)(Lanes sum, Lanes a, Lanes b);

// What kernels measure: the next kLanes components from d on, as floats.
struct Floats {
  const float* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    return _mm512_load_ps(values + d);
  }
};
struct Bfloats {
  const std::uint16_t* values;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(values + d));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
};
struct Code {
  const std::int8_t* values;
  float scale;
  [[gnu::always_inline]] [[nodiscard]] Lanes at(std::size_t d) const {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(values + d));
    const Lanes steps = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    return _mm512_mul_ps(steps, _mm512_set1_ps(scale));
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
  const Lanes difference = _mm512_sub_ps(a, b);
  return _mm512_fmadd_ps(difference, difference, sum);
}

Lanes add_product(Lanes sum, Lanes a, Lanes b) { return _mm512_fmadd_ps(a, b, sum); }

float sum_lanes(Lanes lanes) {
  // The masked form, as gcc 12 warns of an uninitialised value inside its own plain form.
  const __m256 low = _mm512_maskz_extractf32x8_ps(0xff, lanes, 0);
  const __m256 high = _mm512_maskz_extractf32x8_ps(0xff, lanes, 1);
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Block i of a vector goes to partial sum i mod kSums.
struct Sums {
  Lanes first = _mm512_setzero_ps();
  Lanes second = _mm512_setzero_ps();
  Lanes third = _mm512_setzero_ps();
  Lanes fourth = _mm512_setzero_ps();

  [[nodiscard]] float total() const {
    return sum_lanes(_mm512_add_ps(_mm512_add_ps(first, second), _mm512_add_ps(third, fourth)));
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
  if (rest >= kLanes) {
    sums.first = accumulate(sums.first, a.at(d), b.at(d));
  }
  if (rest >= 2 * kLanes) {
    sums.second = accumulate(sums.second, a.at(d + kLanes), b.at(d + kLanes));
  }
  if (rest >= 3 * kLanes) {
    sums.third = accumulate(sums.third, a.at(d + 2 * kLanes), b.at(d + 2 * kLanes));
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
    const auto y = vectors[i + 2];
    const auto z = vectors[i + 3];
    Sums sums_w;
    Sums sums_x;
    Sums sums_y;
    Sums sums_z;
    std::size_t d = 0;
    for (; d + kGroup <= padded_dim; d += kGroup) {
      add_blocks<accumulate>(sums_w, query, w, d);
      add_blocks<accumulate>(sums_x, query, x, d);
      add_blocks<accumulate>(sums_y, query, y, d);
      add_blocks<accumulate>(sums_z, query, z, d);
    }
    add_rest<accumulate>(sums_w, query, w, d, padded_dim - d);
    add_rest<accumulate>(sums_x, query, x, d, padded_dim - d);
    add_rest<accumulate>(sums_y, query, y, d, padded_dim - d);
    add_rest<accumulate>(sums_z, query, z, d, padded_dim - d);
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

constexpr std::size_t kCodesTogether = 4;

// Relaxed, word by word: see distance_kernels.hpp.
[[gnu::always_inline]] inline __m512i load_codes(const std::int8_t* codes) {
  __m512i lanes;
  asm("vmovdqu64 %1, %0" : "=v"(lanes) : "m"(*reinterpret_cast<const __m512i_u*>(codes)));
  return lanes;
}

[[gnu::always_inline]] inline __m512i load_last_codes(const std::int8_t* codes) {
  __m256i lanes;
  asm("vmovdqu %1, %0" : "=v"(lanes) : "m"(*reinterpret_cast<const __m256i_u*>(codes)));
  return _mm512_zextsi256_si512(lanes);
}

// 64 codes of the one side: VNNI multiplies unsigned by signed bytes, so their signs go over to the
// other side.
struct Mine {
  __m512i magnitude;
  __mmask64 negative;

  explicit Mine(__m512i codes)
      : magnitude(_mm512_abs_epi8(codes)), negative(_mm512_movepi8_mask(codes)) {}

  [[gnu::always_inline]] [[nodiscard]] __m512i add_products(__m512i sum, __m512i other) const {
    const __m512i signed_other =
        _mm512_mask_sub_epi8(other, negative, _mm512_setzero_si512(), other);
    return _mm512_dpbusd_epi32(sum, magnitude, signed_other);
  }
};

__m256i add_halves(__m512i lanes) {
  return _mm256_add_epi32(_mm512_maskz_extracti64x4_epi64(0xff, lanes, 0),
                          _mm512_maskz_extracti64x4_epi64(0xff, lanes, 1));
}

std::int32_t sum_code_lanes(__m512i lanes) {
  const __m256i eight = add_halves(lanes);
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01001110));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0b10110001)));
}

constexpr std::size_t kCodeLanes = 64;

std::int32_t dot_codes(const std::int8_t* a, const std::int8_t* b, std::size_t padded_dim) {
  __m512i sum = _mm512_setzero_si512();
  std::size_t d = 0;
  for (; d + kCodeLanes <= padded_dim; d += kCodeLanes) {
    sum = Mine(load_codes(a + d)).add_products(sum, load_codes(b + d));
  }
  if (d < padded_dim) {
    sum = Mine(load_last_codes(a + d)).add_products(sum, load_last_codes(b + d));
  }
  return sum_code_lanes(sum);
}

void dot_codes_many(const std::int8_t* query, const void* const* codes, std::size_t n,
                    std::size_t padded_dim, std::int32_t* out) {
  std::size_t i = 0;
  for (; i + kCodesTogether <= n; i += kCodesTogether) {
    const auto* const first = static_cast<const std::int8_t*>(codes[i + 0]);
    const auto* const second = static_cast<const std::int8_t*>(codes[i + 1]);
    const auto* const third = static_cast<const std::int8_t*>(codes[i + 2]);
    const auto* const fourth = static_cast<const std::int8_t*>(codes[i + 3]);
    __m512i w = _mm512_setzero_si512();
    __m512i x = _mm512_setzero_si512();
    __m512i y = _mm512_setzero_si512();
    __m512i z = _mm512_setzero_si512();
    std::size_t d = 0;
    for (; d + kCodeLanes <= padded_dim; d += kCodeLanes) {
      const Mine mine(load_codes(query + d));
      w = mine.add_products(w, load_codes(first + d));
      x = mine.add_products(x, load_codes(second + d));
      y = mine.add_products(y, load_codes(third + d));
      z = mine.add_products(z, load_codes(fourth + d));
    }
    if (d < padded_dim) {
      const Mine mine(load_last_codes(query + d));
      w = mine.add_products(w, load_last_codes(first + d));
      x = mine.add_products(x, load_last_codes(second + d));
      y = mine.add_products(y, load_last_codes(third + d));
      z = mine.add_products(z, load_last_codes(fourth + d));
    }
    // All four sums side by side.
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(add_halves(w), add_halves(x)),
                                           _mm256_hadd_epi32(add_halves(y), add_halves(z)));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + i),
        _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
  }
  for (; i < n; ++i) {
    out[i] = dot_codes(query, static_cast<const std::int8_t*>(codes[i]), padded_dim);
  }
}

constexpr DistanceKernels kTable{
    "avx512",
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

constinit const DistanceKernels* const kAvx512Kernels = &kTable;

}  // namespace upvec::simd

#else

namespace upvec::simd {

constinit const DistanceKernels* const kAvx512Kernels = nullptr;

}  // namespace upvec::simd

#endif
