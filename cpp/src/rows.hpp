// Rows: immutable versions of a slot's vector.
//
// A row is written before any slot points at it and not touched again, but for its `previous`,
// until no reader that could hold it is left; then its number is used again. Thread safety: reads
// from any thread that learned the row's number through an acquire load; allocate() and release()
// from one writer.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "planes.hpp"

namespace upvec {

struct RowHeader {
  std::uint64_t seq;          // the commit that wrote it
  std::uint64_t key;          // StoredKey, as bits: a snapshot may outlive the slot's use for it
  std::atomic<Row> previous;  // what the slot showed before, as far as someone may ask for it
  std::uint8_t removed;       // a tombstone: from seq on, the slot shows nothing

  void set(std::uint64_t by, std::uint64_t of, Row before, bool tombstone) noexcept {
    seq = by;
    key = of;
    previous.store(before, std::memory_order_relaxed);
    removed = tombstone ? 1 : 0;
  }
};

class Rows {
 public:
  // What a row keeps of its vector takes so many bytes (see space.hpp).
  explicit Rows(std::size_t row_bytes) : vectors_(row_bytes) {}

  [[nodiscard]] std::byte* vector(Row row) const noexcept { return vectors_.at(row); }
  [[nodiscard]] RowHeader& header(Row row) const noexcept { return headers_[row]; }

  // Makes sure that the next `count` allocations cannot fail.
  void reserve(std::size_t count);
  Row allocate();
  void release(Row row);

  [[nodiscard]] std::size_t in_use() const noexcept { return next_ - 1 - free_.size(); }
  [[nodiscard]] std::size_t vector_bytes() const noexcept { return vectors_.allocated_bytes(); }
  [[nodiscard]] std::size_t header_bytes() const noexcept { return headers_.allocated_bytes(); }

 private:
  BytePlane vectors_;
  Plane<RowHeader> headers_;
  std::size_t next_ = 1;
  std::vector<Row> free_;
};

}  // namespace upvec
