#include "scalar_index.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <stdexcept>

#include "bitmap.hpp"
#include "scalar_chunk.hpp"

namespace upvec {
namespace {

constexpr KeyRange kNoKeys{std::numeric_limits<std::int64_t>::max(),
                           std::numeric_limits<std::int64_t>::min()};

KeyRange zone_of(const ScalarChunk& chunk) noexcept {
  const std::span<const std::int64_t> keys = chunk.keys();
  return keys.empty() ? kNoKeys : KeyRange{keys.front(), keys.back()};
}

std::size_t place_of(std::span<const std::int64_t> keys, std::int64_t low) noexcept {
  return static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), low) - keys.begin());
}

// Whether an update says what it must of a chunk of so many rows, which had `before`, or was not.
bool fits(const ScalarUpdate& update, const ScalarChunk* before, std::size_t rows,
          bool holds_lists) noexcept {
  const std::size_t cells = update.is_whole ? rows : update.rows.size();
  const ScalarCells& given = update.cells;
  if (holds_lists) {
    if (given.ends.size() != cells || !std::is_sorted(given.ends.begin(), given.ends.end()) ||
        given.keys.size() != (cells == 0 ? 0 : given.ends.back())) {
      return false;
    }
  } else if (given.keys.size() != cells || !given.ends.empty()) {
    return false;
  }
  if (!given.states.empty() && given.states.size() != cells) return false;
  if (update.is_whole) return true;
  if (before == nullptr || before->rows() > rows) return false;
  if (!std::is_sorted(update.rows.begin(), update.rows.end())) return false;
  if (std::adjacent_find(update.rows.begin(), update.rows.end()) != update.rows.end()) return false;
  // Every row that came is among them, and none beyond.
  const auto came = std::lower_bound(update.rows.begin(), update.rows.end(), before->rows());
  return static_cast<std::size_t>(update.rows.end() - came) == rows - before->rows() &&
         (update.rows.empty() || update.rows.back() < rows);
}

}  // namespace

std::int64_t ordered_key(double value) noexcept {
  const auto bits = std::bit_cast<std::int64_t>(value + 0.0);  // -0.0 + 0.0 is 0.0
  // Of negative ones all other bits are turned, so that the larger magnitude comes first.
  return bits ^ ((bits >> 63) & std::numeric_limits<std::int64_t>::max());
}

ScalarIndex ScalarIndex::advanced(std::size_t rows, std::span<const ScalarUpdate> updates) const {
  ScalarIndex next(holds_lists_);
  const std::size_t count = (rows + kScalarChunkRows - 1) / kScalarChunkRows;
  next.rows_ = rows;
  next.chunks_ = chunks_;
  next.zones_ = zones_;
  next.chunks_.resize(count);
  next.zones_.resize(count, kNoKeys);
  for (const ScalarUpdate& update : updates) {
    if (update.chunk >= count) throw std::invalid_argument("an update of no chunk");
    const std::size_t held = std::min(kScalarChunkRows, rows - update.chunk * kScalarChunkRows);
    const ScalarChunk* const old =
        update.chunk < chunks_.size() ? chunks_[update.chunk].get() : nullptr;
    if (!fits(update, old, held, holds_lists_)) {
      throw std::invalid_argument("an update that does not fit its chunk");
    }
    next.chunks_[update.chunk] = holds_lists_ ? next_list_chunk(old, update, held)
                                              : next_dictionary_chunk(old, update, held);
    next.zones_[update.chunk] = zone_of(*next.chunks_[update.chunk]);
  }
  for (std::size_t c = 0; c < count; ++c) {
    const std::size_t held = std::min(kScalarChunkRows, rows - c * kScalarChunkRows);
    if (next.chunks_[c] == nullptr || next.chunks_[c]->rows() != held) {
      throw std::invalid_argument("a chunk of another number of rows without an update");
    }
    next.has_nulls_ |= next.chunks_[c]->has_nulls();
  }
  return next;
}

