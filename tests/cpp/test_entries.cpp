#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <vector>

#include "entries.hpp"
#include "file_format.hpp"
#include "model.hpp"
#include "store.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

IndexOptions options(Codes codes, Keep keep = Keep::kF32) {
  IndexOptions options;
  options.dim = 7;
  options.codes = codes;
  options.keep = keep;
  options.m = 4;  // a quarter of the rows stand on an upper level
  options.ef_construction = 20;
  return options;
}

void upsert_range(Store& store, VectorSource& source, int begin, int end) {
  std::vector<int> numbers(static_cast<std::size_t>(end - begin));
  std::iota(numbers.begin(), numbers.end(), begin);
  const Matrix vectors = source.matrix(numbers.size());
  upsert(store, key_column(KeyType::kInt64, numbers).span(), vectors.view(), {});
}

void remove_range(Store& store, int begin, int end) {
  std::vector<int> numbers(static_cast<std::size_t>(end - begin));
  std::iota(numbers.begin(), numbers.end(), begin);
  remove(store, key_column(KeyType::kInt64, numbers).span(), {});
}

std::vector<Slot> slots_of(const Entries& entries) {
  std::vector<Slot> slots;
  for (std::size_t i = 0; i < entries.size(); ++i) slots.push_back(entries.slot(i));
  return slots;
}

void require_right(const Store& store) {
  const Graph& graph = store.graph;
  const std::vector<Slot> slots = slots_of(graph.entries);
  REQUIRE(std::set<Slot>(slots.begin(), slots.end()).size() == slots.size());
  std::size_t upper = 0;
  for (unsigned level = 1; level <= kMaxLevel; ++level) upper += store.by_level[level].size();
  REQUIRE(slots.size() == std::min({upper, graph.entries.capacity(), store.live / 64}));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    REQUIRE((graph.flags[slots[i]] & kLive) != 0);
    const Point code =
        graph.has_codes ? graph.codes.at(slots[i]) : graph.rows.vector(graph.row_of[slots[i]]);
    REQUIRE(std::memcmp(graph.entries.code(i), code, graph.code_space.point_bytes()) == 0);
  }
}

}  // namespace

TEST_CASE("entries are live, of the highest levels, and have the codes that the graph has") {
  Keep keep = Keep::kF32;
  SUBCASE("beside vectors") {}
  SUBCASE("alone") { keep = Keep::kNone; }
  Store store(options(Codes::kInt8, keep));
  VectorSource source(7, 11);
  require_right(store);
  for (int turn = 0; turn < 12; ++turn) {
    upsert_range(store, source, 200 * turn, 200 * turn + 200);
    require_right(store);
    upsert_range(store, source, 100 * turn, 100 * turn + 60);  // moves
    require_right(store);
    remove_range(store, 170 * turn, 170 * turn + 40);
    require_right(store);
  }
  // Without those of the highest level.
  const unsigned top = store.graph.level_of(store.graph.entry.load());
  const std::vector<Slot> highest(store.by_level[top].begin(), store.by_level[top].end());
  for (const Slot slot : highest) {
    const std::int64_t key = KeyIndex::int_of(StoredKey{store.graph.key_of(slot)});
    remove_range(store, static_cast<int>(key), static_cast<int>(key) + 1);
    require_right(store);
  }
  remove_range(store, 0, 2400);
  require_right(store);
  CHECK(store.graph.entries.size() == 0);
}

TEST_CASE("a loaded index has the entries of the saved one") {
  const auto shared = std::make_shared<Store>(options(Codes::kInt8));
  Store& store = *shared;
  VectorSource source(7, 12);
  upsert_range(store, source, 0, 900);
  remove_range(store, 100, 200);
  const std::vector<std::byte> bytes = to_bytes(shared);
  const std::shared_ptr<Store> loaded = from_bytes(bytes, "bytes");
  require_right(*loaded);
  CHECK(slots_of(loaded->graph.entries) == slots_of(store.graph.entries));
}

TEST_CASE("an index without codes has no entries") {
  Store store(options(Codes::kNone));
  VectorSource source(7, 13);
  upsert_range(store, source, 0, 300);
  CHECK(store.graph.entries.size() == 0);
}
