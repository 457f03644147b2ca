// Scratch: what one thread needs during one search or plan, kept for reuse.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "codes.hpp"
#include "counters.hpp"
#include "planes.hpp"
#include "simd/prefetch.hpp"

namespace upvec {

struct Neighbor {
  float distance;
  Slot slot;

  // Ties are broken by slot, so that every order that a graph depends on is a total one.
  friend bool operator<(const Neighbor& a, const Neighbor& b) noexcept {
    return a.distance < b.distance || (a.distance == b.distance && a.slot < b.slot);
  }
};

// The slots met by one search. One byte a slot: an earlier prototype found bits as fast, two bytes
// slower by 3 % and a hash set by 10 %. Clearing is needed only every 255th search.
class VisitedSet {
 public:
  void begin(std::size_t slots) {
    if (slots > marks_.size()) {
      marks_.assign(std::max(slots, marks_.size() + marks_.size() / 2), 0);
      mark_ = 0;
    }
    if (++mark_ == 0) {
      std::fill(marks_.begin(), marks_.end(), std::uint8_t{0});
      mark_ = 1;
    }
    limit_ = slots;
  }
  // 1 the first time that a slot is met, else 0; meant to be added, not branched on. Slots that are
  // newer than the search count as met.
  std::size_t insert(Slot slot) noexcept {
    if (slot >= limit_) return 0;
    const std::size_t fresh = marks_[slot] != mark_ ? 1 : 0;
    marks_[slot] = mark_;
    return fresh;
  }
  // Inserts the slots of a list, which ends at the first zero or after cap words; writes those that
  // are new to fresh (room for cap) and returns how many they are. `Word` is an atomic of a slot.
  template <typename Word>
  std::size_t insert_list(const Word* words, std::size_t cap, Slot* fresh) noexcept {
    // In registers: the marks are bytes, which might overlap anything else.
    std::uint8_t* const marks = marks_.data();
    const std::uint8_t mark = mark_;
    const std::size_t limit = limit_;
    std::size_t count = 0;
    for (std::size_t i = 0; i < cap; ++i) {
      const Slot slot = words[i].load(std::memory_order_acquire);
      if (slot == 0) break;
      if (slot >= limit) continue;
      fresh[count] = slot;
      count += marks[slot] != mark ? 1 : 0;
      marks[slot] = mark;
    }
    return count;
  }
  // As insert_list, but nothing is marked.
  template <typename Word>
  std::size_t unmet(const Word* words, std::size_t cap, Slot* fresh) const noexcept {
    const std::uint8_t* const marks = marks_.data();
    const std::uint8_t mark = mark_;
    const std::size_t limit = limit_;
    std::size_t count = 0;
    for (std::size_t i = 0; i < cap; ++i) {
      const Slot slot = words[i].load(std::memory_order_acquire);
      if (slot == 0) break;
      if (slot >= limit) continue;
      fresh[count] = slot;
      count += marks[slot] != mark ? 1 : 0;
    }
    return count;
  }

