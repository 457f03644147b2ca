#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

constexpr std::size_t kDim = 5;

std::vector<int> range(int begin, int end) {
  std::vector<int> numbers;
  for (int number = begin; number < end; ++number) {
    numbers.push_back(number);
  }
  return numbers;
}

// An index and the map of its newest commit.
struct Fixture {
  explicit Fixture(KeyType type, Metric metric = Metric::kL2, Codes codes = Codes::kInt8,
                   Keep keep = Keep::kF32)
      : index(options(type, metric, codes, keep)) {}

  static IndexOptions options(KeyType type, Metric metric, Codes codes, Keep keep) {
    IndexOptions options;
    options.codes = codes;
    options.keep = keep;
    options.dim = kDim;
    options.metric = metric;
    options.key_type = type;
    options.m = 6;
    options.ef_construction = 40;
    return options;
  }
  void upsert(const std::vector<int>& numbers, bool publish = true) {
    UpsertOptions write;
    write.publish = publish;
    const Matrix vectors = source.matrix(numbers.size());
    index.upsert(key_column(index.options().key_type, numbers).span(), vectors.view(), write);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      model[numbers[i]] = vectors.row(i);
    }
  }
  void remove(const std::vector<int>& numbers, bool publish = true) {
    WriteOptions write;
    write.publish = publish;
    index.remove(key_column(index.options().key_type, numbers).span(), write);
    for (const int number : numbers) {
      model.erase(number);
    }
  }

  Index index;
  Model model;
  VectorSource source{kDim, 21};
};

// All kinds of reads at a snapshot (or of what is published) show this model and nothing else.
void require_shows(const Index& index, const Snapshot* snapshot, const Model& model,
                   const std::vector<int>& others) {
  ReadOptions read;
  read.snapshot = snapshot;
  std::vector<int> keys = numbers_of(index.keys(read));
  std::sort(keys.begin(), keys.end());
  REQUIRE(keys == numbers_of(model));

  std::vector<int> asked = numbers_of(model);
  asked.insert(asked.end(), others.begin(), others.end());
  const Got got = get(index, asked, snapshot);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto known = model.find(asked[i]);
    REQUIRE(got.found[i] == (known != model.end() ? 1 : 0));
    REQUIRE(got.vectors.row(i) == (known != model.end() ? known->second : Vector(kDim, 0.0F)));
  }

  const Metric metric = index.options().metric;
  SearchOptions search;
  search.snapshot = snapshot;
  const Matrix queries = VectorSource(kDim, 22).matrix(4);
  const std::size_t k = 7;
  const SearchResult exact = index.exact_search(queries.view(), k, search);
  const SearchResult found = index.search(queries.view(), k, search);
  const SearchResult all = index.search(queries.view(), model.size() + 5, search);
  for (std::size_t q = 0; q < queries.rows(); ++q) {
    REQUIRE_NOTHROW(require_true(exact, q, k, model, metric, queries.row(q)));
    REQUIRE_NOTHROW(require_true(found, q, k, model, metric, queries.row(q)));
    REQUIRE_NOTHROW(require_true(all, q, model.size() + 5, model, metric, queries.row(q)));
    REQUIRE(all.counts[q] == static_cast<std::int64_t>(model.size()));
    const std::vector<double> truth = true_distances(model, k, metric, queries.row(q));
    REQUIRE(exact.counts[q] == static_cast<std::int64_t>(truth.size()));
    for (std::size_t i = 0; i < truth.size(); ++i) {
      REQUIRE(close(exact.distances[q * k + i], truth[i]));
    }
  }
}

