// Index from keys to 32-bit values: a hash table, and for small integers an array.
//
// Integers that count from 0 are stored by place, 4 bytes a key instead of some 23 in the table: an
// integer goes there if it is below twice the number of keys and some (see kDirectSpare), so
// that half of the array is used at least, once it is larger than that. It stays where it was put.
//
// Thread safety: find, find_one and hash may run on any thread at any time. Everything else
// belongs to one writer at a time, which may run while others find. A find that runs beside a
// change of its key answers as of before or after the change.
//
// Invariants: a key is in the stripe that the top bits of its hash choose, reachable from its home
// entry by walking over occupied entries only (erase shifts entries back; there are no
// tombstones). An integer is in the table or in the array, not in both. The bytes of a string live
// in one heap record whose address does not change while the key is in the index, however much the
// index grows.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "hash.hpp"
#include "planes.hpp"
#include "spin_rw_lock.hpp"
#include "upvec/types.hpp"

namespace upvec {

constexpr std::uint32_t kNoValue = 0xffffffff;

// A key as the index keeps it: the integer itself, or the address of the record of the string.
enum class StoredKey : std::uint64_t {};

class KeyIndex {
 public:
  KeyIndex(KeyType type, std::uint64_t seed);
  ~KeyIndex();
  KeyIndex(const KeyIndex&) = delete;
  KeyIndex& operator=(const KeyIndex&) = delete;

