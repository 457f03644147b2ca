// Readers beside writers. Run under the thread sanitizer, these tests also look for data races.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "complaints.hpp"
#include "model.hpp"
#include "random.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kDim = 4;
constexpr int kPerGroup = 40;

// A vector tells which key and which generation it belongs to, and where it is.
Vector vector_of(int number, int generation) {
  Random random(static_cast<std::uint32_t>(number * 7919 + generation));
  return {static_cast<float>(number), static_cast<float>(generation),
          static_cast<float>(random() % 1000), static_cast<float>(random() % 1000)};
}

// Keys of one group are written by one call, always all of them with one generation, or all
// removed.
class Reader {
 public:
  Reader(const Index& index, Complaints& complaints, int groups, int seed)
      : index_(index),
        complaints_(complaints),
        groups_(groups),
        random_(static_cast<std::uint32_t>(seed)) {}

  void step() {
    switch (random_() % 6) {
      case 0:
        check_get();
        break;
      case 1:
        check_search(index_.search(query().view(), kHits), kHits);
        break;
      case 2:
        check_search(index_.exact_search(query().view(), kHits), kHits);
        break;
      case 3:
        check_range();
        break;
      case 4:
        check_keys();
        break;
      default:
        check_snapshot();
    }
  }

 private:
  static constexpr std::size_t kHits = 12;

  Matrix& query() {
    const int number = static_cast<int>(random_()) % (groups_ * kPerGroup);
    query_ = {kDim, {}};
    query_.add(vector_of(std::abs(number), static_cast<int>(random_() % 50)));
    return query_;
  }

  std::vector<int> group() {
    std::vector<int> numbers;
    const int first = static_cast<int>(random_() % static_cast<unsigned>(groups_)) * kPerGroup;
    for (int i = 0; i < kPerGroup; ++i) {
      numbers.push_back(first + i);
    }
    return numbers;
  }

