// Pending: the rows that a batch has written and not yet shown, with their codes.
//
// A batch writes all its new rows before it plans the first, so that plans can measure where
// everything will be. Thread safety: add() and clear() from the writer while nobody plans; the rest
// from any planner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codes.hpp"
#include "planes.hpp"

namespace upvec {

class Pending {
 public:
  // code_bytes 0: there are no codes.
  explicit Pending(std::size_t code_bytes) : code_bytes_(code_bytes) {}

  // Room for so many more, so that add() cannot fail.
  void reserve(std::size_t count) {
    rows_.reserve(rows_.size() + count);
    codes_.reserve(codes_.size() + count * code_bytes_);
  }
  // Returns its place, from 1.
  std::uint32_t add(Row row) {
    rows_.push_back(row);
    codes_.resize(rows_.size() * code_bytes_);
    return static_cast<std::uint32_t>(rows_.size());
  }
  void clear() noexcept {
    rows_.clear();
    codes_.clear();
  }

  [[nodiscard]] Row row(std::uint32_t place) const noexcept { return rows_[place - 1]; }
  [[nodiscard]] std::byte* code(std::uint32_t place) noexcept {
    return codes_.data() + (place - 1) * code_bytes_;
  }
  [[nodiscard]] Point code(std::uint32_t place) const noexcept {
    return codes_.data() + (place - 1) * code_bytes_;
  }

 private:
  std::size_t code_bytes_;
  std::vector<Row> rows_;
  std::vector<std::byte> codes_;
};

}  // namespace upvec
