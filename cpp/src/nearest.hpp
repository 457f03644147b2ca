// Nearest: the k nearest of a long row of measured slots.
//
// Those that may be among them are collected as they come, in a buffer of twice as many, which is
// cut back to the k nearest when it is full. So each costs a comparison, and one that is taken a
// constant more, however large k is. What remains does not depend on the order in which they came.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "neighbor.hpp"

namespace upvec {

class Nearest {
 public:
  void begin(std::size_t k) {
    k_ = k;
    size_ = 0;
    limit_ = std::numeric_limits<float>::infinity();
    words_.resize(2 * k + kGroup + kSlack);
  }
  void add(const float* distances, const Slot* slots, std::size_t n) {
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      // Most groups bring nothing: one look at all of it is cheaper than a branch for each.
      bool any = false;
      for (std::size_t j = 0; j < kGroup; ++j) any |= distances[i + j] <= limit_;
      if (any) add_group(distances + i, slots + i, kGroup);
    }
    add_group(distances + i, slots + i, n - i);
  }
  void add(const Nearest& other) {
    for (std::size_t i = 0; i < other.size_; ++i) {
      const Neighbor one = PackedNeighbor::unpack(other.words_[i]);
      add_group(&one.distance, &one.slot, 1);
    }
  }
  // The nearest, at most k, in order: words of PackedNeighbor.
  std::span<const std::uint64_t> sorted() {
    cut();
    std::sort(words_.begin(), words_.begin() + static_cast<std::ptrdiff_t>(size_));
    return {words_.data(), size_};
  }

 private:
  static constexpr std::size_t kGroup = 16;
  // For small k: how many come between two cuts.
  static constexpr std::size_t kSlack = 128;

  void add_group(const float* distances, const Slot* slots, std::size_t n) {
    if (size_ + n > words_.size()) cut();
    for (std::size_t i = 0; i < n; ++i) {
      words_[size_] = PackedNeighbor::pack({distances[i], slots[i]});
      size_ += distances[i] <= limit_ ? 1 : 0;
    }
  }
  void cut() {
    if (size_ <= k_) return;
    const auto last = words_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(words_.begin(), last, words_.begin() + static_cast<std::ptrdiff_t>(size_));
    size_ = k_;
    limit_ = PackedNeighbor::distance(*last);
  }

  std::size_t k_ = 0;
  std::size_t size_ = 0;
  float limit_ = 0.0F;  // what is farther is not among the k nearest
  std::vector<std::uint64_t> words_;
};

}  // namespace upvec
