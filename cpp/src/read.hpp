// The readers' side of an index. None of these functions waits for a writer.
#pragma once

#include "filter.hpp"
#include "hits.hpp"
#include "store.hpp"

namespace upvec {

// The row that a slot shows at `seq`; kNoRow if none. `newest` is what the slot points at, or has
// pointed at since the reader pinned its version.
inline Row row_shown(const Graph& graph, Row newest, std::uint64_t seq) noexcept {
  Row row = newest;
  while (row != kNoRow && graph.rows.header(row).seq > seq) {
    row = graph.rows.header(row).previous.load(std::memory_order_acquire);
  }
  return row == kNoRow || graph.rows.header(row).removed != 0 ? kNoRow : row;
}
inline Row visible_row(const Graph& graph, Slot slot, std::uint64_t seq) noexcept {
  return row_shown(graph, graph.row_of[slot].load(std::memory_order_acquire), seq);
}

void get(const Store& store, const KeySpan& keys, float* vectors, std::uint8_t* found,
         std::uint64_t seq);
void search(const Store& store, const MatrixView& queries, const SearchOptions& options,
            const Filter::State* filter, std::uint64_t seq, const Places& places);
void exact_search(const Store& store, const MatrixView& queries, const SearchOptions& options,
                  const Filter::State* filter, std::uint64_t seq,
                  const Places& places);  // exact.cpp
RangeResult range_search(const Store& store, const MatrixView& queries, float radius,
                         const SearchOptions& options, const Filter::State* filter,
                         std::uint64_t seq);  // range.cpp
// Candidates that a search for k rows holds.
[[nodiscard]] std::size_t effective_ef(std::size_t ef, std::size_t k) noexcept;
Keys visible_keys(const Store& store, std::uint64_t seq);
// The slot that holds each key at `seq`, and the row that it shows; kNoSlot if none.
void find_visible(const Store& store, const KeySpan& keys, std::uint64_t seq,
                  std::vector<Slot>& slots, std::vector<Row>& rows);

}  // namespace upvec