 private:
  std::vector<std::uint8_t> marks_;
  std::uint8_t mark_ = 0;
  std::size_t limit_ = 0;
};

// The best `capacity` candidates in ascending order, with a mark on those already expanded. Only
// the best `width` of them get expanded: a beam of that width which remembers more than it follows.
// An entry is one word that sorts as (distance, slot): the distance's bits, made to order as
// unsigned numbers do, then the slot, then the mark. A NaN sorts last.
class CandidatePool {
 public:
  void begin(std::size_t capacity) { begin(capacity, capacity); }
  void begin(std::size_t capacity, std::size_t width) {
    if (entries_.size() < capacity + 1) entries_.resize(capacity + 1);
    capacity_ = capacity;
    width_ = width;
    size_ = 0;
    cursor_ = 0;
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool is_full() const noexcept { return size_ == capacity_; }
  [[nodiscard]] Neighbor operator[](std::size_t i) const noexcept {
    return {distance_of(entries_[i]), slot_of(entries_[i])};
  }

  // Returns how many entries, at most, will be expanded before it; kNotKept if it was not good
  // enough to stay.
  std::size_t insert(Neighbor candidate) noexcept {
    const std::uint64_t entry = entry_of(candidate);
    const bool full = size_ == capacity_;
    if (full && entry >= entries_[size_ - 1]) return kNotKept;
    const std::size_t place = place_of(entry);
    const std::size_t tail = size_ - place - (full ? 1 : 0);
    std::memmove(&entries_[place + 1], &entries_[place], tail * sizeof entry);
    entries_[place] = entry;
    size_ += full ? 0 : 1;
    const std::size_t before = place - std::min(cursor_, place);
    cursor_ = std::min(cursor_, place);
    return before;
  }
  static constexpr std::size_t kNotKept = SIZE_MAX;
  // Whether insert() would keep it.
  [[nodiscard]] bool would_keep(Neighbor candidate) const noexcept {
    return size_ < capacity_ || entry_of(candidate) < entries_[size_ - 1];
  }

  // The nearest candidate to be expanded yet, now marked; kNoSlot when none is left.
  Slot pop() noexcept {
    const Slot slot = peek();
    if (slot != kNoSlot) entries_[cursor_++] |= kExpanded;
    return slot;
  }
  // What pop() would return.
  Slot peek() noexcept {
    const std::size_t end = std::min(size_, width_);
    while (cursor_ < end && (entries_[cursor_] & kExpanded) != 0) ++cursor_;
    return cursor_ >= end ? kNoSlot : slot_of(entries_[cursor_]);
  }
  // What peek() would return after pop(), if nothing is inserted meanwhile.
  [[nodiscard]] Slot peek_second() const noexcept {
    const std::size_t end = std::min(size_, width_);
    std::size_t second = cursor_ + 1;
    while (second < end && (entries_[second] & kExpanded) != 0) ++second;
    return second >= end ? kNoSlot : slot_of(entries_[second]);
  }

 private:
  static constexpr std::uint64_t kExpanded = 1;
  static constexpr std::uint32_t kSign = std::uint32_t{1} << 31;

  // How many entries come before this one. Counted in two steps and not halved: which way a step of
  // a binary search goes no predictor can learn, and compilers make a branch of it. At 200 entries
  // 20 ns an insert against 40 ns (Zen 4).
  [[nodiscard]] std::size_t place_of(std::uint64_t entry) const noexcept {
    constexpr std::size_t kStep = 16;
    const std::uint64_t* const entries = entries_.data();
    std::size_t steps = 0;
    for (std::size_t i = 1; i <= size_ / kStep; ++i) {
      steps += entries[i * kStep - 1] < entry ? 1 : 0;
    }
    std::size_t place = steps * kStep;
    const std::size_t end = std::min(place + kStep, size_);
    for (std::size_t i = place; i < end; ++i) place += entries[i] < entry ? 1 : 0;
    return place;
  }

  static std::uint64_t entry_of(Neighbor neighbor) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(neighbor.distance);
    const std::uint32_t ordered = (bits & kSign) != 0 ? ~bits : bits | kSign;
    return std::uint64_t{ordered} << 32 | std::uint64_t{neighbor.slot} << 1;
  }
  static float distance_of(std::uint64_t entry) noexcept {
    const auto ordered = static_cast<std::uint32_t>(entry >> 32);
    return std::bit_cast<float>((ordered & kSign) != 0 ? ordered & ~kSign : ~ordered);
  }
  static Slot slot_of(std::uint64_t entry) noexcept { return static_cast<Slot>(entry) >> 1; }

  std::vector<std::uint64_t> entries_;
  std::size_t capacity_ = 0;
  std::size_t width_ = 0;
  std::size_t size_ = 0;
  std::size_t cursor_ = 0;
};

// A vector on a cache line of its own, padded with zeros: what the kernels ask of both their sides.
class PaddedVector {
 public:
  // Room for padded_dim floats; the contents are kept only if the room was enough already.
  float* reserve(std::size_t padded_dim) {
    if (size_ < padded_dim) {
      floats_.reset(static_cast<float*>(::operator new(padded_dim * sizeof(float), kAlign)));
      size_ = padded_dim;
    }
    return floats_.get();
  }
  [[nodiscard]] float* data() const noexcept { return floats_.get(); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(float* floats) const noexcept { ::operator delete(floats, kAlign); }
  };
  std::unique_ptr<float, Free> floats_;
  std::size_t size_ = 0;
};

struct Scratch {
  VisitedSet visited;
  CandidatePool pool;
  CandidatePool accepted;  // of a filtered search
  CandidatePool shown;     // of a search in an older version
  Counters counters;
  std::vector<Slot> slots;
  std::vector<Slot> next_slots;
  std::vector<Point> next_points;
  std::vector<Slot> linked;
  std::vector<Point> points;
  std::vector<float> distances;
  std::vector<Neighbor> candidates;
  std::vector<Neighbor> moving;
  std::vector<Neighbor> kept;
  std::vector<std::byte> query_code;
};

// Lends scratches to threads. Taking one costs a short lock a call, not a query.
class ScratchPool {
 public:
  class Loan {
   public:
    Loan(ScratchPool& owner, std::unique_ptr<Scratch> scratch)
        : owner_(&owner), scratch_(std::move(scratch)) {}
    Loan(Loan&&) noexcept = default;
    Loan& operator=(Loan&&) = delete;
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ~Loan() {
      if (scratch_) owner_->give_back(std::move(scratch_));
    }
    Scratch& operator*() const noexcept { return *scratch_; }
    Scratch* operator->() const noexcept { return scratch_.get(); }

   private:
    ScratchPool* owner_;
    std::unique_ptr<Scratch> scratch_;
  };

  Loan take() {
    const std::scoped_lock lock(mutex_);
    if (idle_.empty()) return {*this, std::make_unique<Scratch>()};
    std::unique_ptr<Scratch> scratch = std::move(idle_.back());
    idle_.pop_back();
    return {*this, std::move(scratch)};
  }
  [[nodiscard]] Counters counters() const {
    const std::scoped_lock lock(mutex_);
    return total_;
  }

 private:
  void give_back(std::unique_ptr<Scratch> scratch) noexcept {
    const std::scoped_lock lock(mutex_);
    total_.add(scratch->counters);
    scratch->counters = {};
    try {
      idle_.push_back(std::move(scratch));
    } catch (...) {  // no room to keep it: it is freed instead
    }
  }
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
  Counters total_;
};

}  // namespace upvec
