// Scan: measures every row of a version, as fast as memory brings them.
//
// Rows are measured against the first query of a tile one after the other, as hardware then reads
// ahead: of 200,000 rows of 128 dimensions 32 GB/s, against 11 by the kernel for four at a time, or
// 23 with every row prefetched (Zen 4; the plain sum of as many floats 31). Rows that do not follow
// each other in memory are prefetched a few places ahead; what slots point at and the headers of
// rows, twice as many. Those that fit the first-level cache are then measured against the other
// queries of the tile, so a row comes from memory once a tile.
// Thread safety: as the reads of read.hpp; one Scan may be used by several threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "read.hpp"
#include "simd/prefetch.hpp"

namespace upvec {

// Queries that share the reading of a row.
inline constexpr std::size_t kScanTile = 16;
// What one thread takes at a time, and the least that is worth a thread: to start one takes as long
// as to read about half of that.
inline constexpr std::size_t kScanPieceBytes = std::size_t{1} << 20;

class Scan {
 public:
  // A filter leaves only its slots to be looked at.
  Scan(const Store& store, const Filter::State* filter, std::uint64_t seq)
      : graph_(store.graph),
        filter_(filter),
        seq_(seq),
        size_(filter != nullptr ? filter->slots().size()
                                : graph_.slot_end.load(std::memory_order_acquire) - 1),
        block_(std::clamp<std::size_t>(kBlockBytes / graph_.space.row_bytes(), 4, kMostRows) / 4 *
               4) {}

  // Places to look at, each of which shows a row or none.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return size_ * graph_.space.row_bytes(); }

  // Calls take(query, distances, slots, n) with everything that the places [begin, end) show, for
  // each of n prepared queries that stand side by side.
  template <typename Take>
  void run(std::size_t begin, std::size_t end, const float* queries, std::size_t n_queries,
           const Take& take) const {
    const std::size_t stride = graph_.space.padded_dim();
    std::array<Row, 2 * kAhead> newest{};
    std::array<Row, 2 * kAhead> shown;
    Row before = kNoRow;
    Block block;
    const auto flush = [&] {
      take(0, block.distances.data(), block.slots.data(), block.size);
      for (std::size_t q = 1; q < n_queries; ++q) {
        measure(queries + q * stride, block);
        take(q, block.distances.data(), block.slots.data(), block.size);
      }
      block.size = 0;
    };
    for (std::size_t at = begin; at < end + 2 * kAhead; ++at) {
      if (at >= begin + 2 * kAhead) {
        const std::size_t place = at - 2 * kAhead;
        const Row row = shown[place % shown.size()];
        if (row != kNoRow) {
          const Point vector = graph_.rows.vector(row);
          block.slots[block.size] = slot_at(place);
          block.vectors[block.size] = vector;
          block.distances[block.size] = graph_.space.distance_to(queries, vector);
          if (++block.size == block_) flush();
        }
      }
      if (at >= begin + kAhead && at < end + kAhead) {
        const std::size_t place = at - kAhead;
        const Row row = shown_at(place, newest[place % newest.size()]);
        shown[place % shown.size()] = row;
        if (row != kNoRow && row != before + 1) {
          simd::prefetch_lines(graph_.rows.vector(row), graph_.space.row_bytes());
        }
        before = row;
      }
      if (at < end) {
        const Row row = graph_.row_of[slot_at(at)].load(std::memory_order_acquire);
        if (row != newest[(at - 1) % newest.size()] + 1) simd::prefetch(&graph_.rows.header(row));
        newest[at % newest.size()] = row;
      }
    }
    flush();
  }

 private:
  static constexpr std::size_t kBlockBytes = std::size_t{16} << 10;
  static constexpr std::size_t kMostRows = 64;

  static constexpr std::size_t kAhead = 16;

  struct Block {
    std::size_t size = 0;
    std::array<Slot, kMostRows> slots;
    std::array<Point, kMostRows> vectors;
    std::array<float, kMostRows> distances;
  };

  void measure(const float* query, Block& block) const noexcept {
    for (std::size_t i = 0; i < block.size; i += kMostTogether) {
      graph_.space.distances_to(query, &block.vectors[i], std::min(kMostTogether, block.size - i),
                                &block.distances[i]);
    }
  }
  [[nodiscard]] Slot slot_at(std::size_t place) const noexcept {
    return filter_ != nullptr ? filter_->slots()[place] : static_cast<Slot>(place + 1);
  }
  // The row that this version shows at a place, given what its slot points at.
  [[nodiscard]] Row shown_at(std::size_t place, Row newest) const noexcept {
    const Row row = row_shown(graph_, newest, seq_);
    return row == kNoRow || filter_ == nullptr || still_allowed(place, row) ? row : kNoRow;
  }
  // As Filter::State::contains, without looking for the slot.
  [[nodiscard]] bool still_allowed(std::size_t place, Row row) const noexcept {
    return filter_->still_holds(place, graph_.rows.header(row).key);
  }

  const Graph& graph_;
  const Filter::State* filter_;
  std::uint64_t seq_;
  std::size_t size_;
  std::size_t block_;  // rows taken together
};

}  // namespace upvec
