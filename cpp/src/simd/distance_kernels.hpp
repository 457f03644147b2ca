// The function table of the float32 distance kernels.
//
// Included by the per-instruction-set units, so it holds no inline function and no template: an
// inline function compiled there with wide instructions could be the copy the linker keeps for
// everyone, and would then crash on older processors.
//
// Contract of every kernel: vectors are 64-byte aligned and padded with zeros to `padded_dim`, a
// multiple of kPadFloats, so there are no tails. The order of summation is fixed per table: the
// same input gives the same bits on every call, and the *_many form gives the bits of the single
// form. Different tables may differ in the last bits.
#pragma once

#include <cstddef>

namespace upvec::simd {

constexpr std::size_t kPadFloats = 16;
constexpr std::size_t kVectorAlignBytes = 64;

struct DistanceKernels {
  const char* name;
  // Squared Euclidean distance.
  float (*l2)(const float* a, const float* b, std::size_t padded_dim);
  float (*dot)(const float* a, const float* b, std::size_t padded_dim);
  // One query against n vectors given by pointers.
  void (*l2_many)(const float* query, const float* const* vectors, std::size_t n,
                  std::size_t padded_dim, float* out);
  void (*dot_many)(const float* query, const float* const* vectors, std::size_t n,
                   std::size_t padded_dim, float* out);
};

// Null where the unit was compiled for another architecture. Non-null says nothing about the
// processor at hand: ask distance.hpp for that.
extern const DistanceKernels* const kScalarKernels;
extern const DistanceKernels* const kAvx2Kernels;
extern const DistanceKernels* const kAvx512Kernels;
extern const DistanceKernels* const kNeonKernels;

}  // namespace upvec::simd
