#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "model.hpp"
#include "random.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

// An index and the map that it should behave like.
class Pair {
 public:
  Pair(const IndexOptions& options, std::uint32_t seed)
      : index(options), source(options.dim, seed), random_(seed), keeper_(options) {}

  void step() {
    switch (random_() % 12) {
      case 0:
      case 1:
      case 2:
        remove_some(random_() % 40);
        break;
      case 3:
        if (random_() % 4 == 0) {
          remove_all();
        }
        break;
      case 4:
        index = index.copy();
        break;
      case 5:
        save_and_load();
        break;
      case 6:
        upsert_with_duplicates();
        break;
      default:
        upsert_some(1 + random_() % (random_() % 4 == 0 ? 300 : 30));
    }
    compare();
  }

  void upsert_some(std::size_t rows) {
    UpsertOptions options;
    options.mode = Mode{static_cast<std::uint8_t>(random_() % 3)};
    options.threads = 1 + random_() % 3;
    std::set<int> numbers;
    while (numbers.size() < rows) {
      numbers.insert(static_cast<int>(random_() % kKeys));
    }
    Keys keys = key_column(index.options().key_type, {});
    Matrix vectors{index.options().dim, {}};
    std::vector<Outcome> expected;
    for (const int number : numbers) {
      const auto known = model.find(number);
      const bool same = known != model.end() && random_() % 3 == 0;
      const Vector vector = same ? known->second : keeper_(source.next());
      add_key(keys, number);
      vectors.add(vector);
      if (known == model.end()) {
        expected.push_back(options.mode == Mode::kUpdateOnly ? Outcome::kSkipped
                                                             : Outcome::kInserted);
      } else if (options.mode == Mode::kInsertOnly) {
        expected.push_back(Outcome::kSkipped);
      } else {
        expected.push_back(known->second == vector ? Outcome::kUnchanged : Outcome::kUpdated);
      }
      if (expected.back() == Outcome::kInserted || expected.back() == Outcome::kUpdated) {
        model[number] = vector;
      }
    }
    REQUIRE(index.upsert(keys.span(), vectors.view(), options) == expected);
  }

  void upsert_with_duplicates() {
    UpsertOptions options;
    options.duplicates = random_() % 2 == 0 ? Duplicates::kFirst : Duplicates::kLast;
    Keys keys = key_column(index.options().key_type, {});
    Matrix vectors{index.options().dim, {}};
    Model batch;
    for (int i = 0; i < 60; ++i) {
      const int number = static_cast<int>(random_() % 20);
      const Vector vector = keeper_(source.next());
      add_key(keys, number);
      vectors.add(vector);
      if (options.duplicates == Duplicates::kFirst) {
        batch.emplace(number, vector);
      } else {
        batch[number] = vector;
      }
    }
    std::size_t skipped = 0;
    for (const Outcome outcome : index.upsert(keys.span(), vectors.view(), options)) {
      skipped += outcome == Outcome::kSkipped ? 1 : 0;
    }
    REQUIRE(skipped == 60 - batch.size());
    for (const auto& [number, vector] : batch) {
      model[number] = vector;
    }
  }

  void remove_some(std::size_t rows) {
    std::vector<int> numbers;
    std::vector<std::uint8_t> expected;
    for (std::size_t i = 0; i < rows; ++i) {
      numbers.push_back(static_cast<int>(random_() % kKeys));
      expected.push_back(model.erase(numbers.back()) != 0 ? 1 : 0);
    }
    const Keys keys = key_column(index.options().key_type, numbers);
    REQUIRE(index.remove(keys.span()) == expected);
  }

  void remove_all() {
    const Keys keys = key_column(index.options().key_type, numbers_of(model));
    const auto removed = index.remove(keys.span());
    REQUIRE(removed == std::vector<std::uint8_t>(model.size(), 1));
    model.clear();
  }

