#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hash.hpp"
#include "key_index.hpp"

namespace {

using upvec::Digest;
using upvec::KeyIndex;
using upvec::KeySpan;
using upvec::KeyType;
using upvec::kNoValue;
using upvec::SeededHash;
using upvec::StoredKey;

// Owns a column of keys of either type.
template <class Key>
class Column;

template <>
class Column<std::int64_t> {
 public:
  static constexpr KeyType kType = KeyType::kInt64;
  void push(std::int64_t key) { keys_.push_back(key); }
  [[nodiscard]] KeySpan span() const { return KeySpan::ints(keys_); }
  static std::int64_t key_of(StoredKey key) { return KeyIndex::int_of(key); }

 private:
  std::vector<std::int64_t> keys_;
};

template <>
class Column<std::string> {
 public:
  static constexpr KeyType kType = KeyType::kString;
  void push(std::string_view key) {
    bytes_ += key;
    offsets_.push_back(bytes_.size());
  }
  [[nodiscard]] KeySpan span() const { return KeySpan::strings(offsets_, bytes_.data()); }
  static std::string key_of(StoredKey key) { return std::string(KeyIndex::string_of(key)); }

 private:
  std::vector<std::uint64_t> offsets_ = {0};
  std::string bytes_;
};

template <class Key>
Column<Key> one(const Key& key) {
  Column<Key> column;
  column.push(key);
  return column;
}

template <class Key>
std::uint32_t find(const KeyIndex& index, const Key& key) {
  return index.find_one(one(key).span(), 0);
}

template <class Key>
StoredKey assign(KeyIndex& index, const Key& key, std::uint32_t value) {
  return index.assign(one(key).span(), 0, value);
}

template <class Key>
bool erase_and_release(KeyIndex& index, const Key& key) {
  const std::optional<StoredKey> erased = index.erase(one(key).span(), 0);
  if (erased) {
    CHECK(Column<Key>::key_of(*erased) == key);
    index.release(*erased);
  }
  return erased.has_value();
}

std::vector<std::int64_t> some_keys(std::int64_t) {
  std::vector<std::int64_t> keys = {0, -1, INT64_MIN, INT64_MAX};
  for (std::int64_t i = 1; i < 600; ++i) {
    keys.push_back(i << 40);
  }
  // Some for the array at once, some for it only when there are more keys.
  for (std::int64_t i = 1; i < 10'000; i += 9) {
    keys.push_back(i);
  }
  return keys;
}

std::vector<std::string> some_keys(const std::string&) {
  std::vector<std::string> keys = {"", std::string(1, '\0'), std::string(2, '\0'),
                                   std::string("a\0b", 3), std::string(100'000, 'x')};
  std::mt19937 random(5);
  for (int i = 0; i < 600; ++i) {
    keys.push_back("key " + std::to_string(i) + std::string(random() % 40, '.'));
  }
  return keys;
}

template <class Key>
void check_against(const KeyIndex& index, const std::unordered_map<Key, std::uint32_t>& model,
                   const std::vector<Key>& universe) {
  CHECK(index.size() == model.size());
  Column<Key> column;
  for (const Key& key : universe) {
    column.push(key);
  }
  std::vector<std::uint32_t> found(universe.size());
  index.find(column.span(), found);
  for (std::size_t i = 0; i < universe.size(); ++i) {
    const auto want = model.find(universe[i]);
    CHECK(found[i] == (want == model.end() ? kNoValue : want->second));
  }
  std::unordered_map<Key, std::uint32_t> visited;
  index.for_each([&](StoredKey key, std::uint32_t value) {
    CHECK(visited.emplace(Column<Key>::key_of(key), value).second);
  });
  CHECK(visited == model);
}

template <class Key>
void random_operations(unsigned seed) {
  const std::vector<Key> universe = some_keys(Key());
  KeyIndex index(Column<Key>::kType, seed);
  std::unordered_map<Key, std::uint32_t> model;
  std::unordered_map<Key, StoredKey> stored;
  std::mt19937 random(seed);
  for (int step = 0; step < 8000; ++step) {
    const Key& key = universe[random() % universe.size()];
    // Lean towards growth, then towards shrinking, and so on.
    const bool growing = (step / 1000) % 2 == 0;
    if (random() % 4 < (growing ? 3U : 1U)) {
      const auto value = static_cast<std::uint32_t>(random() % kNoValue);
      const StoredKey got = assign(index, key, value);
      CHECK(Column<Key>::key_of(got) == key);
      const auto [known, fresh] = stored.emplace(key, got);
      CHECK((fresh || known->second == got));  // the address outlives overwriting and growth
      model[key] = value;
    } else if (random() % 2 == 0) {
      CHECK(erase_and_release(index, key) == (model.erase(key) == 1));
      stored.erase(key);
    } else if (const auto known = stored.find(key); known != stored.end()) {
      CHECK(index.erase(known->second));
      CHECK(!index.erase(known->second));
      index.release(known->second);
      model.erase(key);
      stored.erase(known);
    }
    if (step % 500 == 0) {
      check_against(index, model, universe);
    }
  }
  check_against(index, model, universe);
}

}  // namespace

TEST_CASE_TEMPLATE("random operations agree with a standard map", Key, std::int64_t, std::string) {
  for (unsigned seed = 0; seed < 3; ++seed) {
    random_operations<Key>(seed);
  }
}

TEST_CASE_TEMPLATE("an empty index finds nothing and is small", Key, std::int64_t, std::string) {
  KeyIndex index(Column<Key>::kType, 1);
  CHECK(index.size() == 0);
  CHECK(index.bytes() < 8192);
  CHECK(find(index, Key()) == kNoValue);
  CHECK(!erase_and_release(index, Key()));
  index.find(Column<Key>().span(), {});
  index.prefetch(one(Key()).span(), 0);
}

TEST_CASE("an index of 10^5 keys grows, and reserving spares it that") {
  Column<std::int64_t> column;
  constexpr std::uint32_t kKeys = 100'000;
  for (std::uint32_t i = 0; i < kKeys; ++i) {
    column.push(std::int64_t{i} * 4096);
  }
  KeyIndex grown(KeyType::kInt64, 3);
  KeyIndex reserved(KeyType::kInt64, 3);
  reserved.reserve(column.span(), kKeys);
  const std::size_t reserved_bytes = reserved.bytes();
  for (std::uint32_t i = 0; i < kKeys; ++i) {
    grown.assign(column.span(), i, i);
    reserved.assign(column.span(), i, i);
  }
  CHECK(grown.size() == kKeys);
  CHECK(reserved.bytes() == reserved_bytes);
  std::vector<std::uint32_t> found(kKeys);
  for (const KeyIndex* index : {&grown, &reserved}) {
    index->find(column.span(), found);
    for (std::uint32_t i = 0; i < kKeys; ++i) {
      REQUIRE(found[i] == i);
    }
  }
}

TEST_CASE("integers that count from 0 take little memory, in whatever order they come") {
  constexpr std::uint32_t kKeys = 200'000;
  for (const bool backwards : {false, true}) {
    CAPTURE(backwards);
    Column<std::int64_t> column;
    for (std::uint32_t i = 0; i < kKeys; ++i) {
      column.push(backwards ? kKeys - 1 - i : i);
    }
    KeyIndex index(KeyType::kInt64, 3);
    index.reserve(column.span(), kKeys);
    for (std::uint32_t i = 0; i < kKeys; ++i) {
      index.assign(column.span(), i, i);
    }
    CHECK(index.is_all_direct());
    CHECK(index.bytes() < 5 * kKeys);
  }
}

TEST_CASE("a key stays in the table when the array grows past it") {
  KeyIndex index(KeyType::kInt64, 3);
  assign<std::int64_t>(index, 9'000, 1);  // too large for the array of an empty index
  CHECK(!index.is_all_direct());
  for (std::int64_t i = 0; i < 8'000; ++i) {
    assign<std::int64_t>(index, i, 2);
  }
  assign<std::int64_t>(index, 12'000, 3);
  CHECK(index.find_direct(12'000) == 3);
  CHECK(find<std::int64_t>(index, 9'000) == 1);
  assign<std::int64_t>(index, 9'000, 4);
  CHECK(index.find_direct(9'000) == kNoValue);
  CHECK(find<std::int64_t>(index, 9'000) == 4);
  CHECK(index.size() == 8'002);
  CHECK(erase_and_release<std::int64_t>(index, 9'000));
  CHECK(find<std::int64_t>(index, 9'000) == kNoValue);
  CHECK(index.is_all_direct());
  assign<std::int64_t>(index, 9'000, 5);
  CHECK(index.find_direct(9'000) == 5);
}

TEST_CASE("strings that differ only in length or after a NUL are different keys") {
  KeyIndex index(KeyType::kString, 9);
  const std::vector<std::string> keys = {"",  std::string(1, '\0'),  std::string(2, '\0'),
                                         "a", std::string("a\0", 2), std::string("a\0b", 3)};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    assign(index, keys[i], static_cast<std::uint32_t>(i));
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CHECK(find(index, keys[i]) == i);
  }
}

TEST_CASE("an erased string stays readable until it is released") {
  KeyIndex index(KeyType::kString, 2);
  const std::string key = "still being read";
  const std::size_t empty_bytes =
      (assign(index, std::string(), 1), erase_and_release(index, std::string()), index.bytes());
  const StoredKey stored = assign(index, key, 5);
  CHECK(index.erase(stored));
  const StoredKey again = assign(index, key, 6);
  CHECK(again != stored);
  CHECK(KeyIndex::string_of(stored) == key);
  CHECK(find(index, key) == 6);
  CHECK(!index.erase(stored));
  CHECK(find(index, key) == 6);
  index.release(stored);
  CHECK(index.erase(again));
  index.release(again);
  CHECK(index.bytes() <= empty_bytes + 256);  // one more stripe may have been opened
}

TEST_CASE_TEMPLATE("first_occurrence points at the first equal key of the batch", Key, std::int64_t,
                   std::string) {
  const std::vector<Key> universe = some_keys(Key());
  std::mt19937 random(4);
  for (const std::size_t size : {0U, 1U, 2U, 3U, 100U, 3000U}) {
    Column<Key> column;
    std::unordered_map<Key, std::uint32_t> first;
    std::vector<std::uint32_t> want;
    for (std::uint32_t i = 0; i < size; ++i) {
      const Key& key = universe[random() % universe.size()];
      column.push(key);
      want.push_back(first.emplace(key, i).first->second);
    }
    std::vector<std::uint32_t> got(size);
    upvec::first_occurrence(column.span(), 12, got);
    CHECK(got == want);
  }
}

TEST_CASE("the seed moves keys, and equal seeds agree") {
  const Column<std::string> column = one(std::string("key"));
  const KeyIndex first(KeyType::kString, 1);
  const KeyIndex same(KeyType::kString, 1);
  const KeyIndex other(KeyType::kString, 2);
  CHECK(first.hash(column.span(), 0) == same.hash(column.span(), 0));
  CHECK(first.hash(column.span(), 0) != other.hash(column.span(), 0));
}

TEST_CASE("regular integer sequences spread evenly over stripes and homes") {
  constexpr std::size_t kKeys = 1 << 14;
  constexpr std::size_t kBuckets = 64;
  for (const std::uint64_t seed : {0ULL, 1ULL, 0x123456789abcdefULL}) {
    const SeededHash hash(seed);
    for (unsigned shift = 0; shift < 50; ++shift) {
      std::vector<int> high(kBuckets);
      std::vector<int> low(kBuckets);
      for (std::size_t i = 0; i < kKeys; ++i) {
        const std::uint64_t h = hash(static_cast<std::uint64_t>(i) << shift);
        ++high[h >> 58];
        ++low[h % kBuckets];
      }
      // The mean is 256 with a standard deviation of 16.
      for (const std::vector<int>* counts : {&high, &low}) {
        CHECK(*std::min_element(counts->begin(), counts->end()) > 256 - 6 * 16);
        CHECK(*std::max_element(counts->begin(), counts->end()) < 256 + 6 * 16);
      }
    }
  }
}

TEST_CASE("every bit of the key flips about half the bits of the hash") {
  const SeededHash hash(77);
  std::mt19937_64 random(1);
  for (int bit = 0; bit < 64; ++bit) {
    int flipped = 0;
    for (int trial = 0; trial < 256; ++trial) {
      const std::uint64_t key = random();
      flipped += std::popcount(hash(key) ^ hash(key ^ (std::uint64_t{1} << bit)));
    }
    CHECK(flipped > 256 * 30);
    CHECK(flipped < 256 * 34);
  }
}

TEST_CASE("hashes of byte strings depend on every byte and on the length") {
  const SeededHash hash(4);
  std::unordered_set<std::uint64_t> seen;
  std::size_t expected = 0;
  for (std::size_t length = 0; length < 70; ++length) {
    std::string bytes(length, '\0');
    CHECK(seen.insert(hash(bytes)).second);
    ++expected;
    for (std::size_t at = 0; at < length; ++at) {
      for (const char c : {'\1', '\2', '\x80'}) {
        bytes[at] = c;
        CHECK(seen.insert(hash(bytes)).second);
        ++expected;
      }
      bytes[at] = '\0';
    }
  }
  CHECK(seen.size() == expected);
}

TEST_CASE("a digest depends on the values, their order and their number") {
  const auto digest = [](const std::vector<std::uint64_t>& values) {
    Digest sum(8);
    for (const std::uint64_t value : values) {
      sum.add(value);
    }
    return sum.value();
  };
  CHECK(digest({1, 2, 3}) == digest({1, 2, 3}));
  const std::unordered_set<std::uint64_t> different = {
      digest({}),     digest({0}),    digest({0, 0}),    digest({1, 2}),
      digest({2, 1}), digest({3, 1}), digest({1, 2, 0}), digest({0, 1, 2})};
  CHECK(different.size() == 8);
  Digest whole(8);
  whole.add("abc", 3);
  Digest parts(8);
  parts.add("ab", 2);
  parts.add("c", 1);
  CHECK(whole.value() != parts.value());
}

namespace {

// The writer churns odd keys and rewrites even ones; even keys are never absent.
template <class Key>
void find_beside_a_writer(const std::vector<Key>& keys) {
  KeyIndex index(Column<Key>::kType, 6);
  Column<Key> column;
  for (const Key& key : keys) {
    column.push(key);
  }
  const KeySpan span = column.span();
  for (std::size_t i = 0; i < keys.size(); i += 2) {
    index.assign(span, i, static_cast<std::uint32_t>(i));
  }
  std::atomic<bool> done = false;
  std::atomic<int> wrong = 0;
  std::atomic<int> rounds = 0;
  std::vector<std::thread> finders;
  for (int t = 0; t < 3; ++t) {
    finders.emplace_back([&] {
      std::vector<std::uint32_t> found(keys.size());
      while (!done.load()) {
        index.find(span, found);
        for (std::size_t i = 0; i < keys.size(); ++i) {
          const bool absent_is_fine = i % 2 == 1;
          if (found[i] % keys.size() != i && !(absent_is_fine && found[i] == kNoValue)) {
            ++wrong;
          }
        }
        ++rounds;
      }
    });
  }
  std::vector<StoredKey> detached;
  const auto size = static_cast<std::uint32_t>(keys.size());
  for (std::uint32_t round = 1; round <= 12 || rounds.load() < 6; ++round) {
    for (std::uint32_t i = 0; i < size; ++i) {
      if (i % 2 == 0 || round % 2 == 1) {
        index.assign(span, i, i + size * (round % 7));
      } else if (const std::optional<StoredKey> key = index.erase(span, i)) {
        detached.push_back(*key);
      }
    }
  }
  done = true;
  for (std::thread& finder : finders) {
    finder.join();
  }
  for (const StoredKey key : detached) {
    index.release(key);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("finding beside a writer sees values from before or after, never others") {
  std::vector<std::int64_t> ints;
  std::vector<std::string> strings;
  for (std::int64_t i = 0; i < 3000; ++i) {
    ints.push_back(i << 32);
    strings.push_back("document " + std::to_string(i));
  }
  find_beside_a_writer(ints);
  // A third of these for the array, in which the finders meet the writer as it makes it longer.
  for (std::int64_t i = 0; i < 1000; ++i) {
    ints[static_cast<std::size_t>(3 * i)] = i * 5;
  }
  find_beside_a_writer(ints);
  find_beside_a_writer(strings);
}
