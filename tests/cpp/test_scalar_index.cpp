#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bitmap.hpp"
#include "random.hpp"
#include "scalar_index.hpp"

namespace {

using upvec::CellState;
using upvec::KeyRange;
using upvec::kScalarChunkRows;
using upvec::ScalarCells;
using upvec::ScalarIndex;
using upvec::ScalarUpdate;
using upvec::words_for;
using upvec::testing::Random;

// What a row holds: null, or elements; a row that is no list and has none is unordered.
using Cell = std::optional<std::vector<std::int64_t>>;

constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

ScalarCells cells_of(const std::vector<Cell>& cells, bool lists) {
  ScalarCells made;
  for (const Cell& cell : cells) {
    made.states.push_back(!cell                     ? CellState::kNull
                          : cell->empty() && !lists ? CellState::kUnordered
                                                    : CellState::kValue);
    if (lists) {
      if (cell) made.keys.insert(made.keys.end(), cell->begin(), cell->end());
      made.ends.push_back(static_cast<std::uint32_t>(made.keys.size()));
    } else {
      made.keys.push_back(cell && !cell->empty() ? cell->front() : 77);
    }
  }
  return made;
}

std::size_t rows_in(std::size_t chunk, std::size_t rows) {
  return std::min(kScalarChunkRows, rows - chunk * kScalarChunkRows);
}

ScalarUpdate whole_update(std::size_t chunk, const std::vector<Cell>& rows, bool lists) {
  const auto first = rows.begin() + static_cast<std::ptrdiff_t>(chunk * kScalarChunkRows);
  const auto count = static_cast<std::ptrdiff_t>(rows_in(chunk, rows.size()));
  ScalarUpdate update;
  update.chunk = chunk;
  update.cells = cells_of({first, first + count}, lists);
  return update;
}

ScalarUpdate partial_update(std::size_t chunk, const std::set<std::size_t>& changed,
                            const std::vector<Cell>& rows, bool lists) {
  ScalarUpdate update;
  update.chunk = chunk;
  update.is_whole = false;
  std::vector<Cell> cells;
  for (const std::size_t row : changed) {
    update.rows.push_back(static_cast<std::uint16_t>(row % kScalarChunkRows));
    cells.push_back(rows[row]);
  }
  update.cells = cells_of(cells, lists);
  return update;
}

template <class Wanted>
void check_bits(const std::vector<std::uint64_t>& bits, const std::vector<Cell>& rows,
                const Wanted& wanted) {
  std::vector<std::int64_t> expected;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (wanted(rows[row])) expected.push_back(static_cast<std::int64_t>(row));
  }
  CHECK(upvec::rows_of_bits(bits) == expected);
}

auto has(std::int64_t low, std::int64_t high) {
  return [=](const Cell& cell) {
    return cell && std::any_of(cell->begin(), cell->end(),
                               [&](std::int64_t key) { return low <= key && key <= high; });
  };
}