TEST_CASE("a snapshot goes on showing its version while slots are updated, removed and reused") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    Fixture fixture(type);
    fixture.upsert(range(0, 300));
    std::vector<Snapshot> snapshots;
    std::vector<Model> models;
    const auto pin = [&] {
      snapshots.push_back(fixture.index.snapshot());
      models.push_back(fixture.model);
    };
    pin();
    fixture.upsert(range(0, 150));
    pin();
    fixture.remove(range(100, 250));
    pin();
    fixture.upsert(range(1000, 1200));  // other keys in the slots of the removed ones
    pin();
    fixture.upsert(range(100, 250));  // the removed keys come back, elsewhere
    pin();
    fixture.remove(numbers_of(fixture.model));
    pin();
    fixture.upsert(range(100, 160));
    for (std::size_t i = 0; i < snapshots.size(); ++i) {
      CAPTURE(i);
      require_shows(fixture.index, &snapshots[i], models[i], range(990, 1010));
    }
    require_shows(fixture.index, nullptr, fixture.model, range(0, 20));
    // The oldest go first, then the rest is still whole.
    while (!snapshots.empty()) {
      snapshots.erase(snapshots.begin());
      models.erase(models.begin());
      fixture.upsert(range(2000, 2050));
      fixture.remove(range(2000, 2030));
      for (std::size_t i = 0; i < snapshots.size(); ++i) {
        require_shows(fixture.index, &snapshots[i], models[i], range(2000, 2010));
      }
    }
    CHECK(why_not_ok(fixture.index.check()) == "");
  }
}

TEST_CASE("rows kept for a snapshot are given back soon after it is gone") {
  Fixture fixture(KeyType::kString);
  fixture.upsert(range(0, 200));
  std::optional<Snapshot> snapshot = fixture.index.snapshot();
  for (int round = 0; round < 5; ++round) {
    fixture.upsert(range(0, 200));
  }
  fixture.remove(range(100, 200));
  CHECK(fixture.index.stats().rows >= 400);
  snapshot.reset();
  // The first commit lets go of rows, the second of what marked slots as empty.
  fixture.upsert({0});
  fixture.upsert({0});
  fixture.upsert({0});
  CHECK(fixture.index.stats().live == 100);
  CHECK(fixture.index.stats().rows <= 102);
}

TEST_CASE("readers see a commit when it is published, a head snapshot before") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 100));
  const Model before = fixture.model;
  const Snapshot old = fixture.index.snapshot();

  fixture.upsert(range(50, 150), false);
  const Model moved = fixture.model;
  const Snapshot head = fixture.index.head_snapshot();
  fixture.remove(range(0, 30), false);
  fixture.upsert(range(500, 530), false);

  CHECK(fixture.index.size() == 100);
  CHECK(fixture.index.snapshot().seq() == old.seq());
  CHECK(head.seq() == old.seq() + 1);
  require_shows(fixture.index, nullptr, before, range(500, 510));
  require_shows(fixture.index, &old, before, range(500, 510));
  require_shows(fixture.index, &head, moved, range(500, 510));

  CHECK(fixture.index.publish() == old.seq() + 3);
  CHECK(fixture.index.size() == fixture.model.size());
  require_shows(fixture.index, nullptr, fixture.model, range(0, 10));
  require_shows(fixture.index, &old, before, range(500, 510));
  require_shows(fixture.index, &head, moved, range(500, 510));
}

TEST_CASE("a later commit that is published shows the earlier ones too") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 10), false);
  CHECK(fixture.index.size() == 0);
  require_shows(fixture.index, nullptr, {}, range(0, 10));
  fixture.upsert(range(20, 30));
  require_shows(fixture.index, nullptr, fixture.model, {});
}

TEST_CASE("a snapshot and a filter outlive the index") {
  auto fixture = std::make_unique<Fixture>(KeyType::kString);
  fixture->upsert(range(0, 50));
  const Snapshot snapshot = fixture->index.snapshot();
  auto filter = std::make_unique<Filter>(
      fixture->index.filter(key_column(KeyType::kString, range(0, 10)).span()));
  fixture.reset();
  CHECK(snapshot.seq() == 1);
  CHECK(filter->size() == 10);
}