std::size_t ScalarIndex::bytes() const noexcept {
  std::size_t held = sizeof(*this) + chunks_.capacity() * sizeof(chunks_[0]) +
                     zones_.capacity() * sizeof(zones_[0]);
  for (const auto& chunk : chunks_) held += chunk->bytes();
  return held;
}

std::span<std::uint64_t> ScalarIndex::bits_of(std::size_t chunk,
                                              std::span<std::uint64_t> bits) const {
  return bits.subspan(chunk * (kScalarChunkRows / 64), words_for(chunks_[chunk]->rows()));
}

void ScalarIndex::match(KeyRange keys, std::span<std::uint64_t> bits) const {
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    if (zones_[c].low > keys.high || zones_[c].high < keys.low) continue;
    const std::span<const std::int64_t> held = chunks_[c]->keys();
    const std::size_t first = place_of(held, keys.low);
    const auto above =
        std::upper_bound(held.begin() + static_cast<std::ptrdiff_t>(first), held.end(), keys.high);
    const auto last = static_cast<std::size_t>(above - held.begin());
    if (first < last) chunks_[c]->match_places(first, last, bits_of(c, bits));
  }
}

void ScalarIndex::match_any(std::span<const std::int64_t> keys,
                            std::span<std::uint64_t> bits) const {
  std::array<std::uint8_t, kScalarChunkRows> wanted;
  std::vector<std::uint8_t> many;  // lists may have more distinct elements than rows
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    if (keys.empty() || zones_[c].low > keys.back() || zones_[c].high < keys.front()) continue;
    const std::span<const std::int64_t> held = chunks_[c]->keys();
    std::span<std::uint8_t> chosen(wanted.data(), std::min(held.size(), wanted.size()));
    if (held.size() > wanted.size()) {
      many.resize(held.size());
      chosen = many;
    }
    std::fill(chosen.begin(), chosen.end(), std::uint8_t{0});
    bool any = false;
    const auto choose = [&](std::size_t place) {
      chosen[place] = 1;
      any = true;
    };
    if (keys.size() < held.size()) {
      for (const std::int64_t key : keys) {
        const std::size_t place = place_of(held, key);
        if (place < held.size() && held[place] == key) choose(place);
      }
    } else {
      for (std::size_t place = 0; place < held.size(); ++place) {
        if (std::binary_search(keys.begin(), keys.end(), held[place])) choose(place);
      }
    }
    if (any) chunks_[c]->match_wanted(chosen, bits_of(c, bits));
  }
}

void ScalarIndex::match_marked(std::span<const std::uint64_t> marks,
                               std::span<std::uint64_t> bits) const {
  std::vector<std::uint8_t> wanted;
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    const std::span<const std::int64_t> held = chunks_[c]->keys();
    wanted.resize(held.size());
    bool any = false;
    for (std::size_t place = 0; place < held.size(); ++place) {
      const auto key = static_cast<std::uint64_t>(held[place]);
      wanted[place] = key / 64 < marks.size() && ((marks[key / 64] >> (key % 64)) & 1) != 0;
      any |= wanted[place] != 0;
    }
    if (any) chunks_[c]->match_wanted(wanted, bits_of(c, bits));
  }
}

void ScalarIndex::match_null(std::span<std::uint64_t> bits) const {
  for (std::size_t c = 0; c < chunks_.size(); ++c) chunks_[c]->match_null(bits_of(c, bits));
}

void ScalarIndex::mark_keys(std::span<std::uint64_t> marks) const {
  for (const auto& chunk : chunks_) {
    for (const std::int64_t signed_key : chunk->keys()) {
      const auto key = static_cast<std::uint64_t>(signed_key);
      if (key / 64 < marks.size()) marks[key / 64] |= std::uint64_t{1} << (key % 64);
    }
  }
}

}  // namespace upvec
