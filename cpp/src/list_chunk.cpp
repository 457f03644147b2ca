// Chunks of lists: the sorted distinct elements, and the rows of each.
#include <algorithm>
#include <array>
#include <utility>

#include "bitmap.hpp"
#include "scalar_chunk.hpp"

namespace upvec {
namespace {

using Posting = std::pair<std::int64_t, std::uint16_t>;

void set(std::span<std::uint64_t> bits, std::size_t row) noexcept {
  bits[row / 64] |= std::uint64_t{1} << (row % 64);
}

class ListChunk final : public ScalarChunk {
 public:
  // Postings ascend and are distinct.
  ListChunk(std::span<const Posting> postings, std::vector<std::uint64_t> nulls, std::size_t rows) {
    rows_ = rows;
    has_nulls_ = std::any_of(nulls.begin(), nulls.end(), [](std::uint64_t w) { return w != 0; });
    nulls_ = std::move(nulls);
    rows_of_.reserve(postings.size());
    for (const auto& [key, row] : postings) {
      if (keys_.empty() || keys_.back() != key) {
        keys_.push_back(key);
        starts_.push_back(static_cast<std::uint32_t>(rows_of_.size()));
      }
      rows_of_.push_back(row);
    }
    starts_.push_back(static_cast<std::uint32_t>(rows_of_.size()));
    keys_.shrink_to_fit();
    starts_.shrink_to_fit();
  }

  [[nodiscard]] std::size_t bytes() const noexcept override {
    return sizeof(*this) + keys_.capacity() * sizeof(keys_[0]) +
           starts_.capacity() * sizeof(starts_[0]) + rows_of_.capacity() * sizeof(rows_of_[0]) +
           nulls_.capacity() * sizeof(nulls_[0]);
  }
  void match_places(std::size_t first, std::size_t last,
                    std::span<std::uint64_t> bits) const noexcept override {
    for (std::size_t i = starts_[first]; i < starts_[last]; ++i) set(bits, rows_of_[i]);
  }
  void match_wanted(std::span<const std::uint8_t> wanted,
                    std::span<std::uint64_t> bits) const noexcept override {
    for (std::size_t place = 0; place < wanted.size(); ++place) {
      if (wanted[place] != 0) match_places(place, place + 1, bits);
    }
  }
  void match_null(std::span<std::uint64_t> bits) const noexcept override {
    if (!has_nulls_) return;
    for (std::size_t word = 0; word < bits.size(); ++word) bits[word] |= nulls_[word];
  }

  // All postings but those of some rows, in order.
  [[nodiscard]] std::vector<Posting> without(
      const std::array<bool, kScalarChunkRows>& is_gone) const {
    std::vector<Posting> kept;
    kept.reserve(rows_of_.size());
    for (std::size_t place = 0; place < keys_.size(); ++place) {
      for (std::size_t i = starts_[place]; i < starts_[place + 1]; ++i) {
        if (!is_gone[rows_of_[i]]) kept.emplace_back(keys_[place], rows_of_[i]);
      }
    }
    return kept;
  }
  [[nodiscard]] const std::vector<std::uint64_t>& nulls() const noexcept { return nulls_; }

 private:
  std::vector<std::uint32_t> starts_;   // where the rows of each key begin, and the end
  std::vector<std::uint16_t> rows_of_;  // ascending for each key
  std::vector<std::uint64_t> nulls_;    // a bit per row
};

}  // namespace

ScalarChunkPtr next_list_chunk(const ScalarChunk* old, const ScalarUpdate& update,
                               std::size_t rows) {
  std::vector<Posting> kept;
  std::vector<std::uint64_t> nulls;
  if (!update.is_whole) {
    const auto& before = static_cast<const ListChunk&>(*old);
    std::array<bool, kScalarChunkRows> is_gone{};
    for (const std::uint16_t row : update.rows) is_gone[row] = true;
    kept = before.without(is_gone);
    nulls = before.nulls();
  }
  nulls.resize(words_for(rows));
  const ScalarCells& cells = update.cells;
  std::vector<Posting> fresh;
  fresh.reserve(cells.keys.size());
  std::size_t element = 0;
  for (std::size_t i = 0; i < cells.ends.size(); ++i) {
    const std::uint16_t row = update.is_whole ? static_cast<std::uint16_t>(i) : update.rows[i];
    const bool is_null = !cells.states.empty() && cells.states[i] == CellState::kNull;
    nulls[row / 64] &= ~(std::uint64_t{1} << (row % 64));
    if (is_null) set(nulls, row);
    for (; element < cells.ends[i]; ++element) fresh.emplace_back(cells.keys[element], row);
  }
  std::sort(fresh.begin(), fresh.end());
  fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
  std::vector<Posting> postings(kept.size() + fresh.size());
  std::merge(kept.begin(), kept.end(), fresh.begin(), fresh.end(), postings.begin());
  return std::make_shared<ListChunk>(postings, std::move(nulls), rows);
}

}  // namespace upvec
