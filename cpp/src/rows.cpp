#include "rows.hpp"

#include "upvec/error.hpp"

namespace upvec {

void Rows::reserve(std::size_t count) {
  const std::size_t fresh = count > free_.size() ? count - free_.size() : 0;
  const std::size_t end = next_ + fresh;
  if (end > kMaxSlots) throw Error(ErrorCode::kLimit, "an index holds at most 2^31 - 1 rows");
  vectors_.ensure(end);
  headers_.ensure(end);
  // Releasing every row must not allocate either: a commit may not fail half-way.
  free_.reserve(end);
}

Row Rows::allocate() {
  if (!free_.empty()) {
    const Row row = free_.back();
    free_.pop_back();
    return row;
  }
  return static_cast<Row>(next_++);
}

void Rows::release(Row row) { free_.push_back(row); }

}  // namespace upvec
