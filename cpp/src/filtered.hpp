// Searching among the allowed slots alone.
//
// Two ways. A scan of their codes; and a walk that measures allowed slots only, and where a list
// names few of them looks through the lists of the others (Patel, Kraft, Guestrin and Zaharia,
// ACORN, SIGMOD 2024, section 5; that it is decided list by list: Sehgal and Salihoglu, NaviX, VLDB
// 2025, section 4). It begins at a sample of the allowed slots, so it need not find its way to them
// through others.
#pragma once

#include <algorithm>
#include <cstddef>

#include "filter.hpp"
#include "traverse.hpp"

namespace upvec {

// Measures scratch.points into scratch.accepted.
template <typename Points>
void offer(const Points& points, Point query, Scratch& scratch) {
  measure(points, query, scratch);
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    scratch.accepted.insert({scratch.distances[i], scratch.slots[i]});
  }
}

// The nearest of the allowed slots to scratch.accepted, whose capacity says how many.
template <typename Points>
void scan_allowed(const Points& points, Point query, const Filter::State& filter,
                  Scratch& scratch) {
  constexpr std::size_t kAtOnce = 1024;
  const std::vector<Slot>& slots = filter.slots();
  for (std::size_t from = 0; from < slots.size(); from += kAtOnce) {
    const std::size_t to = std::min(from + kAtOnce, slots.size());
    scratch.slots.assign(slots.begin() + static_cast<std::ptrdiff_t>(from),
                         slots.begin() + static_cast<std::ptrdiff_t>(to));
    locate(points, scratch);
    offer(points, query, scratch);
  }
}

// A walk over level 0 with scratch.accepted as its pool.
template <typename Points>
class AllowedWalk {
 public:
  AllowedWalk(const Points& points, Point query, const Filter::State& filter, Scratch& scratch)
      : points_(points),
        base_(points.graph().base),
        query_(query),
        filter_(filter),
        scratch_(scratch) {}

  void run() {
    scratch_.visited.begin(points_.graph().slot_end.load(std::memory_order_acquire));
    begin();
    for (Slot slot = scratch_.accepted.pop(); slot != kNoSlot; slot = scratch_.accepted.pop()) {
      ++scratch_.counters.hops;
      open(slot);
      if (const Slot next = scratch_.accepted.peek(); next != kNoSlot) fetch_list(base_, next);
      locate(points_, scratch_);
      offer(points_, query_, scratch_);
    }
  }

 private:
  // Lists with fewer allowed slots than this are looked through, and until so many are found.
  static constexpr std::size_t kEnough = 32;

  void begin() {
    scratch_.slots.clear();
    for (const Slot slot : filter_.seeds()) {
      // It may show nothing any more.
      if (base_.words(slot)[0].load(std::memory_order_acquire) == kNoSlot) continue;
      if (scratch_.visited.insert(slot) != 0) scratch_.slots.push_back(slot);
    }
    locate(points_, scratch_);
    offer(points_, query_, scratch_);
  }

  // The allowed slots around this one that were not met yet, to scratch.slots.
  void open(Slot slot) {
    std::vector<Slot>& found = scratch_.slots;
    std::vector<Slot>& between = scratch_.next_slots;
    found.resize(base_.cap());
    between.resize(base_.cap());
    const std::size_t n =
        scratch_.visited.insert_list(base_.words(slot), base_.cap(), found.data());
    std::size_t allowed = 0;
    std::size_t others = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const Slot neighbor = found[i];
      between[others] = neighbor;
      const bool is_allowed = filter_.contains(neighbor);
      found[allowed] = neighbor;
      allowed += is_allowed ? 1 : 0;
      others += is_allowed ? 0 : 1;
    }
    found.resize(allowed);
    if (allowed >= kEnough) return;
    for (std::size_t i = 0; i < others; ++i) fetch_list(base_, between[i]);
    for (std::size_t i = 0; i < others && found.size() < kEnough; ++i) look_through(between[i]);
  }

  void look_through(Slot slot) {
    std::vector<Slot>& found = scratch_.slots;
    const LinkWord* const words = base_.words(slot);
    for (std::size_t i = 0; i < base_.cap(); ++i) {
      const Slot neighbor = words[i].load(std::memory_order_acquire);
      if (neighbor == kNoSlot) break;
      if (filter_.contains(neighbor) && scratch_.visited.insert(neighbor) != 0) {
        found.push_back(neighbor);
      }
    }
  }

  const Points& points_;
  const LinkTable& base_;
  Point query_;
  const Filter::State& filter_;
  Scratch& scratch_;
};

}  // namespace upvec
