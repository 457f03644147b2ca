// Searching among the allowed slots alone.
//
// Two ways. A scan of their codes; and a walk that measures allowed slots only, and where a list
// names few of them looks through the lists of the others (Patel, Kraft, Guestrin and Zaharia,
// ACORN, SIGMOD 2024, section 5; that it is decided list by list: Sehgal and Salihoglu, NaviX, VLDB
// 2025, section 4). It begins at those that a walk over all slots has met near the query, and at a
// sample of the others: most of them may be elsewhere, where the first do not lead.
#pragma once

#include <algorithm>
#include <cmath>
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

// A walk over level 0 with scratch.accepted as its pool. What is there already, is where it begins.
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
  // Where a list names fewer allowed slots than this, others' lists are looked through until so
  // many are found. Recall and queries/s (to unfiltered ones) by the two, 200,000 x 128 SIFT, of
  // which a half / a tenth are allowed by chance:
  //   32, 32   .9905 .35   .9935 .29        8, 16   .9675 .59   .9830 .35
  //    8, 32   .9780 .54   .9935 .31       12, 12   .9785 .57   .9720 .48
  static constexpr std::size_t kFew = 10;
  static constexpr std::size_t kEnough = 20;

  void begin() {
    for (std::size_t i = 0; i < scratch_.accepted.size(); ++i) {
      scratch_.visited.insert(scratch_.accepted[i].slot);
    }
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
    if (allowed >= kFew) return;
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

inline std::vector<Neighbor> candidates_of(const CandidatePool& pool) {
  std::vector<Neighbor> candidates;
  for (std::size_t i = 0; i < pool.size(); ++i) candidates.push_back(pool[i]);
  return candidates;
}

// The nearest allowed slots to scratch.accepted, by whichever way finds them. It has those near the
// query that were met so far.
//
// Where there are few allowed ones around the query, a walk does not get from one to the next. And
// a query that is far from everything allowed has all of it at nearly the same distance, so that a
// beam misses some of the nearest: of 200,000 x 128 SIFT, a half allowed, the farthest from the
// query, ef 64 / 128 / 256 / 512 gave a recall of .845, .906, .945 and .959. The relative contrast
// (He, Kumar and Chang, ICML 2012) tells: of the first and the last of 64 candidates it was above
// .3 for 19 in 20 other queries, and for one in 5 of these.
template <typename Points>
void find_allowed(const Points& points, Point query, const Filter::State& filter,
                  const FilterSize& size, std::size_t ef, bool are_few_here, Scratch& scratch) {
  constexpr float kLowContrast = 0.3F;
  constexpr std::size_t kWider = 8;
  CandidatePool& found = scratch.accepted;
  if (!are_few_here) {
    AllowedWalk(points, query, filter, scratch).run();
    if (found.is_full()) {
      const float first = found.size() > 0 ? found[0].distance : 0.0F;
      const float last = found.size() > 0 ? found[found.size() - 1].distance : 0.0F;
      if (last - first >= kLowContrast * std::abs(first)) return;
    }
  }
  const std::size_t wider = std::min(kWider * ef, filter.count);
  if (cost_of_walk_among_allowed(size, wider) < static_cast<double>(filter.count)) {
    const std::vector<Neighbor> before = candidates_of(found);
    found.begin(wider);
    for (const Neighbor candidate : before) found.insert(candidate);
    AllowedWalk(points, query, filter, scratch).run();
    if (found.is_full()) return;
  }
  // The cheapest that finds them; or there are some to which no others lead.
  found.begin(std::min(ef, filter.count));
  scan_allowed(points, query, filter, scratch);
}

}  // namespace upvec