  void save_and_load() {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("upvec-test-index-" + std::to_string(random_())))
            .string();
    const std::string digest = index.digest();
    index.save(path);
    index = Index::load(path, random_() % 2 == 0);
    std::filesystem::remove(path);
    REQUIRE(index.digest() == digest);
  }

  void compare() {
    REQUIRE(why_not_ok(index.check()) == "");
    REQUIRE(index.size() == model.size());
    compare_rows();
    compare_searches();
  }

  Index index;
  Model model;
  VectorSource source;

 private:
  static constexpr std::uint32_t kKeys = 400;

  void compare_rows() {
    std::vector<int> numbers(kKeys);
    for (std::size_t i = 0; i < kKeys; ++i) {
      numbers[i] = static_cast<int>(i);
    }
    const Got got = get(index, numbers);
    for (const int number : numbers) {
      const auto i = static_cast<std::size_t>(number);
      const auto known = model.find(number);
      REQUIRE(got.found[i] == (known != model.end() ? 1 : 0));
      const Vector stored = got.vectors.row(i);
      if (known == model.end()) {
        REQUIRE(stored == Vector(index.options().dim, 0.0F));
      } else if (index.options().metric == Metric::kCosine && index.options().keep == Keep::kF32) {
        const Vector expected = unit(known->second);
        for (std::size_t j = 0; j < stored.size(); ++j) {
          REQUIRE(close(stored[j], expected[j]));
        }
      } else {
        REQUIRE(stored == known->second);
      }
    }
    std::vector<int> keys = numbers_of(index.keys());
    std::sort(keys.begin(), keys.end());
    REQUIRE(keys == numbers_of(model));
  }

  void compare_searches() {
    const std::size_t k = 1 + random_() % 12;
    const Metric metric = index.options().metric;
    const bool rounded = index.options().keep != Keep::kF32;
    const Matrix queries = source.matrix(3);
    const SearchResult found = index.search(queries.view(), k);
    const SearchResult exact = index.exact_search(queries.view(), k);
    const RangeResult range = index.range_search(queries.view(), 1.0F);
    for (std::size_t q = 0; q < queries.rows(); ++q) {
      const Vector query = queries.row(q);
      REQUIRE_NOTHROW(require_true(found, q, k, model, metric, query, rounded));
      REQUIRE_NOTHROW(require_true(exact, q, k, model, metric, query, rounded));
      const std::vector<double> truth = true_distances(model, k, metric, query, rounded);
      REQUIRE(found.counts[q] == static_cast<std::int64_t>(truth.size()));
      REQUIRE(exact.counts[q] == static_cast<std::int64_t>(truth.size()));
      for (std::size_t i = 0; i < truth.size(); ++i) {
        REQUIRE(close(exact.distances[q * k + i], truth[i]));
      }
      for (auto i = range.offsets[q]; i < range.offsets[q + 1]; ++i) {
        const auto at = static_cast<std::size_t>(i);
        REQUIRE(range.distances[at] <= 1.0F);
        REQUIRE(close(range.distances[at],
                      distance(metric, query, model.at(number_of(range.keys, at)), rounded)));
      }
    }
  }

  Random random_;
  Keeper keeper_;
};

IndexOptions options_of(Metric metric, KeyType key_type, std::size_t dim = 6, std::size_t m = 4) {
  IndexOptions options;
  options.dim = dim;
  options.metric = metric;
  options.key_type = key_type;
  options.m = m;
  options.ef_construction = 24;
  return options;
}

const std::vector<Metric> kMetrics = {Metric::kL2, Metric::kInnerProduct, Metric::kCosine};
const std::vector<KeyType> kKeyTypes = {KeyType::kInt64, KeyType::kString};

TEST_CASE("any history leaves the index equal to a map, with every invariant holding") {
  for (const Metric metric : kMetrics) {
    for (const KeyType key_type : kKeyTypes) {
      for (std::uint32_t seed = 1; seed <= 3; ++seed) {
        CAPTURE(metric);
        CAPTURE(key_type);
        CAPTURE(seed);
        IndexOptions options = options_of(metric, key_type, seed == 1 ? 17 : 6, seed == 3 ? 16 : 4);
        options.codes = seed == 2 ? Codes::kNone : Codes::kInt8;
        Pair pair(options, seed);
        for (int step = 0; step < 25; ++step) {
          CAPTURE(step);
          pair.step();
        }
      }
    }
  }
}

// A code of six dimensions is no worse than one of many: what a vector loses is in the model, too.
TEST_CASE("so does any history of an index that keeps less than its vectors") {
  struct Way {
    Codes codes;
    Keep keep;
  };
  std::uint32_t seed = 20;
  for (const Metric metric : kMetrics) {
    for (const Way& way : {Way{Codes::kInt8, Keep::kBf16}, Way{Codes::kNone, Keep::kBf16},
                           Way{Codes::kInt8, Keep::kNone}}) {
      CAPTURE(metric);
      CAPTURE(seed);
      ++seed;
      IndexOptions options = options_of(metric, kKeyTypes[seed % 2], seed % 3 == 0 ? 17 : 6, 4);
      options.codes = way.codes;
      options.keep = way.keep;
      Pair pair(options, seed);
      for (int step = 0; step < 25; ++step) {
        CAPTURE(step);
        pair.step();
      }
    }
  }
}

