#include "key_index.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <string>
#include <vector>

#include "simd/prefetch.hpp"
#include "upvec/error.hpp"

namespace upvec {
namespace {

constexpr std::size_t kMinCapacity = 8;
constexpr std::size_t kMaxCapacity = (std::size_t{1} << 32) - 1;
constexpr std::size_t kMaxStringBytes = 0xffffffff;

// The bytes of the string follow the record.
struct Record {
  std::uint32_t length;
};

Record* record_of(StoredKey key) noexcept {
  // The address was stored as an integer by store().
  return reinterpret_cast<Record*>(static_cast<std::uintptr_t>(key));  // NOLINT
}

std::size_t record_bytes(std::size_t length) noexcept { return sizeof(Record) + length; }

// Three quarters: linear probing then looks at 2.5 entries for a key that is there, 8.5 for one
// that is not, four of them to a cache line.
bool is_full(std::size_t used, std::size_t capacity) noexcept { return used * 4 >= capacity * 3; }

// By an eighth, as every entry counts in the memory of a vector: a table is then filled to between
// 2/3 and 3/4, and an entry was moved eight times on average, which is nothing to a row's links.
std::size_t larger(std::size_t capacity) noexcept {
  return std::max(kMinCapacity, (capacity + capacity / 8 + 4) / 4 * 4);
}

// Where the search for a tag begins: any capacity will do, not powers of two alone (Lemire, Fast
// Random Integer Generation in an Interval, 2019, section 2).
std::uint32_t home_of(std::uint32_t tag, std::uint32_t capacity) noexcept {
  return static_cast<std::uint32_t>(std::uint64_t{tag} * capacity >> 32);
}

std::uint32_t next_to(std::uint32_t at, std::uint32_t capacity) noexcept {
  return at + 1 == capacity ? 0 : at + 1;
}

// Steps from one place to another.
std::uint32_t steps(std::uint32_t from, std::uint32_t to, std::uint32_t capacity) noexcept {
  return to >= from ? to - from : to + (capacity - from);
}

std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash); }

bool equal_bytes(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

std::uint64_t hash_of(const SeededHash& hash, const KeySpan& keys, std::size_t i) noexcept {
  return keys.type() == KeyType::kInt64 ? hash(keys.int_at(i)) : hash(keys.string_at(i));
}

bool equal_keys(const KeySpan& keys, std::size_t i, std::size_t j) noexcept {
  return keys.type() == KeyType::kInt64 ? keys.int_at(i) == keys.int_at(j)
                                        : equal_bytes(keys.string_at(i), keys.string_at(j));
}

}  // namespace

std::string_view KeyIndex::string_of(StoredKey key) noexcept {
  const Record* const record = record_of(key);
  return {reinterpret_cast<const char*>(record + 1), record->length};
}

void KeyIndex::FreeEntries::operator()(Entry* entries) const noexcept {
  ::operator delete (entries, std::align_val_t{simd::kCacheLineBytes});
}

KeyIndex::KeyIndex(KeyType type, std::uint64_t seed)
    : type_(type), hash_(seed), stripes_(std::make_unique<Stripe[]>(kStripes)) {}

KeyIndex::~KeyIndex() {
  for_each([this](StoredKey key, std::uint32_t) { release(key); });
  for (std::size_t s = 0; s < kStripes; ++s) {
    FreeEntries()(stripes_[s].entries.load(std::memory_order_relaxed));
  }
}

std::size_t KeyIndex::bytes() const noexcept {
  return sizeof(*this) + kStripes * sizeof(Stripe) + direct_.allocated_bytes() +
         entry_bytes_.load(std::memory_order_relaxed) +
         record_bytes_.load(std::memory_order_relaxed);
}

std::uint64_t KeyIndex::hash(const KeySpan& keys, std::size_t i) const noexcept {
  assert(keys.type() == type_);
  assert(i < keys.size());
  return hash_of(hash_, keys, i);
}

KeyIndex::Entries KeyIndex::allocate(std::size_t capacity) {
  if (capacity > kMaxCapacity) {
    throw Error(ErrorCode::kLimit, "a stripe of a key index would exceed 2^32 entries");
  }
  void* const memory =
      ::operator new (capacity * sizeof(Entry), std::align_val_t{simd::kCacheLineBytes});
  Entries entries(static_cast<Entry*>(memory));
  std::uninitialized_fill_n(entries.get(), capacity, Entry{StoredKey{}, kNoValue, 0});
  return entries;
}

// Into a table that has a free entry and not this key.
void KeyIndex::place(Entry* entries, std::uint32_t capacity, const Entry& entry) noexcept {
  std::uint32_t at = home_of(entry.tag, capacity);
  while (entries[at].value != kNoValue) {
    at = next_to(at, capacity);
  }
  entries[at] = entry;
}