  void check_group(const std::vector<int>& numbers, const Got& got) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      complaints_.demand(got.found[i] == got.found[0], "get: half a batch");
      if (got.found[0] == 0 || got.found[i] == 0) {
        continue;
      }
      const Vector row = got.vectors.row(i);
      complaints_.demand(row[1] == got.vectors.row(0)[1], "get: two generations of one batch");
      complaints_.demand(row == vector_of(numbers[i], static_cast<int>(row[1])),
                         "get: a vector that this key never had");
    }
  }

  void check_get() {
    const std::vector<int> numbers = group();
    check_group(numbers, get(index_, numbers));
  }

  // The distance tells which generations the hit can be of: there must be one that was written.
  void check_hit(int number, float distance) {
    bool known = false;
    for (int generation = 0; generation < kGenerations && !known; ++generation) {
      known = close(distance,
                    testing::distance(Metric::kL2, query_.row(0), vector_of(number, generation)));
    }
    complaints_.demand(known, "search: a distance to no vector that this key ever had");
  }

  void check_search(const SearchResult& result, std::size_t k) {
    const auto count = static_cast<std::size_t>(result.counts[0]);
    complaints_.demand(count <= k, "search: more hits than asked for");
    std::set<int> met;
    for (std::size_t i = 0; i < count; ++i) {
      const int number = number_of(result.keys, i);
      complaints_.demand(met.insert(number).second, "search: a key twice");
      complaints_.demand(i == 0 || result.distances[i - 1] <= result.distances[i],
                         "search: not nearest first");
      if (i < 2) {
        check_hit(number, result.distances[i]);
      }
    }
  }

  void check_range() {
    const RangeResult result = index_.range_search(query().view(), 20'000.0F);
    std::set<int> met;
    for (std::size_t i = 0; i < result.distances.size(); ++i) {
      complaints_.demand(met.insert(number_of(result.keys, i)).second, "range: a key twice");
      complaints_.demand(result.distances[i] <= 20'000.0F, "range: beyond the radius");
      if (i == 0) {
        check_hit(number_of(result.keys, i), result.distances[i]);
      }
    }
  }

  void check_keys() {
    std::vector<int> numbers = numbers_of(index_.keys());
    std::sort(numbers.begin(), numbers.end());
    complaints_.demand(std::adjacent_find(numbers.begin(), numbers.end()) == numbers.end(),
                       "keys: one twice");
    std::vector<int> of_group(static_cast<std::size_t>(groups_), 0);
    for (const int number : numbers) {
      ++of_group[static_cast<std::size_t>(number / kPerGroup)];
    }
    for (const int n : of_group) {
      complaints_.demand(n == 0 || n == kPerGroup, "keys: half a batch");
    }
  }

  // Whatever is read at a snapshot is read again later, and is the same.
  void check_snapshot() {
    const Snapshot snapshot = index_.snapshot();
    SearchOptions options;
    options.snapshot = &snapshot;
    const std::vector<int> numbers = group();
    const Got first = get(index_, numbers, &snapshot);
    check_group(numbers, first);
    const SearchResult exact = index_.exact_search(query().view(), kHits, options);
    std::this_thread::yield();
    const SearchResult again = index_.exact_search(query_.view(), kHits, options);
    complaints_.demand(exact.distances == again.distances, "snapshot: another answer");
    complaints_.demand(numbers_of(exact.keys) == numbers_of(again.keys), "snapshot: other keys");
    check_search(index_.search(query_.view(), kHits, options), kHits);
    const Got second = get(index_, numbers, &snapshot);
    complaints_.demand(first.found == second.found, "snapshot: other keys are there");
    complaints_.demand(first.vectors.floats == second.vectors.floats, "snapshot: other vectors");
  }

 public:
  static constexpr int kGenerations = 50;

 private:
  const Index& index_;
  Complaints& complaints_;
  int groups_;
  Random random_;
  Matrix query_{kDim, {}};
};

// Writes its own groups over and over: all of a group at a time, each time with the next
// generation.
void churn(Index& index, int writer, int writers, int groups, unsigned threads,
           Clock::time_point end) {
  Random random(static_cast<std::uint32_t>(writer) + 100);
  int generation = 0;
  while (Clock::now() < end) {
    generation = (generation + 1) % Reader::kGenerations;
    const int own = static_cast<int>(random() % static_cast<unsigned>(groups / writers));
    const int first = (own * writers + writer) * kPerGroup;
    std::vector<int> numbers;
    Matrix vectors{kDim, {}};
    for (int i = 0; i < kPerGroup; ++i) {
      numbers.push_back(first + i);
      vectors.add(vector_of(first + i, generation));
    }
    const Keys keys = key_column(index.options().key_type, numbers);
    UpsertOptions options;
    options.threads = threads;
    if (random() % 3 == 0) {
      index.remove(keys.span(), options);
    } else {
      index.upsert(keys.span(), vectors.view(), options);
    }
  }
}

void stress(KeyType key_type, int writers, int groups, unsigned threads,
            std::chrono::milliseconds duration) {
  IndexOptions options;
  options.dim = kDim;
  options.key_type = key_type;
  options.m = 4;
  options.ef_construction = 16;
  Index index(options);
  Complaints complaints;
  const Clock::time_point end = Clock::now() + duration;
  std::vector<std::thread> all;
  for (int writer = 0; writer < writers; ++writer) {
    all.emplace_back([&, writer] { churn(index, writer, writers, groups, threads, end); });
  }
  for (int seed = 0; seed < 3; ++seed) {
    all.emplace_back([&, seed] {
      Reader reader(index, complaints, groups, seed);
      while (Clock::now() < end) {
        reader.step();
      }
    });
  }
  for (std::thread& thread : all) {
    thread.join();
  }
  CHECK(complaints.first() == "");
  CHECK(why_not_ok(index.check()) == "");
}

TEST_CASE("readers see whole batches, true distances and every key once, while writers churn") {
  for (const KeyType key_type : {KeyType::kInt64, KeyType::kString}) {
    // Few groups: slots change owners all the time. Many: searches find their way through a graph.
    stress(key_type, 1, 2, 1, std::chrono::milliseconds(700));
    stress(key_type, 2, 10, 2, std::chrono::milliseconds(700));
  }
}

TEST_CASE("an index grows into new memory while it is read") {
  IndexOptions options;
  options.dim = 16;  // 32,768 vectors a chunk
  options.m = 4;
  options.ef_construction = 4;
  Index index(options);
  constexpr int kRows = 36'000;
  constexpr int kBatch = 3'000;
  std::atomic<bool> stop = false;
  Complaints complaints;
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&, r] {
      Random random(static_cast<std::uint32_t>(r));
      while (!stop.load()) {
        const Vector query(16, static_cast<float>(random() % kRows));
        const SearchResult found = index.search({query.data(), 1, 16}, 5);
        for (std::int64_t i = 0; i < found.counts[0]; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const auto away = static_cast<float>(found.keys.ints[at]) - query[0];
          complaints.demand(close(found.distances[at], 16.0 * away * away),
                            "search: not the key's distance");
        }
        const std::vector<std::int64_t> key = {static_cast<std::int64_t>(random() % kRows)};
        std::array<float, 16> vector{};
        std::uint8_t there = 0;
        index.get(KeySpan::ints(key), vector.data(), &there);
        complaints.demand(there == 0 || vector[15] == static_cast<float>(key[0]),
                          "get: not the key's vector");
      }
    });
  }
  for (int begin = 0; begin < kRows; begin += kBatch) {
    std::vector<std::int64_t> keys;
    Matrix vectors{16, {}};
    for (int number = begin; number < begin + kBatch; ++number) {
      keys.push_back(number);
      vectors.add(Vector(16, static_cast<float>(number)));
    }
    index.upsert(KeySpan::ints(keys), vectors.view());
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  CHECK(complaints.first() == "");
  CHECK(why_not_ok(index.check()) == "");
}

}  // namespace