TEST_CASE("an index that would keep nothing of its vectors is refused") {
  IndexOptions options = options_of(Metric::kL2, KeyType::kInt64);
  options.codes = Codes::kNone;
  options.keep = Keep::kNone;
  CHECK_THROWS_AS(Index{options}, upvec::Error);
}

TEST_CASE("an empty index answers with nothing") {
  Index index(options_of(Metric::kL2, KeyType::kInt64));
  const Matrix queries = VectorSource(6, 1).matrix(2);
  CHECK(index.search(queries.view(), 3).counts == std::vector<std::int64_t>{0, 0});
  CHECK(index.exact_search(queries.view(), 3).counts == std::vector<std::int64_t>{0, 0});
  CHECK(index.range_search(queries.view(), 1e30F).offsets == std::vector<std::int64_t>{0, 0, 0});
  CHECK(index.keys().size() == 0);
  CHECK(index.size() == 0);
  CHECK(index.check().ok());
  CHECK(index.upsert(KeySpan::ints({}), {nullptr, 0, 6}).empty());
  CHECK(index.remove(KeySpan::ints({})).empty());
  CHECK(index.copy().digest() == index.digest());
}

TEST_CASE("a removed key comes back in its slot, or another key takes the slot") {
  Pair pair(options_of(Metric::kL2, KeyType::kString), 5);
  const std::vector<int> numbers = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto upsert = [&](const std::vector<int>& some) {
    const Matrix vectors = pair.source.matrix(some.size());
    pair.index.upsert(key_column(KeyType::kString, some).span(), vectors.view());
    for (std::size_t i = 0; i < some.size(); ++i) {
      pair.model[some[i]] = vectors.row(i);
    }
  };
  const auto remove = [&](const std::vector<int>& some) {
    pair.index.remove(key_column(KeyType::kString, some).span());
    for (const int number : some) {
      pair.model.erase(number);
    }
  };
  upsert(numbers);
  remove({1, 2, 3});
  pair.compare();
  upsert({2});  // revived while 1 and 3 still wait
  pair.compare();
  upsert({11, 12, 13});  // takes 1 and 3; 2 is passed over
  pair.compare();
  CHECK(pair.index.stats().slots == 9);
  remove({2});
  upsert({14, 2, 1});
  pair.compare();
  upsert({3});
  pair.compare();
  remove(numbers_of(pair.model));
  pair.compare();
  upsert(numbers);
  pair.compare();
}

TEST_CASE("a slot that is revived is not taken by a new key of the same batch") {
  Pair pair(options_of(Metric::kL2, KeyType::kInt64), 6);
  const auto keys = [](const std::vector<int>& numbers) {
    return key_column(KeyType::kInt64, numbers);
  };
  pair.index.upsert(keys({1, 2, 3}).span(), pair.source.matrix(3).view());
  pair.index.remove(keys({1, 2}).span());
  const Matrix vectors = pair.source.matrix(5);
  pair.index.upsert(keys({10, 1, 11, 2, 12}).span(), vectors.view());
  CHECK(why_not_ok(pair.index.check()) == "");
  const Got got = get(pair.index, {10, 1, 11, 2, 12});
  CHECK(got.vectors.floats == vectors.floats);
}

TEST_CASE("slots and rows are used again: endless churn takes no more memory") {
  Index index(options_of(Metric::kL2, KeyType::kInt64));
  VectorSource source(6, 7);
  std::size_t slots = 0;
  std::size_t bytes = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<int> numbers;
    for (int i = 0; i < 200; ++i) {
      numbers.push_back(round * 200 + i);
    }
    const Keys keys = key_column(KeyType::kInt64, numbers);
    index.upsert(keys.span(), source.matrix(200).view());
    index.upsert(keys.span(), source.matrix(200).view());
    index.remove(keys.span());
    const Stats stats = index.stats();
    if (round == 30) {  // by then keys are too large to be stored by place
      slots = stats.slots;
      bytes = stats.vector_bytes + stats.link_bytes + stats.key_bytes + stats.other_bytes;
    } else if (round > 30) {
      CHECK(stats.slots == slots);
      CHECK(stats.vector_bytes + stats.link_bytes + stats.key_bytes + stats.other_bytes <=
            bytes + bytes / 10);
      CHECK(stats.rows <= 800);
    }
  }
}