template <class Matches>
KeyIndex::Entry* KeyIndex::lookup(const Stripe& stripe, std::uint32_t tag,
                                  const Matches& matches) noexcept {
  Entry* const entries = stripe.entries.load(std::memory_order_relaxed);
  if (entries == nullptr) {
    return nullptr;
  }
  const std::uint32_t capacity = stripe.capacity.load(std::memory_order_relaxed);
  for (std::uint32_t at = home_of(tag, capacity); entries[at].value != kNoValue;
       at = next_to(at, capacity)) {
    if (matches(entries[at])) {
      return entries + at;
    }
  }
  return nullptr;
}

KeyIndex::Entry* KeyIndex::lookup(const Stripe& stripe, std::uint64_t hash, const KeySpan& keys,
                                  std::size_t i) const noexcept {
  const std::uint32_t tag = tag_of(hash);
  if (type_ == KeyType::kInt64) {
    const StoredKey wanted{static_cast<std::uint64_t>(keys.int_at(i))};
    return lookup(stripe, tag, [wanted](const Entry& entry) { return entry.key == wanted; });
  }
  const std::string_view wanted = keys.string_at(i);
  return lookup(stripe, tag, [wanted, tag](const Entry& entry) {
    return entry.tag == tag && equal_bytes(string_of(entry.key), wanted);
  });
}

void KeyIndex::prefetch_home(std::uint64_t hash) const noexcept {
  const Stripe& stripe = stripe_of(hash);
  // Without the lock these two may belong to different tables; a prefetch of a wrong address is
  // harmless.
  const std::uint32_t capacity = stripe.capacity.load(std::memory_order_relaxed);
  const Entry* const entries = stripe.entries.load(std::memory_order_relaxed);
  const auto address = reinterpret_cast<std::uintptr_t>(entries) +
                       std::uintptr_t{home_of(tag_of(hash), capacity)} * sizeof(Entry);
  simd::prefetch(reinterpret_cast<const void*>(address));  // NOLINT: never dereferenced
}

void KeyIndex::prefetch(const KeySpan& keys, std::size_t i) const noexcept {
  if (type_ == KeyType::kInt64 && is_direct(keys.int_at(i))) {
    simd::prefetch(&direct_[static_cast<std::size_t>(keys.int_at(i))]);
    return;
  }
  prefetch_home(hash(keys, i));
}

std::uint32_t KeyIndex::find_hashed(std::uint64_t hash, const KeySpan& keys,
                                    std::size_t i) const noexcept {
  const Stripe& stripe = stripe_of(hash);
  const std::shared_lock<SpinRwLock> guard(stripe.lock);
  const Entry* const entry = lookup(stripe, hash, keys, i);
  return entry == nullptr ? kNoValue : entry->value;
}

std::uint32_t KeyIndex::find_one(const KeySpan& keys, std::size_t i) const noexcept {
  if (type_ == KeyType::kInt64) {
    const std::uint32_t value = find_direct(static_cast<std::uint64_t>(keys.int_at(i)));
    if (value != kNoValue || is_all_direct()) return value;
  }
  return find_hashed(hash(keys, i), keys, i);
}

void KeyIndex::find(const KeySpan& keys, std::span<std::uint32_t> out) const noexcept {
  assert(out.size() == keys.size());
  if (type_ == KeyType::kInt64 && direct_end_.load(std::memory_order_relaxed) > 0) {
    constexpr std::size_t kAhead = 16;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (i + kAhead < keys.size()) prefetch(keys, i + kAhead);
      out[i] = find_one(keys, i);
    }
    return;
  }
  constexpr std::size_t kBlock = 64;
  std::uint64_t hashes[kBlock];
  for (std::size_t first = 0; first < keys.size(); first += kBlock) {
    const std::size_t count = std::min(kBlock, keys.size() - first);
    for (std::size_t b = 0; b < count; ++b) {
      hashes[b] = hash(keys, first + b);
      prefetch_home(hashes[b]);
    }
    for (std::size_t b = 0; b < count; ++b) {
      out[first + b] = find_hashed(hashes[b], keys, first + b);
    }
  }
}