TEST_CASE("a filter may be the last owner of an index") {
  auto fixture = std::make_unique<Fixture>(KeyType::kInt64);
  fixture->upsert(range(0, 50));
  auto filter = std::make_unique<Filter>(
      fixture->index.filter(key_column(KeyType::kInt64, range(0, 10)).span()));
  fixture.reset();
  filter.reset();
}

TEST_CASE("a filtered search answers with allowed keys only, a small filter exactly") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    Fixture fixture(type);
    fixture.upsert(range(0, 1500));
    const Matrix queries = fixture.source.matrix(8);
    for (const int allowed : {0, 1, 5, 60, 700, 1500}) {
      CAPTURE(allowed);
      Model model;
      for (int i = 0; i < allowed; ++i) {
        const int number = i * 7919 % 1500;
        model[number] = fixture.model[number];
      }
      std::vector<int> asked = numbers_of(model);
      asked.push_back(99'999);  // not in the index: ignored
      if (!model.empty()) {
        asked.push_back(model.begin()->first);  // twice: no harm
      }
      const Filter filter = fixture.index.filter(key_column(type, asked).span());
      CHECK(filter.size() == model.size());
      SearchOptions options;
      options.filter = &filter;
      const SearchResult found = fixture.index.search(queries.view(), 10, options);
      const SearchResult exact = fixture.index.exact_search(queries.view(), 10, options);
      const RangeResult ranged = fixture.index.range_search(queries.view(), 2.0F, options);
      std::size_t hits = 0;
      std::size_t wanted = 0;
      for (std::size_t q = 0; q < queries.rows(); ++q) {
        REQUIRE_NOTHROW(require_true(found, q, 10, model, Metric::kL2, queries.row(q)));
        REQUIRE_NOTHROW(require_true(exact, q, 10, model, Metric::kL2, queries.row(q)));
        const auto truth = true_distances(model, 10, Metric::kL2, queries.row(q));
        REQUIRE(exact.counts[q] == static_cast<std::int64_t>(truth.size()));
        wanted += truth.size();
        for (std::size_t i = 0; i < truth.size(); ++i) {
          REQUIRE(close(exact.distances[q * 10 + i], truth[i]));
          hits += close(found.distances[q * 10 + i], truth[i]) ? 1 : 0;
        }
        for (auto i = ranged.offsets[q]; i < ranged.offsets[q + 1]; ++i) {
          REQUIRE(model.contains(number_of(ranged.keys, static_cast<std::size_t>(i))));
        }
      }
      CHECK(static_cast<double>(hits) >= 0.97 * static_cast<double>(wanted));
      if (allowed <= 60) {
        CHECK(hits == wanted);
      }
    }
  }
}

TEST_CASE("a filter means keys, not the slots that they had") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    Fixture fixture(type);
    fixture.upsert(range(0, 100));
    const Filter filter = fixture.index.filter(key_column(type, range(0, 50)).span());
    std::optional<Snapshot> snapshot = fixture.index.snapshot();
    fixture.remove(range(0, 50));
    fixture.upsert(range(200, 250));
    const Filter of_the_past = [&] {
      ReadOptions read;
      read.snapshot = &*snapshot;
      return fixture.index.filter(key_column(type, range(0, 50)).span(), read);
    }();
    CHECK(of_the_past.size() == 50);
    snapshot.reset();
    for (int round = 0; round < 10; ++round) {  // keys come and go in the same slots
      for (const Filter* one : {&filter, &of_the_past}) {
        SearchOptions options;
        options.filter = one;
        const Matrix query = fixture.source.matrix(1);
        CHECK(fixture.index.search(query.view(), 100, options).counts[0] == 0);
        CHECK(fixture.index.exact_search(query.view(), 100, options).counts[0] == 0);
      }
      fixture.remove(range(200 + 50 * round, 250 + 50 * round));
      fixture.upsert(range(250 + 50 * round, 300 + 50 * round));
    }
  }
}

