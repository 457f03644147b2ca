// Portable kernels: plain C++ that every compiler turns into the baseline vector instructions.
#include "distance_kernels.hpp"

// clang 14 unrolls the loop over lanes before it looks for vectors, and then finds none: 145 ns
// for 384 dimensions instead of 72.
#if defined(__clang__)
#define UPVEC_LANES_LOOP \
  _Pragma("clang loop vectorize(assume_safety) vectorize_width(4) unroll(disable)")
#else
#define UPVEC_LANES_LOOP
#endif

namespace upvec::simd {
namespace {

// One partial sum per padded lane, so that the compiler may vectorise without reordering sums.
constexpr std::size_t kLanes = kPadFloats;

float sum_lanes(const float* lanes) {
  float quarters[4];
  for (std::size_t i = 0; i < 4; ++i) {
    quarters[i] = (lanes[i] + lanes[i + 4]) + (lanes[i + 8] + lanes[i + 12]);
  }
  return (quarters[0] + quarters[1]) + (quarters[2] + quarters[3]);
}

// What kernels measure: component d, as a float.
struct Floats {
  const float* values;
  float operator[](std::size_t d) const { return values[d]; }
};
struct Bfloats {
  const std::uint16_t* values;
  float operator[](std::size_t d) const {
    const std::uint32_t bits = std::uint32_t{values[d]} << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
};
struct Code {
  const std::int8_t* values;
  float scale;
  float operator[](std::size_t d) const { return scale * static_cast<float>(values[d]); }
};

// Never inlined: a second copy might be contracted into fused multiply-adds differently where the
// baseline has them (aarch64), and the *_many form would lose the bits of the single form.
template <typename A, typename B>
[[gnu::noinline]] float l2(A a, B b, std::size_t padded_dim) {
  float lanes[kLanes] = {};
  for (std::size_t d = 0; d < padded_dim; d += kLanes) {
    UPVEC_LANES_LOOP
    for (std::size_t i = 0; i < kLanes; ++i) {
      const float difference = a[d + i] - b[d + i];
      lanes[i] += difference * difference;
    }
  }
  return sum_lanes(lanes);
}

template <typename A, typename B>
[[gnu::noinline]] float dot(A a, B b, std::size_t padded_dim) {
  float lanes[kLanes] = {};
  for (std::size_t d = 0; d < padded_dim; d += kLanes) {
    UPVEC_LANES_LOOP
    for (std::size_t i = 0; i < kLanes; ++i) {
      lanes[i] += a[d + i] * b[d + i];
    }
  }
  return sum_lanes(lanes);
}

template <typename A, typename B>
using Measure = float (*)(A a, B b, std::size_t padded_dim);

template <Measure<Floats, Floats> measure>
float floats(const float* a, const float* b, std::size_t padded_dim) {
  return measure(Floats{a}, Floats{b}, padded_dim);
}
template <Measure<Floats, Floats> measure>
void floats_many(const float* query, const void* const* vectors, std::size_t n,
                 std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = measure(Floats{query}, Floats{static_cast<const float*>(vectors[i])}, padded_dim);
  }
}

template <Measure<Bfloats, Bfloats> measure>
float bf16(const std::uint16_t* a, const std::uint16_t* b, std::size_t padded_dim) {
  return measure(Bfloats{a}, Bfloats{b}, padded_dim);
}
template <Measure<Bfloats, Bfloats> measure>
void bf16_many(const std::uint16_t* query, const void* const* vectors, std::size_t n,
               std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const Bfloats vector{static_cast<const std::uint16_t*>(vectors[i])};
    out[i] = measure(Bfloats{query}, vector, padded_dim);
  }
}

template <Measure<Floats, Bfloats> measure>
float to_bf16(const float* query, const std::uint16_t* vector, std::size_t padded_dim) {
  return measure(Floats{query}, Bfloats{vector}, padded_dim);
}
template <Measure<Floats, Bfloats> measure>
void to_bf16_many(const float* query, const void* const* vectors, std::size_t n,
                  std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const Bfloats vector{static_cast<const std::uint16_t*>(vectors[i])};
    out[i] = measure(Floats{query}, vector, padded_dim);
  }
}

template <Measure<Floats, Code> measure>
float to_code(const float* query, const std::int8_t* code, float scale, std::size_t padded_dim) {
  return measure(Floats{query}, Code{code, scale}, padded_dim);
}
template <Measure<Floats, Code> measure>
void to_code_many(const float* query, const void* const* codes, const float* scales, std::size_t n,
                  std::size_t padded_dim, float* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const Code code{static_cast<const std::int8_t*>(codes[i]), scales[i]};
    out[i] = measure(Floats{query}, code, padded_dim);
  }
}

constexpr std::size_t kWord = 8;

// A relaxed atomic load of 8 codes.
void load_word(const std::int8_t* from, std::int8_t* to) {
  const std::uint64_t word =
      __atomic_load_n(reinterpret_cast<const std::uint64_t*>(from), __ATOMIC_RELAXED);
  __builtin_memcpy(to, &word, sizeof word);
}

std::int32_t dot_codes(const std::int8_t* a, const std::int8_t* b, std::size_t padded_dim) {
  std::int32_t sum = 0;
  for (std::size_t d = 0; d < padded_dim; d += kWord) {
    std::int8_t x[kWord];
    std::int8_t y[kWord];
    load_word(a + d, x);
    load_word(b + d, y);
    for (std::size_t i = 0; i < kWord; ++i) sum += x[i] * y[i];
  }
  return sum;
}

void dot_codes_many(const std::int8_t* query, const void* const* codes, std::size_t n,
                    std::size_t padded_dim, std::int32_t* out) {
  for (std::size_t i = 0; i < n; ++i)
    out[i] = dot_codes(query, static_cast<const std::int8_t*>(codes[i]), padded_dim);
}

constexpr DistanceKernels kTable{
    "scalar",
    floats<l2<Floats, Floats>>,
    floats<dot<Floats, Floats>>,
    floats_many<l2<Floats, Floats>>,
    floats_many<dot<Floats, Floats>>,
    bf16<l2<Bfloats, Bfloats>>,
    bf16<dot<Bfloats, Bfloats>>,
    bf16_many<l2<Bfloats, Bfloats>>,
    bf16_many<dot<Bfloats, Bfloats>>,
    to_bf16<l2<Floats, Bfloats>>,
    to_bf16<dot<Floats, Bfloats>>,
    to_bf16_many<l2<Floats, Bfloats>>,
    to_bf16_many<dot<Floats, Bfloats>>,
    to_code<l2<Floats, Code>>,
    to_code<dot<Floats, Code>>,
    to_code_many<l2<Floats, Code>>,
    to_code_many<dot<Floats, Code>>,
    dot_codes,
    dot_codes_many,
};

}  // namespace

constinit const DistanceKernels* const kScalarKernels = &kTable;

}  // namespace upvec::simd