StoredKey KeyIndex::store(const KeySpan& keys, std::size_t i) {
  if (type_ == KeyType::kInt64) {
    return StoredKey{static_cast<std::uint64_t>(keys.int_at(i))};
  }
  const std::string_view bytes = keys.string_at(i);
  if (bytes.size() > kMaxStringBytes) {
    throw Error(ErrorCode::kLimit, "a key of " + std::to_string(bytes.size()) + " bytes; at most " +
                                       std::to_string(kMaxStringBytes));
  }
  void* const memory = std::malloc(record_bytes(bytes.size()));
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  Record* const record = new (memory) Record{static_cast<std::uint32_t>(bytes.size())};
  if (!bytes.empty()) {
    std::memcpy(record + 1, bytes.data(), bytes.size());
  }
  record_bytes_.fetch_add(record_bytes(bytes.size()), std::memory_order_relaxed);
  return StoredKey{reinterpret_cast<std::uintptr_t>(record)};
}

void KeyIndex::release(StoredKey key) noexcept {
  if (type_ == KeyType::kInt64) {
    return;
  }
  record_bytes_.fetch_sub(record_bytes(record_of(key)->length), std::memory_order_relaxed);
  std::free(record_of(key));
}

// The new table is filled beside the old one, so finders wait for the swap of a pointer only.
void KeyIndex::grow(Stripe& stripe, std::size_t capacity) {
  Entries fresh = allocate(capacity);
  const auto entries = static_cast<std::uint32_t>(capacity);
  Entry* const old = stripe.entries.load(std::memory_order_relaxed);
  const std::size_t old_capacity = stripe.capacity.load(std::memory_order_relaxed);
  for (std::size_t e = 0; e < old_capacity; ++e) {
    if (old[e].value != kNoValue) {
      place(fresh.get(), entries, old[e]);
    }
  }
  {
    const std::scoped_lock guard(stripe.lock);
    stripe.entries.store(fresh.release(), std::memory_order_relaxed);
    stripe.capacity.store(entries, std::memory_order_relaxed);
  }
  FreeEntries()(old);
  entry_bytes_.fetch_add((capacity - old_capacity) * sizeof(Entry), std::memory_order_relaxed);
}

void KeyIndex::grow_direct(std::int64_t key, std::size_t keys) {
  if (key < 0) return;
  const auto place = static_cast<std::size_t>(key);
  const std::size_t end = direct_end_.load(std::memory_order_relaxed);
  const std::size_t most = std::min(kMaxDirect, 2 * keys + kDirectSpare);
  if (place < end || place >= most) return;
  // What is in the table stays there, so the array may only be made longer by what is not.
  const std::size_t grown = std::max(place + 1, std::min(most, end + end / 8));
  direct_.ensure(grown);
  direct_end_.store(grown, std::memory_order_release);
}

StoredKey KeyIndex::assign(const KeySpan& keys, std::size_t i, std::uint32_t value) {
  assert(value != kNoValue);
  if (type_ == KeyType::kInt64) {
    const std::int64_t key = keys.int_at(i);
    const bool hashed = !is_all_direct() && find_hashed(hash(keys, i), keys, i) != kNoValue;
    if (!hashed) grow_direct(key, size());
    if (!hashed && is_direct(key)) {
      std::atomic<std::uint32_t>& place = direct_[static_cast<std::size_t>(key)];
      if (place.load(std::memory_order_relaxed) == 0) {
        size_.fetch_add(1, std::memory_order_relaxed);
      }
      place.store(value + 1, std::memory_order_release);
      return StoredKey{static_cast<std::uint64_t>(key)};
    }
  }
  const std::uint64_t key_hash = hash(keys, i);
  Stripe& stripe = stripe_of(key_hash);
  if (Entry* const entry = lookup(stripe, key_hash, keys, i)) {
    const std::scoped_lock guard(stripe.lock);
    entry->value = value;
    return entry->key;
  }
  // What can throw comes before what changes.
  const std::size_t capacity = stripe.capacity.load(std::memory_order_relaxed);
  if (is_full(stripe.used, capacity)) grow(stripe, larger(capacity));
  const StoredKey key = store(keys, i);
  {
    const std::scoped_lock guard(stripe.lock);
    place(stripe.entries.load(std::memory_order_relaxed),
          stripe.capacity.load(std::memory_order_relaxed), Entry{key, value, tag_of(key_hash)});
  }
  ++stripe.used;
  table_used_.fetch_add(1, std::memory_order_release);
  size_.fetch_add(1, std::memory_order_relaxed);
  return key;
}

// Closes the gap by moving back the entries that may stand nearer to their home.
void KeyIndex::remove(Stripe& stripe, Entry* entry) noexcept {
  Entry* const entries = stripe.entries.load(std::memory_order_relaxed);
  const std::uint32_t capacity = stripe.capacity.load(std::memory_order_relaxed);
  auto gap = static_cast<std::uint32_t>(entry - entries);
  {
    const std::scoped_lock guard(stripe.lock);
    for (std::uint32_t at = next_to(gap, capacity); entries[at].value != kNoValue;
         at = next_to(at, capacity)) {
      const std::uint32_t home = home_of(entries[at].tag, capacity);
      if (steps(home, at, capacity) >= steps(gap, at, capacity)) {
        entries[gap] = entries[at];
        gap = at;
      }
    }
    entries[gap].value = kNoValue;
  }
  --stripe.used;
  table_used_.fetch_sub(1, std::memory_order_release);
  size_.fetch_sub(1, std::memory_order_relaxed);
}

