#include <cstdlib>
#include <string>

#include "distance.hpp"
#include "upvec/error.hpp"

namespace upvec::simd {
namespace {

#if defined(__x86_64__) || defined(__i386__)
// __builtin_cpu_supports asks the processor and, through XGETBV, whether the operating system
// saves the wide registers.
bool processor_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool processor_has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
#else
bool processor_has_avx2() { return false; }
bool processor_has_avx512() { return false; }
#endif

bool always() { return true; }

struct Candidate {
  const DistanceKernels* const* table;
  bool (*supported)();
};

// Slowest first.
constexpr Candidate kCandidates[] = {
    {&kScalarKernels, always},
    {&kNeonKernels, always},
    {&kAvx2Kernels, processor_has_avx2},
    {&kAvx512Kernels, processor_has_avx512},
};

bool usable(const Candidate& candidate) {
  return *candidate.table != nullptr && candidate.supported();
}

}  // namespace

const DistanceKernels* find_kernels(std::string_view name) noexcept {
  for (const Candidate& candidate : kCandidates) {
    if (usable(candidate) && (*candidate.table)->name == name) {
      return *candidate.table;
    }
  }
  return nullptr;
}

std::vector<std::string_view> available_kernels() {
  std::vector<std::string_view> names;
  for (const Candidate& candidate : kCandidates) {
    if (usable(candidate)) {
      names.emplace_back((*candidate.table)->name);
    }
  }
  return names;
}

const DistanceKernels& choose_kernels(const char* wanted) {
  const std::vector<std::string_view> names = available_kernels();
  if (wanted == nullptr || *wanted == '\0') {
    return *find_kernels(names.back());
  }
  if (const DistanceKernels* found = find_kernels(wanted)) {
    return *found;
  }
  std::string message = "UPVEC_SIMD is \"" + std::string(wanted) + "\"; available here: ";
  for (std::size_t i = 0; i < names.size(); ++i) {
    message.append(i == 0 ? "" : ", ").append(names[i]);
  }
  throw Error(ErrorCode::kInvalidArgument, message);
}

const DistanceKernels& kernels() {
  static const DistanceKernels& chosen = choose_kernels(std::getenv("UPVEC_SIMD"));
  return chosen;
}

}  // namespace upvec::simd