TEST_CASE(
    "a range search finds what lies within the radius, and that is everything if it is wide") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 700));
  const Matrix queries = fixture.source.matrix(5);
  for (const float radius : {-1.0F, 0.0F, 0.5F, 2.0F, 6.0F, 1e30F}) {
    CAPTURE(radius);
    const RangeResult result = fixture.index.range_search(queries.view(), radius);
    REQUIRE(result.offsets.size() == queries.rows() + 1);
    for (std::size_t q = 0; q < queries.rows(); ++q) {
      std::size_t within = 0;
      for (const auto& [number, vector] : fixture.model) {
        within += distance(Metric::kL2, vector, queries.row(q)) <= radius ? 1 : 0;
      }
      const auto found = static_cast<std::size_t>(result.offsets[q + 1] - result.offsets[q]);
      CHECK(found <= within);
      CHECK(static_cast<double>(found) >= 0.95 * static_cast<double>(within) - 1);
      if (radius > 1e6F) {
        CHECK(found == within);
      }
    }
    CHECK(std::is_sorted(result.distances.begin() + result.offsets[0],
                         result.distances.begin() + result.offsets[1]));
  }
}

TEST_CASE("more candidates than memory holds may be asked for") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 100));
  const Matrix query = fixture.source.matrix(1);
  SearchOptions options;
  options.ef = std::size_t{1} << 50;
  CHECK(fixture.index.search(query.view(), 3, options).counts[0] == 3);
  CHECK(fixture.index.range_search(query.view(), 1e30F, options).offsets[1] == 100);
  const Filter filter = fixture.index.filter(key_column(KeyType::kInt64, range(0, 60)).span());
  options.filter = &filter;
  CHECK(fixture.index.search(query.view(), 3, options).counts[0] == 3);
}

// The share of the exact answers at a snapshot that search() finds there.
double recall_at(const Index& index, const Snapshot& snapshot, const Matrix& queries,
                 std::size_t k) {
  SearchOptions search;
  search.snapshot = &snapshot;
  const SearchResult found = index.search(queries.view(), k, search);
  const SearchResult exact = index.exact_search(queries.view(), k, search);
  std::size_t same = 0;
  for (std::size_t i = 0; i < queries.view().rows; ++i) {
    const auto begin = exact.keys.ints.begin() + static_cast<std::ptrdiff_t>(i * k);
    for (std::size_t j = 0; j < k; ++j) {
      same +=
          std::count(begin, begin + static_cast<std::ptrdiff_t>(k), found.keys.ints[i * k + j]) != 0
              ? 1
              : 0;
    }
  }
  return static_cast<double>(same) / static_cast<double>(queries.view().rows * k);
}

TEST_CASE("a search at a snapshot finds what was there although everything moved since") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 1500));
  const Snapshot before = fixture.index.snapshot();
  const Matrix queries = VectorSource{kDim, 5}.matrix(50);
  CHECK(recall_at(fixture.index, before, queries, 10) > 0.95);
  fixture.upsert(range(0, 500));
  CHECK(recall_at(fixture.index, before, queries, 10) > 0.95);
  fixture.upsert(range(500, 1500));
  CHECK(recall_at(fixture.index, before, queries, 10) > 0.95);
  fixture.remove(range(0, 1400));
  fixture.upsert(range(2000, 3000));
  CHECK(recall_at(fixture.index, before, queries, 10) > 0.95);
}