bool KeyIndex::erase_direct(std::uint64_t key) noexcept {
  if (find_direct(key) == kNoValue) return false;
  direct_[key].store(0, std::memory_order_release);
  size_.fetch_sub(1, std::memory_order_relaxed);
  return true;
}

std::optional<StoredKey> KeyIndex::erase(const KeySpan& keys, std::size_t i) noexcept {
  if (type_ == KeyType::kInt64 && erase_direct(static_cast<std::uint64_t>(keys.int_at(i)))) {
    return StoredKey{static_cast<std::uint64_t>(keys.int_at(i))};
  }
  const std::uint64_t key_hash = hash(keys, i);
  Stripe& stripe = stripe_of(key_hash);
  Entry* const entry = lookup(stripe, key_hash, keys, i);
  if (entry == nullptr) {
    return std::nullopt;
  }
  const StoredKey key = entry->key;
  remove(stripe, entry);
  return key;
}

bool KeyIndex::erase(StoredKey key) noexcept {
  if (type_ == KeyType::kInt64 && erase_direct(static_cast<std::uint64_t>(key))) return true;
  const std::uint64_t key_hash =
      type_ == KeyType::kInt64 ? hash_(int_of(key)) : hash_(string_of(key));
  Stripe& stripe = stripe_of(key_hash);
  Entry* const entry =
      lookup(stripe, tag_of(key_hash), [key](const Entry& at) { return at.key == key; });
  if (entry == nullptr) {
    return false;
  }
  remove(stripe, entry);
  return true;
}

void KeyIndex::reserve(std::size_t keys) {
  if (type_ == KeyType::kString) reserve_table(keys);
}

void KeyIndex::reserve(const KeySpan& keys, std::size_t fresh) {
  if (type_ == KeyType::kString) {
    reserve_table(size() + fresh);
    return;
  }
  std::size_t others = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    grow_direct(keys.int_at(i), size() + fresh);
    others += is_direct(keys.int_at(i)) ? 0 : 1;
  }
  if (others == 0) return;
  reserve_table(table_used_.load(std::memory_order_relaxed) + std::min(others, fresh));
}

void KeyIndex::reserve_table(std::size_t keys) {
  // Hashes spread keys over stripes like dice: four standard deviations above the mean.
  const double mean = static_cast<double>(keys) / kStripes;
  const auto wanted = static_cast<std::size_t>(std::ceil(mean + 4 * std::sqrt(mean)));
  const std::size_t least = wanted * 4 / 3 + 1;
  for (std::size_t s = 0; s < kStripes && keys > 0; ++s) {
    const std::size_t capacity = stripes_[s].capacity.load(std::memory_order_relaxed);
    if (capacity < least) grow(stripes_[s], std::max((least + 3) / 4 * 4, larger(capacity)));
  }
}

// A table of positions into the batch: unlike a KeyIndex it copies no key.
void first_occurrence(const KeySpan& keys, std::uint64_t seed, std::span<std::uint32_t> out) {
  assert(out.size() == keys.size());
  if (keys.size() >= kNoValue) {
    throw Error(ErrorCode::kLimit, "a batch of " + std::to_string(keys.size()) + " keys; at most " +
                                       std::to_string(kNoValue - 1));
  }
  struct Seen {
    std::uint32_t position = kNoValue;
    std::uint32_t tag = 0;
  };
  const SeededHash hash(seed);
  std::vector<std::uint64_t> hashes(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    hashes[i] = hash_of(hash, keys, i);
  }
  std::vector<Seen> table(std::bit_ceil(keys.size() * 3 / 2 + 1));
  const std::size_t mask = table.size() - 1;
  constexpr std::size_t kAhead = 16;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (i + kAhead < keys.size()) {
      simd::prefetch(&table[hashes[i + kAhead] & mask]);
    }
    const auto tag = static_cast<std::uint32_t>(hashes[i] >> 32);
    std::size_t at = hashes[i] & mask;
    while (table[at].position != kNoValue &&
           !(table[at].tag == tag && equal_keys(keys, table[at].position, i))) {
      at = (at + 1) & mask;
    }
    if (table[at].position == kNoValue) {
      table[at] = {static_cast<std::uint32_t>(i), tag};
    }
    out[i] = table[at].position;
  }
}

}  // namespace upvec
