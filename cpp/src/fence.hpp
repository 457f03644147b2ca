// Fences between atomics of different words.
//
// The thread sanitizer does not know them (gcc refuses to compile them with it), so they stand only
// where all words are atomic anyway and what depends on their order is how good an answer is, not
// whether it is one.
#pragma once

#include <atomic>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UPVEC_NO_FENCES 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define UPVEC_NO_FENCES 1
#endif

namespace upvec {

// What was stored before is seen by whoever sees something that is stored after it.
inline void release_fence() noexcept {
#ifndef UPVEC_NO_FENCES
  std::atomic_thread_fence(std::memory_order_release);
#endif
}

// What is loaded after it is as new as what was loaded before it.
inline void acquire_fence() noexcept {
#ifndef UPVEC_NO_FENCES
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
}

}  // namespace upvec
