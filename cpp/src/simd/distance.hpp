// Choice of the distance kernels this processor and operating system can run.
// All functions may be called from any thread at any time.
#pragma once

#include <string_view>
#include <vector>

#include "distance_kernels.hpp"

namespace upvec::simd {

// The fastest table, or the one named by the environment variable UPVEC_SIMD
// (scalar, avx2, avx512, neon). Chosen once, at the first call; throws Error(kInvalidArgument)
// when UPVEC_SIMD names a table that is unknown or cannot run here.
const DistanceKernels& kernels();

// Null when the name is unknown or cannot run here.
const DistanceKernels* find_kernels(std::string_view name) noexcept;

// Names that can run here, slowest first.
std::vector<std::string_view> available_kernels();

// What kernels() would choose for a value of UPVEC_SIMD; null or empty means the fastest.
const DistanceKernels& choose_kernels(const char* wanted);

}  // namespace upvec::simd
