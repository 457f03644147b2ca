// Links: the directed edges of one or more levels, with exact in-neighbours.
//
// A list holds up to `cap` slots and ends at the first zero word. Words are stored with release and
// loaded with acquire, so a reader may run beside the writer at any time: it sees some mixture of
// the old and the new list, and every word of it is a slot whose record can be read. For an edge u
// -> v, either v -> u exists too, or u stands in the in-list of v. In-lists are kept in ascending
// order (so that a loaded index behaves like the one that was saved) and are the writer's alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "list_shadow.hpp"
#include "planes.hpp"
#include "simd/prefetch.hpp"

namespace upvec {

using LinkWord = std::atomic<std::uint32_t>;

// Variable-length sorted lists of slots in size-classed blocks. One list is changed by one thread
// at a time; different lists may be changed by different threads.
class InLists {
 public:
  InLists();
  ~InLists();
  InLists(const InLists&) = delete;
  InLists& operator=(const InLists&) = delete;

  void ensure(std::size_t lists) { heads_.ensure(lists); }
  [[nodiscard]] std::span<const Slot> get(std::size_t list) const;
  void insert(std::size_t list, Slot slot);  // no effect if present
  void erase(std::size_t list, Slot slot);   // no effect if absent
  void clear(std::size_t list);
  // Sends for what the other functions will look at; the head first, the slots when it is there.
  void prefetch_head(std::size_t list) const noexcept { simd::prefetch(&heads_[list]); }
  void prefetch_slots(std::size_t list) const noexcept {
    const std::span<const Slot> slots = get(list);
    if (!slots.empty()) simd::prefetch_lines(slots.data(), 2 * simd::kCacheLineBytes);
  }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept;

 private:
  struct Head {
    std::uint32_t block;       // chunk number in the upper 16 bits, 16-byte unit in the lower
    std::uint32_t size_class;  // size and class (see links.cpp); class 0 means no block
  };
  [[nodiscard]] Slot* data(std::uint32_t block) const noexcept;
  void move_to(Head& head, std::uint32_t size_class);
  std::uint32_t take_block(std::uint32_t size_class);
  void give_block(std::uint32_t block, std::uint32_t size_class);

  Plane<Head> heads_;
  std::mutex mutex_;  // guards all below
  Slot** chunks_;
  std::uint32_t chunk_count_ = 0;
  std::uint32_t open_chunk_ = 0;
  std::uint32_t open_unit_ = 0;
  std::size_t chunk_bytes_total_ = 0;
  std::vector<std::vector<std::uint32_t>> free_;
};

class LinkTable {
 public:
  explicit LinkTable(std::size_t cap);

  void ensure(std::size_t lists);
  [[nodiscard]] std::size_t cap() const noexcept { return cap_; }
  [[nodiscard]] const LinkWord* words(std::size_t list) const noexcept {
    return reinterpret_cast<const LinkWord*>(lists_.at(list));
  }
  // Copies the list to out (room for cap entries) and returns its length.
  std::size_t read(std::size_t list, Slot* out) const noexcept;
  [[nodiscard]] bool contains(std::size_t list, Slot slot) const noexcept;
  void write(std::size_t list, std::span<const Slot> slots) noexcept;
  // From now on write() keeps what it is about to change in the shadow, until that is removed. The
  // writer's.
  void add_shadow(ListShadow* shadow) { shadows_.push_back(shadow); }
  void remove_shadow(const ListShadow* shadow) noexcept { std::erase(shadows_, shadow); }

  InLists in;

  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    return lists_.allocated_bytes() + in.allocated_bytes();
  }

 private:
  std::size_t cap_;
  BytePlane lists_;
  std::vector<ListShadow*> shadows_;
};

}  // namespace upvec