TEST_CASE("what get returned can be put back unchanged, under every metric") {
  for (const Metric metric : kMetrics) {
    Index index(options_of(metric, KeyType::kInt64, 33));
    std::vector<int> numbers(200);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<int>(i);
    }
    const Keys keys = key_column(KeyType::kInt64, numbers);
    index.upsert(keys.span(), VectorSource(33, 8).matrix(200).view());
    const std::string digest = index.digest();
    const std::uint64_t seq = index.stats().seq;
    const Got got = get(index, numbers);
    const auto outcomes = index.upsert(keys.span(), got.vectors.view());
    CHECK(outcomes == std::vector<Outcome>(200, Outcome::kUnchanged));
    CHECK(index.digest() == digest);
    CHECK(index.stats().seq == seq);
  }
}

TEST_CASE("an error changes nothing and says what was wrong") {
  struct Case {
    const char* name;
    ErrorCode code;
    std::function<void(Index&)> call;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto upsert_row = [](const Vector& bad) {
    return [bad](Index& index) {
      Matrix matrix = VectorSource(6, 9).matrix(2);
      matrix.add(bad);
      index.upsert(key_column(KeyType::kInt64, {1, 500, 501}).span(), matrix.view());
    };
  };
  const auto search = [](Vector query, std::size_t k) {
    return [query, k](Index& index) {
      static_cast<void>(index.search({query.data(), 1, query.size()}, k));
    };
  };
  const Vector fine(6, 1.0F);
  const std::vector<Case> cases = {
      {"NaN", ErrorCode::kInvalidRow, upsert_row({1, 2, nan, 4, 5, 6})},
      {"infinity", ErrorCode::kInvalidRow, upsert_row({1, 2, 3, 4, 5, infinity})},
      {"minus infinity", ErrorCode::kInvalidRow, upsert_row({-infinity, 2, 3, 4, 5, 6})},
      {"too long to be measured", ErrorCode::kInvalidRow, upsert_row({1e30F, 2, 3, 4, 5, 6})},
      {"a zero vector under cosine", ErrorCode::kInvalidRow, upsert_row({0, 0, 0, 0, 0, 0})},
      {"another dimension", ErrorCode::kDimension,
       [](Index& index) {
         index.upsert(key_column(KeyType::kInt64, {1}).span(), VectorSource(7, 1).matrix(1).view());
       }},
      {"another dimension of no rows", ErrorCode::kDimension,
       [](Index& index) {
         index.upsert(KeySpan::ints({}), {nullptr, 0, 7});
       }},
      {"fewer keys than vectors", ErrorCode::kInvalidArgument,
       [](Index& index) {
         index.upsert(key_column(KeyType::kInt64, {1}).span(), VectorSource(6, 1).matrix(2).view());
       }},
      {"a key twice", ErrorCode::kDuplicateKey,
       [](Index& index) {
         index.upsert(key_column(KeyType::kInt64, {700, 1, 2, 1}).span(),
                      VectorSource(6, 1).matrix(4).view());
       }},
      {"string keys", ErrorCode::kInvalidArgument,
       [](Index& index) {
         index.upsert(key_column(KeyType::kString, {1}).span(),
                      VectorSource(6, 1).matrix(1).view());
       }},
      {"string keys to remove", ErrorCode::kInvalidArgument,
       [](Index& index) { index.remove(key_column(KeyType::kString, {1}).span()); }},
      {"string keys to get", ErrorCode::kInvalidArgument,
       [](Index& index) {
         float vector[6];
         std::uint8_t found = 0;
         index.get(key_column(KeyType::kString, {1}).span(), vector, &found);
       }},
      {"string keys to filter by", ErrorCode::kInvalidArgument,
       [](Index& index) {
         static_cast<void>(index.filter(key_column(KeyType::kString, {1}).span()));
       }},
      {"a query of another dimension", ErrorCode::kDimension, search(Vector(5, 1.0F), 3)},
      {"a query with NaN", ErrorCode::kInvalidRow, search({1, 2, nan, 4, 5, 6}, 3)},
      {"k of 0", ErrorCode::kInvalidArgument, search(fine, 0)},
      {"k of 0, exactly", ErrorCode::kInvalidArgument,
       [fine](Index& index) {
         static_cast<void>(index.exact_search({fine.data(), 1, 6}, 0));
       }},
      {"a radius of NaN", ErrorCode::kInvalidArgument,
       [fine, nan](Index& index) {
         static_cast<void>(index.range_search({fine.data(), 1, 6}, nan));
       }},
      {"another index's snapshot", ErrorCode::kInvalidArgument,
       [fine](Index& index) {
         const Index other = index.copy();
         const Snapshot snapshot = other.snapshot();
         SearchOptions options;
         options.snapshot = &snapshot;
         static_cast<void>(index.search({fine.data(), 1, 6}, 3, options));
       }},
      {"another index's filter", ErrorCode::kInvalidArgument,
       [fine](Index& index) {
         const Index other = index.copy();
         const Filter filter = other.filter(key_column(KeyType::kInt64, {1}).span());
         SearchOptions options;
         options.filter = &filter;
         static_cast<void>(index.search({fine.data(), 1, 6}, 3, options));
       }},
      {"a file that is not there", ErrorCode::kFile,
       [](Index&) { static_cast<void>(Index::load("/nowhere/at/all")); }},
      {"a folder to save in that is not there", ErrorCode::kFile,
       [](Index& index) { index.save("/nowhere/at/all"); }},
      {"more keys than can be", ErrorCode::kLimit,
       [](Index& index) { index.reserve(std::size_t{1} << 31); }},
  };
  Index index(options_of(Metric::kCosine, KeyType::kInt64));
  std::vector<int> numbers(50);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<int>(i);
  }
  index.upsert(key_column(KeyType::kInt64, numbers).span(), VectorSource(6, 3).matrix(50).view());
  index.remove(key_column(KeyType::kInt64, {7, 8}).span());
  const std::string digest = index.digest();
  for (const Case& one : cases) {
    CAPTURE(one.name);
    try {
      one.call(index);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == one.code);
      CHECK(std::string(error.what()).size() > 8);
    }
    CHECK(index.digest() == digest);
    CHECK(index.stats().seq == 2);
    CHECK(why_not_ok(index.check()) == "");
  }
}

