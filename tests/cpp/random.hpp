// Random numbers for tests: the same on every system, and 32 bits wide also where std::mt19937's
// are not.
#pragma once

#include <cstdint>
#include <random>

namespace upvec::testing {

class Random {
 public:
  using result_type = std::uint32_t;
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return 0xffffffff; }
  result_type operator()() { return static_cast<result_type>(engine_()); }

 private:
  std::mt19937 engine_;
};

}  // namespace upvec::testing
