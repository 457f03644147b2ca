// Stopwatch: wall-clock time from one lap to the next.
#pragma once

#include <chrono>
#include <cstdint>

namespace upvec {

class Stopwatch {
 public:
  // Nanoseconds since the last lap, or since the watch was made.
  std::uint64_t lap_ns() noexcept {
    const Clock::time_point now = Clock::now();
    const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count();
    last_ = now;
    return static_cast<std::uint64_t>(passed);
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

}  // namespace upvec