TEST_CASE("errors name the rows at fault") {
  Index index(options_of(Metric::kL2, KeyType::kInt64, 2));
  Matrix matrix{2, {1, 1, 2, 2, 3, 3, 4, 4}};
  const auto rows_of_error = [&](const std::vector<int>& numbers) {
    try {
      index.upsert(key_column(KeyType::kInt64, numbers).span(), matrix.view());
    } catch (const Error& error) {
      return error.rows();
    }
    return std::vector<std::uint64_t>{};
  };
  CHECK(rows_of_error({1, 2, 1, 2}) == std::vector<std::uint64_t>{2, 3});
  matrix.floats[3] = std::numeric_limits<float>::quiet_NaN();
  matrix.floats[6] = std::numeric_limits<float>::infinity();
  CHECK(rows_of_error({1, 2, 3, 4}) == std::vector<std::uint64_t>{1, 3});
}

TEST_CASE("options out of range are refused") {
  const auto refused = [](auto change) {
    IndexOptions options;
    options.dim = 4;
    change(options);
    CHECK_THROWS_AS(Index{options}, Error);
  };
  refused([](IndexOptions& options) { options.dim = 0; });
  refused([](IndexOptions& options) { options.dim = 65537; });
  refused([](IndexOptions& options) { options.m = 3; });
  refused([](IndexOptions& options) { options.m = 257; });
  refused([](IndexOptions& options) { options.ef_construction = 0; });
}

// Inserts, moves and removals in batches that span several sub-batches.
std::string digest_of_churn(unsigned threads, bool save_in_the_middle, KeyType key_type) {
  IndexOptions options = options_of(Metric::kL2, key_type, 8, 8);
  options.ef_construction = 40;
  Index index(options);
  VectorSource source(8, 11);
  Random random(12);
  UpsertOptions write;
  write.threads = threads;
  for (int round = 0; round < 8; ++round) {
    std::set<int> chosen;
    while (chosen.size() < 500) {
      chosen.insert(static_cast<int>(random() % 1500));
    }
    const Keys keys = key_column(key_type, {chosen.begin(), chosen.end()});
    if (round % 3 == 2) {
      index.remove(keys.span(), write);
    } else {
      index.upsert(keys.span(), source.matrix(500).view(), write);
    }
    if (save_in_the_middle && round % 4 == 2) {
      index = index.copy();
    }
  }
  REQUIRE(why_not_ok(index.check()) == "");
  return index.digest();
}

