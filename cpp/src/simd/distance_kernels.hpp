// The function table of the distance kernels: float32 and bfloat16 vectors, and int8 codes.
//
// Included by the per-instruction-set units, so it holds no inline function and no template: an
// inline function compiled there with wide instructions could be the copy the linker keeps for
// everyone, and would then crash on older processors.
//
// Contract of every kernel: vectors are 64-byte aligned and padded with zeros to `padded_dim`, a
// multiple of kPadFloats, so there are no tails. The order of summation is fixed per table: the
// same input gives the same bits on every call, and the *_many form gives the bits of the single
// form. Different tables may differ in the last bits.
//
// A bfloat16 is the upper half of a float: sign, exponent and 7 bits. Kernels make floats of them,
// and of codes, and measure those, in the order of summation of float vectors; so measuring against
// a vector in bfloat16 gives the bits of measuring against the same numbers in floats. Vectors in
// bfloat16 need no more than the alignment of their elements.
//
// Codes are padded with zeros to a multiple of kPadCodes, 8-byte aligned, and hold -127 .. 127,
// never -128 (so that sums of two products fit 16 bits). Their products are exact: all tables
// agree. A code may be replaced while a kernel reads it, so kernels load codes by relaxed atomic
// words; as C++ has none as wide as a register, the wide ones are written in assembly. What is read
// in such a moment is part old, part new: good for finding a way, not for an answer. The *_to_code
// kernels, which are for answers, load plainly: nobody may be replacing what they are given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace upvec::simd {

constexpr std::size_t kPadFloats = 16;
constexpr std::size_t kVectorAlignBytes = 64;
constexpr std::size_t kPadCodes = 32;

struct DistanceKernels {
  const char* name;
  // Squared Euclidean distance.
  float (*l2)(const float* a, const float* b, std::size_t padded_dim);
  float (*dot)(const float* a, const float* b, std::size_t padded_dim);
  // One query against n vectors given by pointers.
  void (*l2_many)(const float* query, const void* const* vectors, std::size_t n,
                  std::size_t padded_dim, float* out);
  void (*dot_many)(const float* query, const void* const* vectors, std::size_t n,
                   std::size_t padded_dim, float* out);
  // The same for vectors in bfloat16: two of them, or a query in floats and one.
  float (*l2_bf16)(const std::uint16_t* a, const std::uint16_t* b, std::size_t padded_dim);
  float (*dot_bf16)(const std::uint16_t* a, const std::uint16_t* b, std::size_t padded_dim);
  void (*l2_bf16_many)(const std::uint16_t* query, const void* const* vectors, std::size_t n,
                       std::size_t padded_dim, float* out);
  void (*dot_bf16_many)(const std::uint16_t* query, const void* const* vectors, std::size_t n,
                        std::size_t padded_dim, float* out);
  float (*l2_to_bf16)(const float* query, const std::uint16_t* vector, std::size_t padded_dim);
  float (*dot_to_bf16)(const float* query, const std::uint16_t* vector, std::size_t padded_dim);
  void (*l2_to_bf16_many)(const float* query, const void* const* vectors, std::size_t n,
                          std::size_t padded_dim, float* out);
  void (*dot_to_bf16_many)(const float* query, const void* const* vectors, std::size_t n,
                           std::size_t padded_dim, float* out);
  // The same for a query in floats and the vectors that codes stand for: scale times each value.
  float (*l2_to_code)(const float* query, const std::int8_t* code, float scale,
                      std::size_t padded_dim);
  float (*dot_to_code)(const float* query, const std::int8_t* code, float scale,
                       std::size_t padded_dim);
  void (*l2_to_code_many)(const float* query, const void* const* codes, const float* scales,
                          std::size_t n, std::size_t padded_dim, float* out);
  void (*dot_to_code_many)(const float* query, const void* const* codes, const float* scales,
                           std::size_t n, std::size_t padded_dim, float* out);
  // The dot product of two codes, and of one with n.
  std::int32_t (*dot_codes)(const std::int8_t* a, const std::int8_t* b, std::size_t padded_dim);
  void (*dot_codes_many)(const std::int8_t* query, const void* const* codes, std::size_t n,
                         std::size_t padded_dim, std::int32_t* out);
};

// Null where the unit was compiled for another architecture. Non-null says nothing about the
// processor at hand: ask distance.hpp for that.
extern const DistanceKernels* const kScalarKernels;
extern const DistanceKernels* const kAvx2Kernels;
extern const DistanceKernels* const kAvx512Kernels;
extern const DistanceKernels* const kNeonKernels;

}  // namespace upvec::simd
