// Prefetching into the first-level cache.
//
// Written as volatile assembly: gcc drops __builtin_prefetch together with the function around it
// when that function does nothing else, as it then looks free of side effects.
#pragma once

#include <cstddef>

namespace upvec::simd {

constexpr std::size_t kCacheLineBytes = 64;

[[gnu::always_inline]] inline void prefetch(const void* address) noexcept {
#if defined(__x86_64__) || defined(__i386__)
  asm volatile("prefetcht0 (%0)" : : "r"(address));
#elif defined(__aarch64__)
  asm volatile("prfm pldl1keep, [%0]" : : "r"(address));
#else
  __builtin_prefetch(address, 0, 3);
#endif
}

// Every line that [address, address + bytes) touches, given that address is line-aligned;
// otherwise perhaps all but the last.
[[gnu::always_inline]] inline void prefetch_lines(const void* address, std::size_t bytes) noexcept {
  const char* const first = static_cast<const char*>(address);
  for (std::size_t offset = 0; offset < bytes; offset += kCacheLineBytes) {
    prefetch(first + offset);
  }
}

}  // namespace upvec::simd
