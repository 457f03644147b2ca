// Memory runs out: at the n-th allocation, for every n (some, from 100 on), during every kind of
// call.
//
// A read that throws has changed nothing. A write that throws has changed nothing either, or else
// it was in the middle of its commit: then the index refuses further writes, and readers go on
// seeing what was there before.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "model.hpp"
#include "random.hpp"
#include "upvec/error.hpp"
#include "upvec/index.hpp"

namespace {

// Allocations until one fails; none does at 0 or less. Of any thread: those of a team count too.
std::atomic<long> allocations_left{0};

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (allocations_left.load(std::memory_order_relaxed) > 0 &&
      allocations_left.fetch_sub(1, std::memory_order_relaxed) == 1) {
    throw std::bad_alloc();
  }
  bytes = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* const memory = alignment <= alignof(std::max_align_t)
                           ? std::malloc(bytes)
                           : std::aligned_alloc(alignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate_or_null(std::size_t bytes, std::size_t alignment) noexcept {
  try {
    return allocate(bytes, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

#if defined(__GNUC__) && !defined(__clang__)
// Under the thread sanitizer GCC sees the allocation of one and the release of the other inlined.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

// The whole program's, for what the library allocates through the standard containers.
void* operator new(std::size_t bytes) { return allocate(bytes, 1); }
void* operator new[](std::size_t bytes) { return allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*unused*/) noexcept {
  return allocate_or_null(bytes, 1);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& /*unused*/) noexcept {
  return allocate_or_null(bytes, 1);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t /*unused*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t /*unused*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/, std::align_val_t /*unused*/) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t /*bytes*/, std::align_val_t /*unused*/) noexcept {
  std::free(memory);
}

namespace {

using namespace upvec;
using namespace upvec::testing;

// Every place first, then fewer: so many that it takes seconds, also under a sanitizer.
long next(long n) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return n + 1 + n / 12;
#else
  return n + 1 + n / 100;
#endif
}

enum class End : std::uint8_t { kDone, kThrew };

// Lets the n-th allocation of a call fail; says also whether the call got so far.
std::pair<End, bool> fails_at(long n, const std::function<void()>& call) {
  End end = End::kDone;
  allocations_left.store(n);
  try {
    call();
  } catch (const std::bad_alloc&) {
    end = End::kThrew;
  } catch (const Error& error) {
    end = End::kThrew;
    CHECK(error.code() == ErrorCode::kLimit);
  }
  const bool reached = allocations_left.exchange(0) <= 0;
  return {end, reached};
}

struct Batch {
  Keys keys;
  Matrix vectors;
};

// A small index with what calls may meet: updates, removed keys, old rows.
class Fixture {
 public:
  explicit Fixture(KeyType type, Codes codes = Codes::kInt8) : type_(type), source_(8, 3) {
    options_.dim = 8;
    options_.key_type = type;
    options_.codes = codes;
    options_.m = 4;
    options_.ef_construction = 16;
    base_ = batch(0, 300);
    moved_ = batch(20, 40);
    mixed_ = batch(290, 60);
  }

  [[nodiscard]] Index made() const {
    Index index(options_);
    index.upsert(base_.keys.span(), base_.vectors.view());
    index.remove(key_column(type_, {5, 6, 7, 100}).span());
    index.upsert(moved_.keys.span(), moved_.vectors.view());
    return index;
  }

  [[nodiscard]] Batch batch(int first, int count) {
    std::vector<int> numbers;
    for (int i = 0; i < count; ++i) numbers.push_back(first + i);
    return {key_column(type_, numbers), source_.matrix(static_cast<std::size_t>(count))};
  }

  [[nodiscard]] const Batch& mixed() const { return mixed_; }
  [[nodiscard]] KeyType type() const { return type_; }

 private:
  KeyType type_;
  VectorSource source_;
  IndexOptions options_;
  Batch base_, moved_, mixed_;
};

// What a reader gets: of every key, whether it is there, its vector, and what is nearest to it.
struct Seen {
  std::vector<int> keys;
  std::vector<float> vectors;
  std::vector<std::uint8_t> found;
  std::vector<int> nearest;
  bool operator==(const Seen&) const = default;
};

Seen seen_in(const Index& index, KeyType type) {
  std::vector<int> all;
  for (int n = 0; n < 400; ++n) all.push_back(n);
  const Keys keys = key_column(type, all);
  Seen seen;
  seen.keys = numbers_of(index.keys());
  std::sort(seen.keys.begin(), seen.keys.end());
  seen.vectors.resize(all.size() * index.options().dim);
  seen.found.resize(all.size());
  index.get(keys.span(), seen.vectors.data(), seen.found.data());
  const MatrixView queries{seen.vectors.data(), 20, index.options().dim};
  seen.nearest = numbers_of(index.exact_search(queries, 5).keys);
  return seen;
}

using Write = std::function<void(Index&)>;

struct Failures {
  unsigned undone = 0;  // and the index goes on
  unsigned broken = 0;  // and the index can be read only
};

Failures check_write(const Fixture& fixture, const Write& write) {
  Index twin = fixture.made();
  const std::string before = twin.digest();
  const Seen seen = seen_in(twin, fixture.type());
  write(twin);
  const std::string after = twin.digest();
  Failures failures;
  for (long n = 1;; n = next(n)) {
    CAPTURE(n);
    Index index = fixture.made();
    const auto [end, reached] = fails_at(n, [&] { write(index); });
    bool refused = false;
    if (end == End::kThrew) {
      CHECK(seen_in(index, fixture.type()) == seen);
      bool is_whole = false;
      try {
        is_whole = index.digest() == before;
        write(index);  // as if nothing had been
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kLimit);
        refused = true;
      }
      CHECK((refused || is_whole));
      (refused ? failures.broken : failures.undone) += 1;
    }
    if (refused) {
      CHECK(seen_in(index, fixture.type()) == seen);
    } else {
      CHECK(index.digest() == after);
      CHECK(index.check().ok());
    }
    if (!reached) return failures;
  }
}

// Every read, and what is made of an index; each has to give what it gives without a failure.
void check_read(const Fixture& fixture, const std::function<std::string(const Index&)>& read) {
  const Index index = fixture.made();
  const std::string before = index.digest();
  const std::string wanted = read(index);
  unsigned failures = 0;
  for (long n = 1;; n = next(n)) {
    CAPTURE(n);
    std::string got;
    const auto [end, reached] = fails_at(n, [&] { got = read(index); });
    if (end == End::kThrew) {
      ++failures;
    } else {
      CHECK(got == wanted);
    }
    CHECK(read(index) == wanted);
    if (!reached) break;
  }
  CHECK(failures > 0);
  CHECK(index.digest() == before);
}

template <typename Numbers>
std::string told(const Numbers& numbers) {
  std::string text;
  for (const auto number : numbers) text += std::to_string(number) + " ";
  return text;
}

}  // namespace

TEST_CASE("a write that runs out of memory changes nothing that readers see") {
  Failures all;
  const auto check = [&](const Fixture& fixture, const Write& write) {
    const Failures failures = check_write(fixture, write);
    CHECK(failures.undone > 0);
    all.undone += failures.undone;
    all.broken += failures.broken;
  };
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    for (const unsigned threads : {1U, 2U}) {
      const bool with_codes = (type == KeyType::kInt64) == (threads == 2);
      CAPTURE(static_cast<int>(type));
      CAPTURE(threads);
      const Fixture fixture(type, with_codes ? Codes::kInt8 : Codes::kNone);
      UpsertOptions options;
      options.threads = threads;
      check(fixture, [&](Index& index) {
        index.upsert(fixture.mixed().keys.span(), fixture.mixed().vectors.view(), options);
      });
      check(fixture, [&](Index& index) {
        index.remove(key_column(fixture.type(), {1, 2, 25, 26, 299, 999}).span(), {threads});
      });
    }
  }
  MESSAGE("undone: ", all.undone, ", in the middle of a commit: ", all.broken);
}

TEST_CASE("a call that makes room and runs out of memory changes nothing") {
  const Fixture fixture(KeyType::kString);
  const Failures failures = check_write(fixture, [](Index& index) { index.reserve(100'000); });
  CHECK(failures.undone > 0);
  CHECK(failures.broken == 0);
}

TEST_CASE("a read that runs out of memory changes nothing") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    CAPTURE(static_cast<int>(type));
    const Fixture fixture(type);
    const MatrixView queries = fixture.mixed().vectors.view();
    SearchOptions options;
    for (const unsigned threads : {1U, 2U}) {
      options.threads = threads;
      check_read(fixture, [&](const Index& index) {
        return told(numbers_of(index.search(queries, 5, options).keys));
      });
      check_read(fixture, [&](const Index& index) {
        return told(numbers_of(index.exact_search(queries, 5, options).keys));
      });
      check_read(fixture, [&](const Index& index) {
        return told(numbers_of(index.range_search(queries, 3.0F, options).keys));
      });
    }
    for (const FilterWay way :
         {FilterWay::kAuto, FilterWay::kScan, FilterWay::kWalkAllowed, FilterWay::kWalkAll}) {
      check_read(fixture, [&](const Index& index) {
        const Filter filter = index.filter(fixture.mixed().keys.span());
        SearchOptions filtered;
        filtered.filter = &filter;
        filtered.way = way;
        return told(numbers_of(index.search(queries, 5, filtered).keys));
      });
    }
    check_read(fixture, [](const Index& index) { return told(numbers_of(index.keys())); });
    check_read(fixture, [](const Index& index) {
      const Snapshot held = index.snapshot();
      ReadOptions reading;
      reading.snapshot = &held;
      return told(numbers_of(index.keys(reading)));
    });
    check_read(fixture, [](const Index& index) { return index.copy().digest(); });
    check_read(fixture, [](const Index& index) { return index.digest(); });
    check_read(fixture, [](const Index& index) { return std::to_string(index.check().reachable); });
  }
}

TEST_CASE("an index that is written out and read in runs out of memory, and is told to have") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    CAPTURE(static_cast<int>(type));
    check_read(Fixture(type), [](const Index& index) {
      std::vector<std::byte> bytes;
      Image image = index.image();
      for (Image::Piece piece; image.next(piece);) {
        bytes.resize(std::max(bytes.size(), piece.offset + piece.bytes.size()));
        std::copy(piece.bytes.begin(), piece.bytes.end(),
                  bytes.begin() + static_cast<std::ptrdiff_t>(piece.offset));
      }
      return Index::load_bytes(bytes.data(), bytes.size()).digest();
    });
  }
}
