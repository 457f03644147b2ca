// The readers' side of an index. None of these functions waits for a writer.
#pragma once

#include "store.hpp"

namespace upvec {

// The row that a slot shows at `seq`; kNoRow if none.
Row visible_row(const Graph& graph, Slot slot, std::uint64_t seq) noexcept;

void get(const Store& store, const KeySpan& keys, float* vectors, std::uint8_t* found,
         std::uint64_t seq);
SearchResult search(const Store& store, const MatrixView& queries, std::size_t k,
                    const SearchOptions& options, const Filter::State* filter, std::uint64_t seq);
SearchResult exact_search(const Store& store, const MatrixView& queries, std::size_t k,
                          const SearchOptions& options, const Filter::State* filter,
                          std::uint64_t seq);
RangeResult range_search(const Store& store, const MatrixView& queries, float radius,
                         const SearchOptions& options, const Filter::State* filter,
                         std::uint64_t seq);
std::shared_ptr<const Filter::State> make_filter(const std::shared_ptr<const Store>& store,
                                                 const KeySpan& allowed, std::uint64_t seq);
Keys visible_keys(const Store& store, std::uint64_t seq);
// The slot that holds each key at `seq`, and the row that it shows; kNoSlot if none.
void find_visible(const Store& store, const KeySpan& keys, std::uint64_t seq,
                  std::vector<Slot>& slots, std::vector<Row>& rows);

}  // namespace upvec