TEST_CASE("a commit that is not published yet takes no recall from readers") {
  const Matrix queries = VectorSource{kDim, 5}.matrix(50);
  struct Way {
    Codes codes;
    Keep keep;
  };
  for (const Way& way : {Way{Codes::kInt8, Keep::kF32}, Way{Codes::kNone, Keep::kF32},
                         Way{Codes::kInt8, Keep::kBf16}, Way{Codes::kInt8, Keep::kNone}}) {
    for (const int moved :
         {20, 400, 800, 1100, 1500}) {  // few, some, and more than a beam can find
      CAPTURE(moved);
      Fixture fixture(KeyType::kInt64, Metric::kL2, way.codes, way.keep);
      fixture.upsert(range(0, 1500));
      fixture.upsert(range(0, moved), false);
      const Snapshot published = fixture.index.snapshot();
      CHECK(recall_at(fixture.index, published, queries, 10) > 0.95);
      fixture.remove(range(moved / 2, moved), false);  // a second one that nobody sees
      CHECK(recall_at(fixture.index, published, queries, 10) > 0.95);
      fixture.index.publish();
      CHECK(recall_at(fixture.index, published, queries, 10) > 0.95);
    }
  }
}

TEST_CASE("a filtered search finds what a commit that is not published yet has moved") {
  Fixture fixture(KeyType::kInt64);
  fixture.upsert(range(0, 1500));
  const Filter allowed = fixture.index.filter(key_column(KeyType::kInt64, range(100, 1300)).span());
  const Model before = fixture.model;
  for (const int moved : {200, 1200}) {
    fixture.upsert(range(0, moved), false);
    SearchOptions search;
    search.filter = &allowed;
    search.ef = 64;
    const Matrix queries = VectorSource{kDim, 6}.matrix(50);
    const SearchResult exact = fixture.index.exact_search(queries.view(), 10, search);
    const SearchResult found = fixture.index.search(queries.view(), 10, search);
    std::size_t right = 0;
    for (std::size_t i = 0; i < found.distances.size(); ++i) {
      right += found.distances[i] <= exact.distances[i / 10 * 10 + 9] ? 1 : 0;
    }
    CHECK(right >= 475);
    for (std::size_t q = 0; q < queries.rows(); ++q) {
      REQUIRE_NOTHROW(require_true(found, q, 10, before, Metric::kL2, queries.row(q)));
    }
  }
}

// Rows with the given numbers, all within a small distance of one place.
void crowd(Fixture& fixture, const std::vector<int>& numbers, float place, bool publish) {
  UpsertOptions write;
  write.publish = publish;
  Matrix vectors = fixture.source.matrix(numbers.size());
  for (float& x : vectors.floats) x = place + 0.01F * x;
  for (std::size_t i = 0; i < numbers.size(); ++i) fixture.model[numbers[i]] = vectors.row(i);
  fixture.index.upsert(key_column(KeyType::kInt64, numbers).span(), vectors.view(), write);
}

TEST_CASE("rows that an unpublished commit brings or takes away displace none that are shown") {
  for (const bool brings : {true, false}) {
    CAPTURE(brings);
    Fixture fixture(KeyType::kInt64);
    fixture.upsert(range(0, 1500));
    std::optional<Snapshot> old;
    if (brings) {
      // New ones around the query, and a few that are replaced.
      std::vector<int> numbers = range(2000, 2900);
      for (const int known : {0, 1, 2}) numbers.push_back(known);
      crowd(fixture, numbers, 0.1F, false);
    } else {
      crowd(fixture, range(2000, 2300), 0.1F, true);
      old = fixture.index.snapshot();  // so that the removed ones leave tombstones
      fixture.remove(range(2000, 2300));
      fixture.upsert(range(0, 1400), false);
    }
    const Matrix query{kDim, Vector(kDim, 0.1F)};
    for (const std::size_t ef : {std::size_t{16}, std::size_t{64}, std::size_t{1} << 40}) {
      CAPTURE(ef);
      SearchOptions search;
      search.ef = ef;
      const SearchResult found = fixture.index.search(query.view(), 10, search);
      const SearchResult exact = fixture.index.exact_search(query.view(), 10, search);
      CHECK(found.counts[0] == 10);
      CHECK(found.distances == exact.distances);
    }
  }
}

}  // namespace
