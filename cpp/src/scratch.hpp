// Scratch: what one thread needs during one search or plan, kept for reuse.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "planes.hpp"

namespace upvec {

struct Neighbor {
  float distance;
  Slot slot;

  // Ties are broken by slot, so that every order that a graph depends on is a total one.
  friend bool operator<(const Neighbor& a, const Neighbor& b) noexcept {
    return a.distance < b.distance || (a.distance == b.distance && a.slot < b.slot);
  }
};

// The slots met by one search. One byte a slot (measured beside 2 bytes, bits and a hash set by the
// search prototype: 1.03, 1.00, 1.02 and 0.91 of the queries per second); clearing is needed only every
// 255th search.
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
  // True the first time that a slot is met. Slots that are newer than the search count as met.
  bool insert(Slot slot) noexcept {
    if (slot >= limit_ || marks_[slot] == mark_) return false;
    marks_[slot] = mark_;
    return true;
  }

 private:
  std::vector<std::uint8_t> marks_;
  std::uint8_t mark_ = 0;
  std::size_t limit_ = 0;
};

// The best `capacity` candidates in ascending order, with a mark on those already expanded.
class CandidatePool {
 public:
  void begin(std::size_t capacity) {
    if (entries_.size() < capacity + 1) entries_.resize(capacity + 1);
    capacity_ = capacity;
    size_ = 0;
    cursor_ = 0;
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool full() const noexcept { return size_ == capacity_; }
  [[nodiscard]] float worst() const noexcept { return entries_[size_ - 1].distance; }
  [[nodiscard]] Neighbor operator[](std::size_t i) const noexcept {
    return {entries_[i].distance, entries_[i].slot & ~kExpanded};
  }

  // Returns whether it was good enough to stay.
  bool insert(Neighbor candidate) noexcept {
    std::size_t lo = 0;
    std::size_t hi = size_;
    if (size_ == capacity_) {
      if (!precedes(candidate, entries_[size_ - 1])) return false;
    }
    while (lo < hi) {
      const std::size_t mid = (lo + hi) / 2;
      if (precedes(candidate, entries_[mid])) {
        hi = mid;
      } else {
        lo = mid + 1;
      }
    }
    const std::size_t tail = size_ - lo - (size_ == capacity_ ? 1 : 0);
    std::memmove(&entries_[lo + 1], &entries_[lo], tail * sizeof(Neighbor));
    entries_[lo] = candidate;
    if (size_ < capacity_) ++size_;
    cursor_ = std::min(cursor_, lo);
    return true;
  }

  // The nearest candidate not yet expanded, now marked; kNoSlot when none is left.
  Slot pop() noexcept {
    while (cursor_ < size_ && (entries_[cursor_].slot & kExpanded) != 0) ++cursor_;
    if (cursor_ == size_) return kNoSlot;
    const Slot slot = entries_[cursor_].slot;
    entries_[cursor_].slot |= kExpanded;
    ++cursor_;
    return slot;
  }

 private:
  static constexpr Slot kExpanded = Slot{1} << 31;
  static bool precedes(const Neighbor& a, const Neighbor& b) noexcept {
    return a.distance < b.distance ||
           (a.distance == b.distance && (a.slot & ~kExpanded) < (b.slot & ~kExpanded));
  }
  std::vector<Neighbor> entries_;
  std::size_t capacity_ = 0;
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

// What a call did, for stats().
struct Counters {
  std::uint64_t queries = 0;
  std::uint64_t distances = 0;
  std::uint64_t hops = 0;
};

struct Scratch {
  VisitedSet visited;
  CandidatePool pool;
  CandidatePool accepted;  // of a filtered search
  Counters counters;
  std::vector<Slot> slots;
  std::vector<const float*> vectors;
  std::vector<float> distances;
  std::vector<Neighbor> candidates;
  std::vector<Neighbor> kept;
  PaddedVector query;  // the caller's, copied
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
    total_.queries += scratch->counters.queries;
    total_.distances += scratch->counters.distances;
    total_.hops += scratch->counters.hops;
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