TEST_CASE(
    "the same batches give the same graph at any number of threads, and after save and load") {
  for (const KeyType key_type : kKeyTypes) {
    const std::string digest = digest_of_churn(1, false, key_type);
    for (const unsigned threads : {2U, 4U, 8U, 64U}) {
      CHECK(digest_of_churn(threads, false, key_type) == digest);
    }
    CHECK(digest_of_churn(1, true, key_type) == digest);
    CHECK(digest_of_churn(3, true, key_type) == digest);
  }
}

TEST_CASE("a copy goes its own way") {
  Pair pair(options_of(Metric::kL2, KeyType::kString), 13);
  pair.upsert_some(100);
  pair.upsert_some(100);
  const std::string digest = pair.index.digest();
  Index copy = pair.index.copy();
  CHECK(copy.digest() == digest);
  const Keys keys = copy.keys();
  copy.remove(keys.span());
  CHECK(pair.index.digest() == digest);
  pair.compare();
}

TEST_CASE("many rows in one place stay reachable") {
  // All distances tie or are zero: pruning would cut everything but the anchors.
  Index index(options_of(Metric::kL2, KeyType::kInt64, 3));
  std::vector<int> numbers(900);
  Matrix same{3, {}};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<int>(i);
    same.add({1, 2, 3});
  }
  const Keys keys = key_column(KeyType::kInt64, numbers);
  index.upsert(keys.span(), same.view());
  CHECK(why_not_ok(index.check()) == "");
  CHECK(index.search({same.floats.data(), 1, 3}, 900).counts[0] == 900);
  numbers.resize(450);
  index.remove(key_column(KeyType::kInt64, numbers).span());
  CHECK(why_not_ok(index.check()) == "");
  CHECK(index.search({same.floats.data(), 1, 3}, 900).counts[0] == 450);
}

TEST_CASE("a burst of rows that codes cannot tell apart is found by exact vectors") {
  constexpr std::size_t kDim = 64;
  constexpr int kBurst = 600;
  IndexOptions options = options_of(Metric::kL2, KeyType::kInt64, kDim, 16);
  options.ef_construction = 100;
  Index index(options);
  VectorSource source(kDim, 15);
  Matrix matrix = source.matrix(1000);
  const Vector center(kDim, 20.0F);
  Random random(16);
  std::normal_distribution<float> normal(0.0F, 0.002F);
  std::vector<int> numbers(1000 + kBurst);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int>(i);
  for (int i = 0; i < kBurst; ++i) {
    Vector vector = center;
    for (float& x : vector) x += normal(random);
    matrix.add(vector);
  }
  index.upsert(key_column(KeyType::kInt64, numbers).span(), matrix.view());
  CHECK(why_not_ok(index.check()) == "");
  const MatrixView burst{matrix.floats.data() + 1000 * kDim, kBurst, kDim};
  upvec::SearchOptions search;
  search.ef = 128;
  const auto found = index.search(burst, 10, search);
  const auto exact = index.exact_search(burst, 10);
  std::size_t right = 0;
  for (std::size_t q = 0; q < kBurst; ++q) {
    for (std::size_t i = 0; i < 10; ++i) {
      right += found.distances[q * 10 + i] <= exact.distances[q * 10 + 9] ? 1 : 0;
    }
  }
  CHECK(right > 10 * kBurst * 95 / 100);
}

TEST_CASE("a collection that moves away as a whole stays one graph") {
  Index index(options_of(Metric::kL2, KeyType::kInt64, 4));
  std::vector<int> numbers(1200);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<int>(i);
  }
  const Keys keys = key_column(KeyType::kInt64, numbers);
  VectorSource source(4, 14);
  for (int round = 0; round < 4; ++round) {
    Matrix matrix = source.matrix(numbers.size());
    for (float& x : matrix.floats) {
      x += static_cast<float>(100 * round);
    }
    index.upsert(keys.span(), matrix.view());
    REQUIRE(why_not_ok(index.check()) == "");
  }
}

}  // namespace
