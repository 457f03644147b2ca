// Entries: some slots spread over the graph, with copies of their codes side by side. A search
// measures them all and starts on level 0 at the nearest, instead of walking down the levels.
//
// They are the slots of the highest levels, which are drawn at random; so the table follows from
// what the index holds. Any live slot will do to start from, as level 0 is connected.
//
// Queries/s at recall .95 and .99 as a ratio to walking down, by how many there are (Zen 4):
//                          64          128         256         512
//   50,000 x 128 SIFT      1.03 1.03   1.02 1.03   1.02 1.01
//   200,000 x 128 SIFT                 1.07 1.06   1.06 1.07   1.00 1.04
//   360,000 x 128 SIFT     1.05 1.01   1.08 1.05   1.08 1.06
//   98,000 x 384 texts                 1.13 1.09   1.06 1.07   1.02 1.00
// The idea is from "Down with the Hierarchy" (Munyampirwa et al., arXiv 2412.01940); plans go on
// walking down.
//
// Thread safety: one writer; readers at any time. Codes are replaced while readers measure them, as
// those in the graph are. A slot may be removed after a reader learned it: then its list is empty.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "codes.hpp"
#include "planes.hpp"

namespace upvec {

class Entries {
 public:
  // point_bytes 0: there are no codes, and no entries.
  explicit Entries(std::size_t point_bytes)
      : capacity_(point_bytes == 0 ? 0
                                   : std::clamp<std::size_t>(kBytes / point_bytes, kMostTogether,
                                                             4 * kMostTogether)),
        codes_(std::max<std::size_t>(1, point_bytes)),
        slots_(std::make_unique<std::atomic<Slot>[]>(capacity_)) {
    codes_.ensure(capacity_);
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  [[nodiscard]] Slot slot(std::size_t i) const noexcept {
    return slots_[i].load(std::memory_order_acquire);
  }
  [[nodiscard]] Point code(std::size_t i) const noexcept { return codes_.at(i); }

  // Replaces them all, at most capacity(); code_of(slot) is what to copy.
  template <typename CodeOf>
  void set(const std::vector<Slot>& slots, const CodeSpace& space, const CodeOf& code_of) noexcept {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      space.copy(code_of(slots[i]), codes_.at(i));
      slots_[i].store(slots[i], std::memory_order_release);
    }
    size_.store(slots.size(), std::memory_order_release);
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{1} << 18;  // what a search can read at once

  std::size_t capacity_;
  BytePlane codes_;
  std::unique_ptr<std::atomic<Slot>[]> slots_;
  std::atomic<std::size_t> size_{0};
};

}  // namespace upvec
