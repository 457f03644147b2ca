// Counters: what the threads of an index have done, for stats().
//
// Queries, distances and hops are always counted. The build option UPVEC_COUNTERS adds Traffic:
// what searches ask of memory. Without it, UPVEC_COUNT(x) is nothing at all: x is not even
// evaluated. All of these belong to one thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "simd/prefetch.hpp"

#ifdef UPVEC_COUNTERS
#define UPVEC_COUNT(what) what
#else
#define UPVEC_COUNT(what) static_cast<void>(0)
#endif

namespace upvec {

inline std::size_t lines_touched(const void* address, std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(address) / simd::kCacheLineBytes;
  const auto last = (reinterpret_cast<std::uintptr_t>(address) + bytes - 1) / simd::kCacheLineBytes;
  return last - first + 1;
}

// Cache lines of one plane. A record counts once a walk, however often it is read.
class LineCounter {
 public:
  // Of a new walk: what the last one sent for and did not read stays unread.
  void begin() { was_read_.clear(); }
  void sent_for(const void* record, std::size_t bytes) {
    if (was_read_.try_emplace(record, false).second) unread_ += lines_touched(record, bytes);
  }
  void read(const void* record, std::size_t bytes) {
    const auto [place, first] = was_read_.try_emplace(record, true);
    if (!first && place->second) return;
    if (!first) unread_ -= lines_touched(record, bytes);
    place->second = true;
    read_ += lines_touched(record, bytes);
  }
  void add(const LineCounter& other) {
    read_ += other.read_;
    unread_ += other.unread_;
  }
  [[nodiscard]] std::uint64_t lines_read() const noexcept { return read_; }
  [[nodiscard]] std::uint64_t lines_unread() const noexcept { return unread_; }

 private:
  std::unordered_map<const void*, bool> was_read_;
  std::uint64_t read_ = 0;
  std::uint64_t unread_ = 0;
};

// What is counted beside: the marks of slots that were met (a byte a slot), the words that lead to
// lists above level 0, and the point at which a walk starts are not.
class Traffic {
 public:
  LineCounter codes;
  LineCounter links;
  LineCounter row_of;
  LineCounter headers;
  LineCounter vectors;
  std::uint64_t exact_distances = 0;
  std::uint64_t neighbours = 0;    // in the lists that were read, met before or not
  std::uint64_t pool_inserts = 0;  // those that were good enough to stay

  void begin_walk() {
    for (const Plane& plane : kPlanes) (this->*plane.counter).begin();
  }
  // `Word` is an atomic of a slot; all that was sent for counts, though the list may end before.
  template <typename Word>
  void read_list(const Word* words, std::size_t cap) {
    links.read(words, cap * sizeof(Word));
    for (std::size_t i = 0; i < cap && words[i].load(std::memory_order_relaxed) != 0; ++i) {
      ++neighbours;
    }
  }
  template <typename Points>
  void measured(const std::vector<const void*>& points, std::size_t point_bytes) {
    if (Points::kExact) exact_distances += points.size();
    LineCounter& plane = Points::kExact ? vectors : codes;
    for (const void* point : points) plane.read(point, point_bytes);
  }
  void add(const Traffic& other) {
    for (const Plane& plane : kPlanes) (this->*plane.counter).add(other.*plane.counter);
    exact_distances += other.exact_distances;
    neighbours += other.neighbours;
    pool_inserts += other.pool_inserts;
  }
  [[nodiscard]] std::vector<std::pair<std::string, std::uint64_t>> by_name() const {
    std::vector<std::pair<std::string, std::uint64_t>> all = {
        {"exact_distances", exact_distances},
        {"neighbours", neighbours},
        {"pool_inserts", pool_inserts},
    };
    for (const Plane& plane : kPlanes) {
      const LineCounter& lines = this->*plane.counter;
      all.emplace_back(std::string(plane.name) + "_lines", lines.lines_read());
      all.emplace_back(std::string(plane.name) + "_lines_unread", lines.lines_unread());
    }
    return all;
  }

 private:
  struct Plane {
    const char* name;
    LineCounter Traffic::*counter;
  };
  static const std::array<Plane, 5> kPlanes;
};

inline constexpr std::array<Traffic::Plane, 5> Traffic::kPlanes{{{"codes", &Traffic::codes},
                                                                 {"links", &Traffic::links},
                                                                 {"row_of", &Traffic::row_of},
                                                                 {"headers", &Traffic::headers},
                                                                 {"vectors", &Traffic::vectors}}};

// What a call did.
struct Counters {
  std::uint64_t queries = 0;
  std::uint64_t distances = 0;
  std::uint64_t hops = 0;
#ifdef UPVEC_COUNTERS
  Traffic traffic;
#endif

  void add(const Counters& other) {
    queries += other.queries;
    distances += other.distances;
    hops += other.hops;
    UPVEC_COUNT(traffic.add(other.traffic));
  }
};

}  // namespace upvec
