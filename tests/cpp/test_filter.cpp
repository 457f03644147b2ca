// The ways of a filtered search, each against what is true.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "filter.hpp"
#include "model.hpp"
#include "upvec/error.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

constexpr std::array kWays = {FilterWay::kAuto, FilterWay::kScan, FilterWay::kWalkAllowed,
                              FilterWay::kWalkAll};
constexpr std::size_t kDim = 12;
constexpr std::size_t kHits = 10;

IndexOptions options_of(Codes codes, Keep keep) {
  IndexOptions options;
  options.dim = kDim;
  options.codes = codes;
  options.keep = keep;
  options.m = 8;
  options.ef_construction = 60;
  return options;
}

// Keys 0, 1, ... with their vectors.
struct Numbered {
  explicit Numbered(std::size_t rows, Codes codes = Codes::kInt8, Keep keep = Keep::kF32)
      : index(options_of(codes, keep)), vectors(source.matrix(rows)) {
    write(0, rows);
  }
  void write(std::size_t from, std::size_t to, bool publish = true) {
    std::vector<std::int64_t> keys;
    Matrix some{kDim, {}};
    for (std::size_t i = from; i < to; ++i) {
      keys.push_back(static_cast<std::int64_t>(i));
      some.add(vectors.row(i));
    }
    UpsertOptions options;
    options.publish = publish;
    index.upsert(KeySpan::ints(keys), some.view(), options);
  }
  void remove(const std::vector<std::int64_t>& keys) { index.remove(KeySpan::ints(keys)); }

  VectorSource source{kDim, 11};
  Index index;
  Matrix vectors;
};

std::vector<std::uint64_t> bits_of(const std::function<bool(std::size_t)>& allows,
                                   std::size_t rows) {
  std::vector<std::uint64_t> bits(rows / 64 + 1);
  for (std::size_t i = 0; i < rows; ++i) {
    if (allows(i)) bits[i / 64] |= std::uint64_t{1} << (i % 64);
  }
  return bits;
}

// The share of what an exact search finds; every hit has to be an allowed key, once.
double recall(const Index& index, const Filter& filter, const std::set<std::int64_t>& allowed,
              const Matrix& queries, FilterWay way, const Snapshot* snapshot = nullptr) {
  SearchOptions options;
  options.filter = &filter;
  options.way = way;
  options.snapshot = snapshot;
  const SearchResult found = index.search(queries.view(), kHits, options);
  const SearchResult exact = index.exact_search(queries.view(), kHits, options);
  std::size_t hits = 0;
  std::size_t wanted = 0;
  for (std::size_t q = 0; q < queries.rows(); ++q) {
    std::set<std::int64_t> met;
    REQUIRE(exact.counts[q] ==
            static_cast<std::int64_t>(std::min<std::size_t>(kHits, allowed.size())));
    REQUIRE(found.counts[q] <= exact.counts[q]);
    wanted += static_cast<std::size_t>(exact.counts[q]);
    for (std::int64_t i = 0; i < found.counts[q]; ++i) {
      const std::size_t at = q * kHits + static_cast<std::size_t>(i);
      REQUIRE(allowed.contains(found.keys.ints[at]));
      REQUIRE(met.insert(found.keys.ints[at]).second);
      REQUIRE(found.distances[at] >= exact.distances[at] - 1e-3F);
      hits += close(found.distances[at], exact.distances[at]) ? 1 : 0;
    }
  }
  return wanted == 0 ? 1.0 : static_cast<double>(hits) / static_cast<double>(wanted);
}

}  // namespace

TEST_CASE("every way finds allowed rows, by codes, exact vectors and codes alone") {
  constexpr std::size_t kRows = 1500;
  const std::vector<std::pair<Codes, Keep>> kinds = {{Codes::kInt8, Keep::kF32},
                                                     {Codes::kInt8, Keep::kBf16},
                                                     {Codes::kNone, Keep::kF32},
                                                     {Codes::kInt8, Keep::kNone}};
  for (const auto& [codes, keep] : kinds) {
    Numbered numbered(kRows, codes, keep);
    const Matrix queries = numbered.source.matrix(70);  // more than one thread takes at a time
    for (const std::size_t one_in : {1, 2, 5, 30, 500}) {
      std::set<std::int64_t> allowed;
      for (std::size_t i = 0; i < kRows; i += one_in) allowed.insert(static_cast<std::int64_t>(i));
      const auto allows = [&](std::size_t i) { return i % one_in == 0; };
      const Filter filter = numbered.index.filter_of_bits(bits_of(allows, kRows));
      CHECK(filter.size() == allowed.size());
      for (const FilterWay way : kWays) {
        CAPTURE(static_cast<int>(codes));
        CAPTURE(static_cast<int>(keep));
        CAPTURE(one_in);
        CAPTURE(static_cast<int>(way));
        CHECK(recall(numbered.index, filter, allowed, queries, way) >= 0.95);
      }
    }
  }
}

