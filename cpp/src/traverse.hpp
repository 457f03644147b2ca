// Traversal of the graph: greedy descent and beam search, over linked rows.
//
// Malkov and Yashunin, HNSW (TPAMI 2020), algorithms 2 and 5. The loop works in two passes: it
// first collects the unvisited neighbours, then measures them with the points of the next few
// already on their way from memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "points.hpp"
#include "scratch.hpp"
#include "simd/prefetch.hpp"

namespace upvec {

// Lines that are requested ahead of the point being measured. Taken from an earlier prototype, for
// which 64 to 96 lines in flight were best on Zen 5 at 128 and 384 dimensions and more made it
// slower; not yet tuned here.
inline constexpr std::size_t kLinesInFlight = 192;

inline std::size_t prefetch_lookahead(std::size_t point_bytes) {
  return std::clamp<std::size_t>(kLinesInFlight * simd::kCacheLineBytes / point_bytes, 2, 32);
}

// Puts where the points of scratch.slots are into scratch.points, the first of them on their way.
template <typename Points>
void locate(const Points& points, Scratch& scratch) {
  const std::size_t n = scratch.slots.size();
  scratch.points.resize(n);
  const std::size_t bytes = points.point_bytes();
  const std::size_t ahead = prefetch_lookahead(bytes);
  for (std::size_t i = 0; i < n; ++i) {
    scratch.points[i] = points.current(scratch.slots[i]);
    if (i < ahead) simd::prefetch_lines(scratch.points[i], bytes);
  }
}

// Measures scratch.points into scratch.distances.
template <typename Points>
void measure(const Points& points, Point query, Scratch& scratch) {
  const std::size_t n = scratch.points.size();
  scratch.distances.resize(n);
  const std::size_t bytes = points.point_bytes();
  const std::size_t ahead = prefetch_lookahead(bytes);
  // Few calls, if nothing is left to be sent for between them.
  const std::size_t step = n <= ahead ? kMostTogether : kTogether;
  for (std::size_t i = 0; i < n; i += step) {
    const std::size_t together = std::min(step, n - i);
    for (std::size_t j = i + ahead; j < std::min(i + ahead + together, n); ++j) {
      simd::prefetch_lines(scratch.points[j], bytes);
    }
    points.distances(query, &scratch.points[i], together, &scratch.distances[i]);
  }
  scratch.counters.distances += n;
  UPVEC_COUNT(scratch.counters.traffic.measured<Points>(scratch.points, bytes));
}

// Points of more lines than this are not fetched for a list that may not be read next.
inline constexpr std::size_t kSpeculativeLines = 8;

// Looking ahead costs instructions, and hides latency: it pays if the graph is larger than what the
// last level of cache holds. Zen 4 with 32 MB, without looking ahead as a ratio to with it:
//   points and lists   inserts   moves   searches at ef 64
//   9 MB   text           1.07    1.03                1.13
//   13 MB  SIFT           1.07    1.04                1.09
//   26 MB  text           1.04    1.05                1.10
//   26 MB  SIFT           1.03     .98                1.01
//   53 MB  SIFT            .98     .92                 .99
inline constexpr std::size_t kCachedBytes = std::size_t{40} << 20;

template <typename Points>
bool outgrows_cache(const Points& points, std::size_t slots) {
  const std::size_t list_bytes = points.graph().base.cap() * sizeof(LinkWord);
  return slots * (points.point_bytes() + list_bytes) > kCachedBytes;
}

// Finds what the slot's list will bring, if it is the next to be read, and sends for the points.
// Its list must have been sent for long ago. Returns the slot if scratch.next_slots and next_points
// hold all that is new there.
template <typename Points>
Slot look_ahead(const Points& points, const LinkTable& table, Slot slot, Scratch& scratch) {
  const std::size_t bytes = points.point_bytes();
  const LinkWord* const words = table.words(slot);
  if (bytes > kSpeculativeLines * simd::kCacheLineBytes) {
    simd::prefetch_lines(words, table.cap() * sizeof(LinkWord));
    return kNoSlot;
  }
  scratch.next_slots.resize(table.cap());
  const std::size_t n = scratch.visited.unmet(words, table.cap(), scratch.next_slots.data());
  scratch.next_slots.resize(n);
  scratch.next_points.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    scratch.next_points[i] = points.current(scratch.next_slots[i]);
    simd::prefetch_lines(scratch.next_points[i], bytes);
    UPVEC_COUNT(scratch.counters.traffic.codes.sent_for(scratch.next_points[i], bytes));
  }
  return slot;
}

// Makes what was found ahead the present list.
inline void take_ahead(Scratch& scratch) {
  scratch.slots.swap(scratch.next_slots);
  scratch.points.swap(scratch.next_points);
  // A list that a writer was at may have shown one slot twice.
  std::size_t n = 0;
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    scratch.slots[n] = scratch.slots[i];
    scratch.points[n] = scratch.points[i];
    n += scratch.visited.insert(scratch.slots[n]);
  }
  scratch.slots.resize(n);
  scratch.points.resize(n);
}

// A walk down the levels, always to the nearest neighbour.
struct Descent {
  Neighbor best;
  unsigned level;
};

template <typename Points>
Descent begin_descent(const Points& points, Point query, Slot start) {
  return {{points.distance(query, points.current(start)), start}, points.graph().level_of(start)};
}