  [[nodiscard]] KeyType type() const noexcept { return type_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  // Memory held, with the records of erased strings that are not yet released.
  [[nodiscard]] std::size_t bytes() const noexcept;

  [[nodiscard]] std::uint64_t hash(const KeySpan& keys, std::size_t i) const noexcept;

  // out[i] = value of key i, or kNoValue. out is as long as keys.
  void find(const KeySpan& keys, std::span<std::uint32_t> out) const noexcept;
  [[nodiscard]] std::uint32_t find_one(const KeySpan& keys, std::size_t i) const noexcept;
  // Starts loading what find_one, assign or erase of this key will look at first.
  void prefetch(const KeySpan& keys, std::size_t i) const noexcept;

  // Inserts the key or overwrites its value, which must not be kNoValue. Throws
  // Error(kLimit) for a string longer than 2^32 - 1 bytes, and std::bad_alloc; neither changes
  // anything.
  StoredKey assign(const KeySpan& keys, std::size_t i, std::uint32_t value);

  // Takes the key out, if it is there. Its record is detached, not freed: readers may still look
  // at it. Pass it to release() once none can.
  std::optional<StoredKey> erase(const KeySpan& keys, std::size_t i) noexcept;
  bool erase(StoredKey key) noexcept;

  // Frees the record of an erased key. May be called from any thread.
  void release(StoredKey key) noexcept;

  // Makes room for so many strings in all. Integers get theirs as they come.
  void reserve(std::size_t keys);
  // Makes room for the keys of a batch, of which so many are new: assign() of them will not fail
  // for lack of it, unless they are strings and there is none for their bytes.
  void reserve(const KeySpan& keys, std::size_t fresh);

  // Calls visit(StoredKey, std::uint32_t value) for every key, in no meaningful order.
  template <class Visit>
  void for_each(Visit&& visit) const;
  // The value of an integer that stands in the array; kNoValue if it does not.
  [[nodiscard]] std::uint32_t find_direct(std::uint64_t key) const noexcept {
    if (key >= direct_end_.load(std::memory_order_acquire)) return kNoValue;
    return direct_[key].load(std::memory_order_acquire) - 1;
  }
  // Whether no key stands in the table.
  [[nodiscard]] bool is_all_direct() const noexcept {
    return table_used_.load(std::memory_order_acquire) == 0;
  }

  [[nodiscard]] static std::int64_t int_of(StoredKey key) noexcept {
    return static_cast<std::int64_t>(key);
  }
  [[nodiscard]] static std::string_view string_of(StoredKey key) noexcept;

 private:
  struct Entry {
    StoredKey key;
    std::uint32_t value;  // kNoValue: the entry is free
    std::uint32_t tag;    // low half of the hash: the home, and a filter before comparing strings
  };
  struct FreeEntries {
    void operator()(Entry* entries) const noexcept;
  };
  using Entries = std::unique_ptr<Entry[], FreeEntries>;

  // On lines of its own, so that finders of one stripe do not disturb those of the next.
  struct alignas(64) Stripe {
    mutable SpinRwLock lock;
    // Atomic only for prefetch(), which looks without the lock and follows neither.
    std::atomic<std::uint32_t> capacity = 0;
    std::atomic<Entry*> entries = nullptr;
    std::size_t used = 0;  // writer only
  };

  static constexpr unsigned kStripeBits = 6;
  static constexpr std::size_t kStripes = std::size_t{1} << kStripeBits;

  // What an array of few keys may waste: 16 KiB.
  static constexpr std::size_t kDirectSpare = 4096;
  static constexpr std::size_t kMaxDirect = kMaxSlots;

  [[nodiscard]] bool is_direct(std::int64_t key) const noexcept {
    return key >= 0 &&
           static_cast<std::uint64_t>(key) < direct_end_.load(std::memory_order_relaxed);
  }
  bool erase_direct(std::uint64_t key) noexcept;
  // Makes the array long enough for the key, if it is one for it when there are so many keys.
  void grow_direct(std::int64_t key, std::size_t keys);
  void reserve_table(std::size_t keys);

  static Entries allocate(std::size_t capacity);
  static void place(Entry* entries, std::uint32_t capacity, const Entry& entry) noexcept;
  template <class Matches>
  static Entry* lookup(const Stripe& stripe, std::uint32_t tag, const Matches& matches) noexcept;

  [[nodiscard]] Stripe& stripe_of(std::uint64_t hash) const noexcept {
    return stripes_[hash >> (64 - kStripeBits)];
  }
  void prefetch_home(std::uint64_t hash) const noexcept;
  [[nodiscard]] Entry* lookup(const Stripe& stripe, std::uint64_t hash, const KeySpan& keys,
                              std::size_t i) const noexcept;
  [[nodiscard]] std::uint32_t find_hashed(std::uint64_t hash, const KeySpan& keys,
                                          std::size_t i) const noexcept;
  StoredKey store(const KeySpan& keys, std::size_t i);
  void grow(Stripe& stripe, std::size_t capacity);
  void remove(Stripe& stripe, Entry* entry) noexcept;

  KeyType type_;
  SeededHash hash_;
  std::unique_ptr<Stripe[]> stripes_;
  Plane<std::atomic<std::uint32_t>> direct_;  // by key: its value + 1, or 0
  std::atomic<std::size_t> direct_end_ = 0;
  std::atomic<std::size_t> table_used_ = 0;
  std::atomic<std::size_t> size_ = 0;
  std::atomic<std::size_t> entry_bytes_ = 0;
  std::atomic<std::size_t> record_bytes_ = 0;
};

// out[i] = position of the first key of the batch that equals key i. out is as long as keys, which
// are fewer than 2^32 - 1, else throws Error(kLimit).
void first_occurrence(const KeySpan& keys, std::uint64_t seed, std::span<std::uint32_t> out);

template <class Visit>
void KeyIndex::for_each(Visit&& visit) const {
  const std::size_t direct_end = direct_end_.load(std::memory_order_relaxed);
  for (std::size_t key = 0; key < direct_end; ++key) {
    const std::uint32_t value = direct_[key].load(std::memory_order_relaxed) - 1;
    if (value != kNoValue) visit(StoredKey{key}, value);
  }
  for (std::size_t s = 0; s < kStripes; ++s) {
    const Entry* const entries = stripes_[s].entries.load(std::memory_order_relaxed);
    const std::size_t capacity = stripes_[s].capacity.load(std::memory_order_relaxed);
    for (std::size_t e = 0; e < capacity; ++e) {
      if (entries[e].value != kNoValue) {
        visit(entries[e].key, entries[e].value);
      }
    }
  }
}

}  // namespace upvec
