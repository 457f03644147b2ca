// Scratch: what one thread needs during one search or plan, kept for reuse.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "codes.hpp"
#include "counters.hpp"
#include "hits.hpp"
#include "neighbor.hpp"
#include "planes.hpp"
#include "simd/prefetch.hpp"

namespace upvec {

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
// An entry is a word of PackedNeighbor, whose free bit is the mark.
//
// What comes goes to its place in the sorted entries. In a pool of many that would move too much:
// there it goes to its place in a short list of fresh ones, which is merged with the others when it
// is full, or someone looks. Searches of 50,000 rows of 128 dimensions (Zen 4), the other way as a
// ratio to that: ef 768 1.05, 1,024 1.07, 2,048 1.18, 20,000 1.62.
class CandidatePool {
 public:
  void begin(std::size_t capacity) { begin(capacity, capacity); }
  void begin(std::size_t capacity, std::size_t width) {
    if (entries_.size() < capacity + 1) entries_.resize(capacity + 1);
    capacity_ = capacity;
    width_ = width;
    size_ = 0;
    cursor_ = 0;
    collects_ = capacity > kManyEntries && width == capacity;
    if (collects_) fresh_.resize(kFresh);
    fresh_size_ = 0;
    fresh_cursor_ = 0;
    bound_ = std::numeric_limits<float>::infinity();
  }
  // From now on all that is remembered gets expanded.
  void widen() noexcept {
    width_ = capacity_;
    cursor_ = 0;
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_ + fresh_size_; }
  [[nodiscard]] bool is_full() const noexcept { return size() == capacity_; }
  [[nodiscard]] Neighbor operator[](std::size_t i) const noexcept {
    if (fresh_size_ != 0) merge();
    return PackedNeighbor::unpack(entries_[i]);
  }

  // Returns how many entries, at most, will be expanded before it (in a pool of many: of those that
  // came lately); kNotKept if it was not good enough to stay.
  std::size_t insert(Neighbor candidate) noexcept {
    return candidate.distance > bound_ ? kNotKept : insert_near(candidate);
  }
  static constexpr std::size_t kNotKept = SIZE_MAX;

  // The nearest candidate to be expanded yet, now marked; kNoSlot when none is left.
  Slot pop() noexcept {
    const Slot slot = peek();
    if (slot == kNoSlot) return slot;
    if (fresh_is_next()) {
      fresh_[fresh_cursor_++] |= kExpanded;
    } else {
      entries_[cursor_++] |= kExpanded;
    }
    return slot;
  }
  // What pop() would return.
  Slot peek() noexcept {
    const std::size_t end = std::min(size_, width_);
    while (cursor_ < end && (entries_[cursor_] & kExpanded) != 0) ++cursor_;
    while (fresh_cursor_ < fresh_size_ && (fresh_[fresh_cursor_] & kExpanded) != 0) ++fresh_cursor_;
    if (fresh_is_next()) return PackedNeighbor::slot(fresh_[fresh_cursor_]);
    return cursor_ >= end ? kNoSlot : PackedNeighbor::slot(entries_[cursor_]);
  }
  // What peek() would return after pop(), if nothing is inserted meanwhile; kNoSlot in a pool of
  // many.
  [[nodiscard]] Slot peek_second() const noexcept {
    if (collects_) return kNoSlot;
    const std::size_t end = std::min(size_, width_);
    std::size_t second = cursor_ + 1;
    while (second < end && (entries_[second] & kExpanded) != 0) ++second;
    return second >= end ? kNoSlot : PackedNeighbor::slot(entries_[second]);
  }

 private:
  using Entries = std::vector<std::uint64_t>;

  [[gnu::noinline]] std::size_t insert_near(Neighbor candidate) noexcept {
    const std::uint64_t entry = PackedNeighbor::pack(candidate);
    if (collects_) return collect(entry);
    const bool full = size_ == capacity_;
    if (full && entry >= entries_[size_ - 1]) return kNotKept;
    size_ -= full ? 1 : 0;
    const std::size_t place = put(entry, entries_, size_);
    if (size_ == capacity_) bound_ = PackedNeighbor::distance(entries_[size_ - 1]);
    return behind(place, cursor_);
  }
  static constexpr std::uint64_t kExpanded = 1;
  static constexpr std::size_t kManyEntries = 768;
  static constexpr std::size_t kFresh = 256;