// Puts the neighbours of the nearest on the highest level above `bottom` where it has some to
// scratch.slots and points, on their way from memory. False if there is no such level.
template <typename Points>
bool open_upper_list(const Points& points, unsigned bottom, Descent& descent, Scratch& scratch) {
  const Graph& graph = points.graph();
  const std::size_t end = graph.slot_end.load(std::memory_order_acquire);
  for (; descent.level > bottom; --descent.level) {
    const std::uint32_t list = graph.upper_list_of(descent.best.slot, descent.level);
    if (list == 0) continue;
    scratch.slots.resize(graph.upper.cap());
    scratch.slots.resize(graph.upper.read(list, scratch.slots.data()));
    UPVEC_COUNT(scratch.counters.traffic.read_list(graph.upper.words(list), graph.upper.cap()));
    std::erase_if(scratch.slots, [&](Slot slot) { return slot >= end; });
    locate(points, scratch);
    return true;
  }
  return false;
}

// Goes to the nearest of scratch.slots, or a level down if none is nearer.
template <typename Points>
void descend_once(const Points& points, Point query, Descent& descent, Scratch& scratch) {
  measure(points, query, scratch);
  ++scratch.counters.hops;
  Neighbor best = descent.best;
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    best = std::min(best, Neighbor{scratch.distances[i], scratch.slots[i]});
  }
  if (best < descent.best) {
    descent.best = best;
  } else {
    --descent.level;
  }
}

// Walks from `start` down to just above `bottom`.
template <typename Points>
Neighbor descend(const Points& points, Point query, Slot start, unsigned bottom, Scratch& scratch) {
  UPVEC_COUNT(scratch.counters.traffic.begin_walk());
  Descent descent = begin_descent(points, query, start);
  while (open_upper_list(points, bottom, descent, scratch)) {
    descend_once(points, query, descent, scratch);
  }
  return descent.best;
}

// The lists of the two candidates that will be expanded next, and of new ones that come close to
// that. Sending for the list of everything that enters the pool, most of which is never expanded,
// made searches 4 to 8 % slower where memory is what they wait for (200,000 x 128 SIFT and 98,000 x
// 384 texts).
inline constexpr std::size_t kSoon = 4;

inline void fetch_list(const LinkTable& table, Slot slot) {
  simd::prefetch_lines(table.words(slot), table.cap() * sizeof(LinkWord));
}
inline void count_fetch(const LinkTable& table, Slot slot, Traffic& traffic) {
  traffic.links.sent_for(table.words(slot), table.cap() * sizeof(LinkWord));
}

// Takes the next candidate of scratch.pool; kNoSlot when there is none left.
template <typename Points>
Slot take_next(const Points& points, unsigned level, Scratch& scratch) {
  const Graph& graph = points.graph();
  Slot slot = scratch.pool.pop();
  // A writer may have taken this level from it.
  while (level > 0 && slot != kNoSlot && graph.level_of(slot) < level) slot = scratch.pool.pop();
  if (level > 0 || slot == kNoSlot) return slot;
  const Slot next = scratch.pool.peek();
  if (next == kNoSlot) return slot;
  fetch_list(graph.base, next);
  UPVEC_COUNT(count_fetch(graph.base, next, scratch.counters.traffic));
  if (const Slot second = scratch.pool.peek_second(); second != kNoSlot) {
    fetch_list(graph.base, second);
    UPVEC_COUNT(count_fetch(graph.base, second, scratch.counters.traffic));
  }
  return slot;
}

// Puts what is new among the slot's neighbours to scratch.slots and points, on their way from
// memory.
template <typename Points>
void open_list(const Points& points, unsigned level, Slot slot, Scratch& scratch) {
  const Graph& graph = points.graph();
  const LinkTable& table = graph.table(level);
  const LinkWord* const words = table.words(graph.list_of(slot, level));
  UPVEC_COUNT(scratch.counters.traffic.read_list(words, table.cap()));
  scratch.slots.resize(table.cap());
  scratch.slots.resize(scratch.visited.insert_list(words, table.cap(), scratch.slots.data()));
  locate(points, scratch);
}

// Measures scratch.points and offers them to scratch.pool. Every one is shown to accept(Neighbor).
template <typename Points, typename Accept>
void absorb(const Points& points, Point query, unsigned level, Scratch& scratch,
            const Accept& accept) {
  ++scratch.counters.hops;
  measure(points, query, scratch);
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    const Neighbor candidate{scratch.distances[i], scratch.slots[i]};
    accept(candidate);
    const std::size_t before = scratch.pool.insert(candidate);
    UPVEC_COUNT(scratch.counters.traffic.pool_inserts += before != CandidatePool::kNotKept ? 1 : 0);
    if (before < kSoon && level == 0) {
      fetch_list(points.graph().base, candidate.slot);
      UPVEC_COUNT(count_fetch(points.graph().base, candidate.slot, scratch.counters.traffic));
    }
  }
}

// Beam search on one level from the candidates already in scratch.pool (visited must know them
// too). Every slot that is measured is shown to accept(Neighbor).
template <typename Points, typename Accept>
void beam_search(const Points& points, Point query, unsigned level, Scratch& scratch,
                 const Accept& accept) {
  const Graph& graph = points.graph();
  const bool looks_ahead =
      level == 0 && outgrows_cache(points, graph.slot_end.load(std::memory_order_relaxed));
  Slot ahead = kNoSlot;
  for (Slot slot = take_next(points, level, scratch); slot != kNoSlot;
       slot = take_next(points, level, scratch)) {
    if (slot == ahead) {
      UPVEC_COUNT(scratch.counters.traffic.read_list(graph.base.words(slot), graph.base.cap()));
      take_ahead(scratch);
    } else {
      open_list(points, level, slot, scratch);
    }
    ahead = kNoSlot;
    if (const Slot next = looks_ahead ? scratch.pool.peek() : kNoSlot; next != kNoSlot) {
      // The list that will be read next, unless something nearer turns up in this one.
      ahead = look_ahead(points, graph.base, next, scratch);
    }
    absorb(points, query, level, scratch, accept);
  }
}

}  // namespace upvec
