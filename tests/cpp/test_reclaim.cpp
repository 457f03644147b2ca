// What is kept for readers of older versions, and what is given back.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <deque>
#include <numeric>
#include <optional>
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

constexpr std::size_t kDim = 6;
constexpr int kKeys = 240;

struct History {
  explicit History(KeyType type)
      : index(IndexOptions{.dim = kDim, .metric = Metric::kL2, .key_type = type}) {}

  void upsert(const std::vector<int>& numbers) {
    const Matrix vectors = source.matrix(numbers.size());
    index.upsert(key_column(index.options().key_type, numbers).span(), vectors.view(), {});
    for (std::size_t i = 0; i < numbers.size(); ++i) model[numbers[i]] = vectors.row(i);
  }
  void remove(const std::vector<int>& numbers) {
    index.remove(key_column(index.options().key_type, numbers).span(), {});
    for (const int number : numbers) model.erase(number);
  }
  [[nodiscard]] std::size_t rows() const { return index.stats().rows; }

  Index index;
  Model model;
  VectorSource source{kDim, 5};
};

std::vector<int> range(int from, int to) {
  std::vector<int> numbers(static_cast<std::size_t>(to - from));
  std::iota(numbers.begin(), numbers.end(), from);
  return numbers;
}

void require_shows(const History& history, const Snapshot& snapshot, const Model& model) {
  ReadOptions read;
  read.snapshot = &snapshot;
  std::vector<int> keys = numbers_of(history.index.keys(read));
  std::sort(keys.begin(), keys.end());
  REQUIRE(keys == numbers_of(model));
  const Got got = get(history.index, keys, &snapshot);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    REQUIRE(got.found[i] == 1);
    REQUIRE(got.vectors.row(i) == model.at(keys[i]));
  }
}

void rewrite(History& history, int turns) {
  for (int turn = 0; turn < turns; ++turn) {
    for (int first = 0; first < kKeys; first += 30) history.upsert(range(first, first + 30));
  }
}

TEST_CASE("a snapshot holds the rows that it shows, however many commits pass") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    History history(type);
    history.upsert(range(0, kKeys));
    std::optional<Snapshot> snapshot = history.index.snapshot();
    const Model then = history.model;
    for (int turn = 0; turn < 50; ++turn) {
      rewrite(history, 1);
      REQUIRE(history.rows() <= 2 * kKeys + 2 * 30);
    }
    require_shows(history, *snapshot, then);
    snapshot.reset();
    rewrite(history, 1);
    CHECK(history.rows() <= kKeys + 2 * 30);
    CHECK(why_not_ok(history.index.check()) == "");
  }
}

TEST_CASE("of several snapshots, each holds what it alone shows until it is gone") {
  History history(KeyType::kString);
  history.upsert(range(0, kKeys));
  std::deque<Snapshot> snapshots;
  std::deque<Model> models;
  for (int i = 0; i < 5; ++i) {
    snapshots.push_back(history.index.snapshot());
    models.push_back(history.model);
    rewrite(history, 3);
    REQUIRE(history.rows() <= (snapshots.size() + 1) * kKeys + 2 * 30);
  }
  for (const std::ptrdiff_t gone : {2, 0, 2, 0, 0}) {
    snapshots.erase(snapshots.begin() + gone);
    models.erase(models.begin() + gone);
    rewrite(history, 2);
    CHECK(history.rows() <= (snapshots.size() + 1) * kKeys + 2 * 30);
    for (std::size_t i = 0; i < snapshots.size(); ++i) {
      require_shows(history, snapshots[i], models[i]);
    }
  }
  CHECK(why_not_ok(history.index.check()) == "");
}

TEST_CASE("keys and slots that come and go beside a snapshot leave nothing behind") {
  History history(KeyType::kString);
  history.upsert(range(0, kKeys));
  std::optional<Snapshot> snapshot = history.index.snapshot();
  const Model then = history.model;
  std::size_t bytes = 0;
  for (int round = 1; round <= 40; ++round) {
    // Other keys in the same slots, and then the first ones again.
    history.remove(range(0, kKeys));
    history.upsert(range(round * 1000, round * 1000 + kKeys));
    history.remove(range(round * 1000, round * 1000 + kKeys));
    history.upsert(range(0, kKeys));
    REQUIRE(history.rows() <= 5 * kKeys);
    if (round == 3) bytes = history.index.stats().key_bytes;
    if (round > 3) REQUIRE(history.index.stats().key_bytes <= bytes + bytes / 10);
  }
  require_shows(history, *snapshot, then);
  CHECK(history.index.stats().slots <= 2 * kKeys);
  snapshot.reset();
  for (int i = 0; i < 3; ++i) history.upsert({0});
  CHECK(history.rows() <= 3 * kKeys);
  CHECK(why_not_ok(history.index.check()) == "");
}

TEST_CASE("random histories: every held version shows its model") {
  for (std::uint32_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    History history(seed % 2 == 0 ? KeyType::kInt64 : KeyType::kString);
    std::deque<Snapshot> snapshots;
    std::deque<Model> models;
    for (int step = 0; step < 250; ++step) {
      const int first = static_cast<int>(random() % 60);
      const int last = first + 1 + static_cast<int>(random() % 12);
      switch (random() % 7) {
        case 0:
          history.remove(range(first, last));
          break;
        case 1:
          snapshots.push_back(history.index.snapshot());
          models.push_back(history.model);
          break;
        case 2:
          if (!snapshots.empty()) {
            const auto gone = static_cast<std::ptrdiff_t>(random() % snapshots.size());
            snapshots.erase(snapshots.begin() + gone);
            models.erase(models.begin() + gone);
          }
          break;
        default:
          history.upsert(range(first, last));
      }
      REQUIRE(history.rows() <= (snapshots.size() + 2) * 72 + 48);
      if (snapshots.empty()) continue;
      const std::size_t one = random() % snapshots.size();
      require_shows(history, snapshots[one], models[one]);
    }
    REQUIRE(why_not_ok(history.index.check()) == "");
  }
}

TEST_CASE("reads of an old version walk beside a writer that takes rows out of their way") {
  constexpr int kFew = 24;
  History history(KeyType::kString);
  history.upsert(range(0, kFew));
  const Snapshot oldest = history.index.snapshot();
  const Model then = history.model;
  std::atomic<bool> over{false};
  Complaints complaints;
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&] {
      const std::vector<int> asked = range(0, kFew);
      while (!over) {
        const Got got = get(history.index, asked, &oldest);
        for (std::size_t i = 0; i < asked.size(); ++i) {
          complaints.demand(got.found[i] == 1 && got.vectors.row(i) == then.at(asked[i]),
                            "a held version shows something else");
        }
        const Snapshot now = history.index.snapshot();  // some rows are held for this, and let go
        const Got once = get(history.index, asked, &now);
        complaints.demand(get(history.index, asked, &now).vectors.floats == once.vectors.floats,
                          "a version changed");
      }
    });
  }
  for (int turn = 0; turn < 600; ++turn) {
    if (turn % 5 == 0) history.remove(range(turn % 12, turn % 12 + 6));
    history.upsert(range(turn % 12, turn % 12 + 12));
  }
  over = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(complaints.first() == "");
  // Nothing of all this but the two versions and what is under way.
  for (int i = 0; i < 3; ++i) history.upsert({0});
  CHECK(history.rows() <= 3 * kFew + 24);
}

}  // namespace
