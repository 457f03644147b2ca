// Index from the values of a column to the rows that hold them.
//
// Values are int64 keys; doubles become such in their order by ordered_key, strings by a dictionary
// that the caller keeps. Rows are cut in chunks of kScalarChunkRows. A chunk has its distinct keys,
// sorted, and a code of one or two bytes per row: its key's place among them. A query finds the
// codes that it wants by binary search, passes over the chunks that have none of them, and
// compares the codes of the others, 16 at a time. A chunk of lists has the rows of each key
// instead.
//
// Thread safety: an index never changes; any number of threads may use it. advanced() makes the
// next version, which shares the chunks that are the same.
//
// Invariants: all chunks but the last have kScalarChunkRows rows. Every key that a row holds is
// among those of its chunk; some of these may be held no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace upvec {

// The same as the chunks of columns, so that a chunk of either changes with that of the other.
constexpr std::size_t kScalarChunkRows = 2048;

enum class CellState : std::uint8_t {
  kValue,
  kUnordered,  // NaN: not null, and neither equal to, below nor above anything
  kNull,
};

// Both ends are in it; low > high: it is empty.
struct KeyRange {
  std::int64_t low;
  std::int64_t high;
};

// The contents of some rows of a chunk.
struct ScalarCells {
  std::vector<std::int64_t> keys;   // one per row; of lists, the elements of all rows
  std::vector<CellState> states;    // one per row; none: all are values
  std::vector<std::uint32_t> ends;  // lists only: where in keys the elements of each row end
};

struct ScalarUpdate {
  std::size_t chunk = 0;
  bool is_whole = true;             // the cells are those of all rows of the chunk
  std::vector<std::uint16_t> rows;  // else: of these, ascending, and the others are as they were
  ScalarCells cells;
};

// Keeps the order of doubles; -0.0 is 0.0. Not for NaN.
[[nodiscard]] std::int64_t ordered_key(double value) noexcept;

class ScalarChunk;

class ScalarIndex {
 public:
  explicit ScalarIndex(bool holds_lists) : holds_lists_(holds_lists) {}

  // The index of as many rows, in which these chunks have other contents: one update a chunk at
  // most, and one for each chunk that is new or has another number of rows. Throws
  // std::invalid_argument if updates do not fit.
  [[nodiscard]] ScalarIndex advanced(std::size_t rows, std::span<const ScalarUpdate> updates) const;

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] bool has_nulls() const noexcept { return has_nulls_; }
  [[nodiscard]] std::size_t bytes() const noexcept;

  // Each sets the bits of the rows that fulfil it, and clears none; bits are words_for(rows()).
  void match(KeyRange keys, std::span<std::uint64_t> bits) const;
  // keys ascend.
  void match_any(std::span<const std::int64_t> keys, std::span<std::uint64_t> bits) const;
  // The keys whose bits are set in `marks`.
  void match_marked(std::span<const std::uint64_t> marks, std::span<std::uint64_t> bits) const;
  void match_null(std::span<std::uint64_t> bits) const;

  // Sets the bits of all keys of all chunks, which are not negative, and below 64 * marks.size()
  // where they are to be told.
  void mark_keys(std::span<std::uint64_t> marks) const;

 private:
  std::span<std::uint64_t> bits_of(std::size_t chunk, std::span<std::uint64_t> bits) const;

  bool holds_lists_;
  bool has_nulls_ = false;
  std::size_t rows_ = 0;
  std::vector<std::shared_ptr<const ScalarChunk>> chunks_;
  std::vector<KeyRange> zones_;  // from the lowest key of each chunk to its highest
};

}  // namespace upvec