void check_index(const ScalarIndex& index, const std::vector<Cell>& rows, Random& random,
                 std::int64_t keys) {
  const auto key = [&] { return static_cast<std::int64_t>(random() % 1000) * keys / 999; };
  const auto none = [&] { return std::vector<std::uint64_t>(words_for(rows.size())); };
  REQUIRE(index.rows() == rows.size());
  for (int repeat = 0; repeat < 4; ++repeat) {
    const std::int64_t low = key();
    const std::int64_t high = repeat == 0 ? low : repeat == 1 ? kMost : key();
    std::vector<std::uint64_t> bits = none();
    index.match({low, high}, bits);
    check_bits(bits, rows, has(low, high));

    std::vector<std::int64_t> some;
    for (int i = 0; i < 1 << (3 * repeat); ++i) some.push_back(key());
    std::sort(some.begin(), some.end());
    const auto is_some = [&](const Cell& cell) {
      return cell && std::any_of(cell->begin(), cell->end(), [&](std::int64_t one) {
               return std::binary_search(some.begin(), some.end(), one);
             });
    };
    bits = none();
    index.match_any(some, bits);
    check_bits(bits, rows, is_some);

    std::vector<std::uint64_t> marks(words_for(static_cast<std::size_t>(keys) / 2 + 1));
    std::erase_if(
        some, [&](std::int64_t one) { return static_cast<std::size_t>(one) >= marks.size() * 64; });
    REQUIRE(upvec::set_bits(some, marks));
    bits = none();
    index.match_marked(marks, bits);
    check_bits(bits, rows, is_some);
  }
  std::vector<std::uint64_t> bits = none();
  index.match({kLeast, kMost}, bits);
  check_bits(bits, rows, has(kLeast, kMost));
  bits = none();
  index.match_null(bits);
  check_bits(bits, rows, [](const Cell& cell) { return !cell; });
  CHECK(index.has_nulls() ==
        std::any_of(rows.begin(), rows.end(), [](const Cell& cell) { return !cell; }));

  std::set<std::int64_t> distinct;
  for (const Cell& cell : rows) {
    if (cell) distinct.insert(cell->begin(), cell->end());
  }
  std::vector<std::uint64_t> marks(words_for(static_cast<std::size_t>(keys) + 1));
  index.mark_keys(marks);
  const std::vector<std::int64_t> marked = upvec::rows_of_bits(marks);
  CHECK(std::includes(marked.begin(), marked.end(), distinct.begin(), distinct.end()));
}

// Rows that change and come, with updates of either kind; the versions before stay as they were.
void check_advances(bool lists, std::int64_t keys, std::uint32_t seed) {
  CAPTURE(lists);
  CAPTURE(keys);
  CAPTURE(seed);
  Random random(seed);
  const auto cell = [&]() -> Cell {
    if (random() % 9 == 0) return std::nullopt;
    std::vector<std::int64_t> elements(lists ? random() % 4 : random() % 8 != 0);
    for (std::int64_t& one : elements) {
      one = static_cast<std::int64_t>(random()) % (keys + 1);
    }
    return elements;
  };
  std::vector<Cell> rows;
  ScalarIndex index(lists);
  check_index(index, rows, random, keys);
  for (int step = 0; step < 12; ++step) {
    const std::vector<Cell> before = rows;
    std::vector<std::set<std::size_t>> changed;
    const auto change = [&](std::size_t row) {
      changed.resize(std::max(changed.size(), row / kScalarChunkRows + 1));
      changed[row / kScalarChunkRows].insert(row);
      rows[row] = cell();
    };
    const std::size_t come = step % 3 == 0 ? random() % 3000 : random() % 5;
    const std::size_t change_count = step % 4 == 0 ? random() % 3000 : random() % 20;
    for (std::size_t i = 0; i < change_count && !rows.empty(); ++i) change(random() % rows.size());
    for (std::size_t i = 0; i < come; ++i) {
      rows.emplace_back();
      change(rows.size() - 1);
    }
    std::vector<ScalarUpdate> updates;
    for (std::size_t c = 0; c < changed.size(); ++c) {
      if (changed[c].empty()) continue;
      const bool is_new = c * kScalarChunkRows >= before.size();
      updates.push_back(is_new || random() % 2 == 0 ? whole_update(c, rows, lists)
                                                    : partial_update(c, changed[c], rows, lists));
    }
    const ScalarIndex next = index.advanced(rows.size(), updates);
    check_index(next, rows, random, keys);
    check_index(index, before, random, keys);
    index = next;
  }
}

}  // namespace