TEST_CASE("allowed rows far from the query, and far from each other, are found") {
  // Two heaps, and a few rows between them that are not allowed.
  Numbered numbered(2000);
  for (std::size_t i = 0; i < 1000; ++i) numbered.vectors.floats[i * kDim] += 500.0F;
  numbered.write(0, 1000);
  std::set<std::int64_t> allowed;
  const auto allows = [](std::size_t i) { return i < 1000 || i % 100 == 0; };
  for (std::size_t i = 0; i < 2000; ++i) {
    if (allows(i)) allowed.insert(static_cast<std::int64_t>(i));
  }
  const Filter filter = numbered.index.filter_of_bits(bits_of(allows, 2000));
  const Matrix queries = numbered.source.matrix(20);  // all near the second heap
  for (const FilterWay way : kWays) {
    CAPTURE(static_cast<int>(way));
    CHECK(recall(numbered.index, filter, allowed, queries, way) >= 0.95);
  }
  const auto far = [](std::size_t i) { return i < 1000; };
  allowed.clear();
  for (std::int64_t i = 0; i < 1000; ++i) allowed.insert(i);
  const Filter of_far = numbered.index.filter_of_bits(bits_of(far, 2000));
  for (const FilterWay way : kWays) {
    CAPTURE(static_cast<int>(way));
    CHECK(recall(numbered.index, of_far, allowed, queries, way) >= 0.95);
  }
}

TEST_CASE("bits are good for their version alone, also after keys have lost their slots") {
  Numbered numbered(600);
  const std::optional<Snapshot> before = numbered.index.snapshot();
  ReadOptions read;
  read.snapshot = &*before;
  const auto allows = [](std::size_t i) { return i < 300; };
  const std::vector<std::uint64_t> bits = bits_of(allows, 600);
  const Filter early = numbered.index.filter_of_bits(bits, read);
  std::vector<std::int64_t> gone;
  for (std::int64_t i = 100; i < 200; ++i) gone.push_back(i);
  numbered.remove(gone);
  // New keys take their slots.
  numbered.vectors = numbered.source.matrix(900);
  numbered.write(600, 800);
  const Filter late = numbered.index.filter_of_bits(bits, read);
  std::set<std::int64_t> allowed;
  for (std::int64_t i = 0; i < 300; ++i) allowed.insert(i);
  const Matrix queries = numbered.source.matrix(10);
  for (const Filter* filter : {&early, &late}) {
    for (const FilterWay way : kWays) {
      CHECK(recall(numbered.index, *filter, allowed, queries, way, &*before) >= 0.95);
    }
  }
  SearchOptions now;
  now.filter = &early;
  CHECK_THROWS_WITH_AS(static_cast<void>(numbered.index.search(queries.view(), 1, now)),
                       "the filter was made for another version", Error);
  for (const std::int64_t key : gone) allowed.erase(key);
  const Filter fresh = numbered.index.filter_of_bits(bits);
  for (const FilterWay way : kWays) {
    CHECK(recall(numbered.index, fresh, allowed, queries, way) >= 0.95);
  }
}

TEST_CASE("a version before the commit under way is filtered as it was") {
  Numbered numbered(1500);
  const std::optional<Snapshot> before = numbered.index.snapshot();
  ReadOptions read;
  read.snapshot = &*before;
  const auto allows = [](std::size_t i) { return i % 3 == 0; };
  const Filter filter = numbered.index.filter_of_bits(bits_of(allows, 1500), read);
  numbered.vectors = numbered.source.matrix(1500);
  numbered.write(0, 400, false);
  std::set<std::int64_t> allowed;
  for (std::int64_t i = 0; i < 1500; i += 3) allowed.insert(i);
  const Matrix queries = numbered.source.matrix(20);
  for (const FilterWay way : kWays) {
    CAPTURE(static_cast<int>(way));
    CHECK(recall(numbered.index, filter, allowed, queries, way, &*before) >= 0.95);
  }
}

TEST_CASE("a filter that allows nothing finds nothing; the cheapest way is chosen by share") {
  Numbered numbered(4000);
  const Filter none = numbered.index.filter_of_bits({});
  CHECK(none.size() == 0);
  const Matrix query = numbered.source.matrix(1);
  for (const FilterWay way : kWays) {
    SearchOptions options;
    options.filter = &none;
    options.way = way;
    CHECK(numbered.index.search(query.view(), 5, options).counts[0] == 0);
  }
  const auto few = [](std::size_t i) { return i % 100 == 0; };
  const Filter some = numbered.index.filter_of_bits(bits_of(few, 4000));
  const FilterCosts costs = numbered.index.filter_costs(some, kHits);
  CHECK(costs.best == FilterWay::kScan);
  CHECK(costs.scan == 40.0);
  CHECK(costs.scan < costs.walk_all);
  CHECK(costs.scan < costs.walk_allowed);
}

TEST_CASE("a walk among allowed rows is not chosen where lists name none of them") {
  for (std::size_t slots = 10'000; slots <= 100'000'000; slots *= 10) {
    for (const double share : {0.5, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001}) {
      for (const std::size_t ef : {10, 64, 500}) {
        CAPTURE(slots);
        CAPTURE(share);
        CAPTURE(ef);
        const auto allowed = static_cast<std::size_t>(share * static_cast<double>(slots));
        const FilterCosts costs = filter_costs({slots, allowed, 32}, 10, ef);
        if (share < 1.0 / 32) CHECK(costs.best != FilterWay::kWalkAllowed);
        const double cheapest = std::min({costs.scan, costs.walk_allowed, costs.walk_all});
        CHECK((costs.best == FilterWay::kScan) == (costs.scan == cheapest));
      }
    }
  }
  CHECK(filter_costs({10'000'000, 500'000, 32}, 10, 64).best == FilterWay::kWalkAllowed);
  CHECK(filter_costs({10'000'000, 5'000'000, 32}, 10, 64).best == FilterWay::kWalkAll);
  CHECK(filter_costs({10'000'000, 50'000, 32}, 10, 64).best == FilterWay::kScan);
}