  // Puts an entry where it belongs among `size` sorted ones; returns where that is.
  static std::size_t put(std::uint64_t entry, Entries& entries, std::size_t& size) noexcept {
    const std::size_t place = place_of(entry, entries, size);
    std::memmove(&entries[place + 1], &entries[place], (size - place) * sizeof entry);
    entries[place] = entry;
    ++size;
    return place;
  }
  // How many of `size` entries come before this one. Counted in two steps and not halved: which way
  // a step of a binary search goes no predictor can learn, and compilers make a branch of it. At
  // 200 entries 20 ns an insert against 40 ns (Zen 4).
  static std::size_t place_of(std::uint64_t entry, const Entries& all, std::size_t size) noexcept {
    constexpr std::size_t kStep = 16;
    const std::uint64_t* const entries = all.data();
    std::size_t steps = 0;
    for (std::size_t i = 1; i <= size / kStep; ++i) {
      steps += entries[i * kStep - 1] < entry ? 1 : 0;
    }
    std::size_t place = steps * kStep;
    const std::size_t end = std::min(place + kStep, size);
    for (std::size_t i = place; i < end; ++i) place += entries[i] < entry ? 1 : 0;
    return place;
  }

  // How far a place is behind the cursor, which moves back to it if it is before.
  static std::size_t behind(std::size_t place, std::size_t& cursor) noexcept {
    const std::size_t before = place - std::min(cursor, place);
    cursor = std::min(cursor, place);
    return before;
  }

  std::size_t collect(std::uint64_t entry) noexcept {
    if (is_full()) {
      const std::uint64_t last = size_ > 0 ? entries_[size_ - 1] : 0;
      const std::uint64_t last_fresh = fresh_size_ > 0 ? fresh_[fresh_size_ - 1] : 0;
      if (entry >= std::max(last, last_fresh)) return kNotKept;
      --(last > last_fresh ? size_ : fresh_size_);
    }
    if (fresh_size_ == kFresh - 1) merge();
    return behind(put(entry, fresh_, fresh_size_), fresh_cursor_);
  }
  [[nodiscard]] bool fresh_is_next() const noexcept {
    return fresh_cursor_ < fresh_size_ &&
           (cursor_ >= size_ || fresh_[fresh_cursor_] < entries_[cursor_]);
  }
  // From the back, where there is room: what comes before all fresh entries stays where it is.
  void merge() const noexcept {
    std::size_t to = size_ + fresh_size_;
    std::size_t from = size_;
    size_ = to;
    while (fresh_size_ > 0) {
      const std::uint64_t fresh = fresh_[fresh_size_ - 1];
      if (from > 0 && entries_[from - 1] > fresh) {
        entries_[--to] = entries_[--from];
        continue;
      }
      entries_[--to] = fresh;
      if (--fresh_size_ == fresh_cursor_) cursor_ = std::min(cursor_, to);
    }
    fresh_cursor_ = 0;
  }

  // Mutable: that some entries wait to be merged is nobody's business.
  mutable Entries entries_;
  mutable Entries fresh_;
  std::size_t capacity_ = 0;
  std::size_t width_ = 0;
  bool collects_ = false;
  // What is farther does not stay; infinity if that is not known. Most of what comes is farther: by
  // this look alone, where it is inlined, searches are faster by 3 to 6 % (98,000 x 384 texts and
  // 200,000 x 128 SIFT, Zen 4).
  float bound_ = 0.0F;
  mutable std::size_t size_ = 0;
  mutable std::size_t cursor_ = 0;  // what comes before is expanded
  mutable std::size_t fresh_size_ = 0;
  mutable std::size_t fresh_cursor_ = 0;
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
  std::vector<Neighbor> inside;  // of a range search
  std::vector<std::byte> query_code;
  float widest_error = 0.0F;  // of codes, in what was last measured again
  PaddedVector query;         // of a call with one
  std::vector<Hit> hits;      // of one query
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
