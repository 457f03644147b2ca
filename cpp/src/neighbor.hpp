// Neighbor: a slot and its distance from something; and the same as one word.
#pragma once

#include <bit>
#include <cstdint>

#include "planes.hpp"

namespace upvec {

struct Neighbor {
  float distance;
  Slot slot;

  // Ties are broken by slot, so that every order that a graph depends on is a total one.
  friend bool operator<(const Neighbor& a, const Neighbor& b) noexcept {
    return a.distance < b.distance || (a.distance == b.distance && a.slot < b.slot);
  }
};

// A word that sorts as (distance, slot): the distance's bits, made to order as unsigned numbers do,
// then the slot, then a bit that is free for a mark. A NaN sorts last.
class PackedNeighbor {
 public:
  static std::uint64_t pack(Neighbor neighbor) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(neighbor.distance);
    const std::uint32_t ordered = (bits & kSign) != 0 ? ~bits : bits | kSign;
    return std::uint64_t{ordered} << 32 | std::uint64_t{neighbor.slot} << 1;
  }
  static float distance(std::uint64_t word) noexcept {
    const auto ordered = static_cast<std::uint32_t>(word >> 32);
    return std::bit_cast<float>((ordered & kSign) != 0 ? ordered & ~kSign : ~ordered);
  }
  static Slot slot(std::uint64_t word) noexcept { return static_cast<Slot>(word) >> 1; }
  static Neighbor unpack(std::uint64_t word) noexcept { return {distance(word), slot(word)}; }

 private:
  static constexpr std::uint32_t kSign = std::uint32_t{1} << 31;
};

}  // namespace upvec