TEST_CASE("an index that was brought forward answers as a look at every row does") {
  for (const std::int64_t keys : {3, 200, 260, 100'000}) {
    for (std::uint32_t seed = 0; seed < 3; ++seed) {
      check_advances(false, keys, seed);
      check_advances(true, keys, seed);
    }
  }
}

TEST_CASE("a chunk changes between codes of one and of two bytes") {
  Random random(1);
  ScalarIndex index(false);
  for (const std::int64_t distinct : {253, 254, 255, 256, 2048, 254}) {
    std::vector<Cell> rows;
    for (std::int64_t i = 0; i < 2048; ++i) rows.push_back(Cell(std::vector{i % distinct}));
    index = index.advanced(rows.size(), std::vector{whole_update(0, rows, false)});
    check_index(index, rows, random, 2048);
    rows[7] = std::nullopt;
    rows[8] = std::vector<std::int64_t>{};
    check_index(index.advanced(rows.size(), std::vector{whole_update(0, rows, false)}), rows,
                random, 2048);
  }
}

TEST_CASE("fewer rows leave the rows before them as they were") {
  Random random(2);
  std::vector<Cell> rows(5000, Cell(std::vector<std::int64_t>{5}));
  std::vector<ScalarUpdate> updates;
  for (std::size_t c = 0; c < 3; ++c) updates.push_back(whole_update(c, rows, false));
  const ScalarIndex index = ScalarIndex(false).advanced(rows.size(), updates);
  rows.resize(3000);
  check_index(index.advanced(3000, std::vector{whole_update(1, rows, false)}), rows, random, 9);
  CHECK_THROWS_AS(static_cast<void>(index.advanced(3000, {})), std::invalid_argument);
}

TEST_CASE("updates that do not fit are refused") {
  const std::vector<Cell> rows(10, Cell(std::vector<std::int64_t>{5}));
  const ScalarIndex empty(false);
  const auto refused = [](const ScalarIndex& index, std::size_t count, const ScalarUpdate& update) {
    CHECK_THROWS_AS(static_cast<void>(index.advanced(count, std::vector{update})),
                    std::invalid_argument);
  };
  refused(empty, 9, whole_update(0, rows, false));
  refused(empty, 10, whole_update(0, rows, true));
  refused(empty, 10, partial_update(0, {0, 1}, rows, false));
  ScalarUpdate far = whole_update(0, rows, false);
  far.chunk = 1;
  refused(empty, 10, far);
  const ScalarIndex index = empty.advanced(10, std::vector{whole_update(0, rows, false)});
  ScalarUpdate twice = partial_update(0, {1, 2}, rows, false);
  twice.rows[0] = 2;
  refused(index, 10, twice);
  twice.rows = {1, 10};
  refused(index, 10, twice);
  refused(index, 12, partial_update(0, {1, 2}, rows, false));
}

TEST_CASE("keys of doubles have their order") {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> ordered = {-infinity,
                                       -1e300,
                                       -1.5,
                                       -1.0,
                                       -std::numeric_limits<double>::denorm_min(),
                                       0.0,
                                       std::numeric_limits<double>::denorm_min(),
                                       1.0,
                                       1.5,
                                       1e300,
                                       infinity};
  for (std::size_t i = 1; i < ordered.size(); ++i) {
    CHECK(upvec::ordered_key(ordered[i - 1]) < upvec::ordered_key(ordered[i]));
  }
  CHECK(upvec::ordered_key(-0.0) == upvec::ordered_key(0.0));
}

TEST_CASE("bits are counted and listed") {
  Random random(3);
  for (std::size_t words = 0; words < 9; ++words) {
    std::vector<std::uint64_t> bits(words);
    std::set<std::int64_t> rows;
    for (std::size_t i = 0; i < words * 40; ++i) {
      rows.insert(static_cast<std::int64_t>(random() % (words * 64)));
    }
    const std::vector<std::int64_t> listed(rows.begin(), rows.end());
    REQUIRE(upvec::set_bits(listed, bits));
    CHECK(upvec::count_bits(bits) == rows.size());
    CHECK(upvec::rows_of_bits(bits) == listed);
    CHECK_FALSE(upvec::set_bits(std::vector{static_cast<std::int64_t>(words * 64)}, bits));
    CHECK_FALSE(upvec::set_bits(std::vector<std::int64_t>{-1}, bits));
  }
}
