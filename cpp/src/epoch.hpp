// Which versions readers may still look at.
//
// A reader pins the published seq before it reads anything and lets go of it afterwards. Short pins
// (one read call) go to a table of cache lines, one per reader at a time, claimed by a
// compare-and-swap that starts at a place of the thread's own, so that readers do not meet; those
// that do not find room go to a list under a mutex. Long pins (snapshots) have a list of their own.
// A read of a snapshot takes a short pin too, so short pins say which reads are under way, and
// long pins which versions will be read again. reclaim.cpp says what follows from that.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace upvec {

class Epochs {
 public:
  class Pin;  // movable guard of one pinned seq

  [[nodiscard]] std::uint64_t published() const noexcept {
    return published_.load(std::memory_order_acquire);
  }
  void publish(std::uint64_t seq) noexcept { published_.store(seq, std::memory_order_seq_cst); }

  [[nodiscard]] Pin pin();                        // the published seq
  [[nodiscard]] Pin pin_long(std::uint64_t seq);  // the writer pins a seq not yet published
  [[nodiscard]] Pin pin_long();

  struct Pinned {
    std::uint64_t under_way;          // no read under way or to come took a short pin below this
    std::vector<std::uint64_t> kept;  // the long pins, ascending

    [[nodiscard]] std::uint64_t oldest() const noexcept {
      return kept.empty() || under_way < kept.front() ? under_way : kept.front();
    }
  };
  // A pin taken after this call is of at least what was published before it.
  [[nodiscard]] Pinned pinned() const;

 private:
  using Counts = std::map<std::uint64_t, std::size_t>;  // pins by seq
  static constexpr std::size_t kPlaces = 128;
  static constexpr std::size_t kCrowded = kPlaces;   // the place of a pin in crowded_
  static constexpr std::size_t kLong = kPlaces + 1;  // and in long_pins_
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  struct alignas(64) Place {
    std::atomic<std::uint64_t> seq{kFree};
  };
  friend class Pin;
  void unpin(std::size_t place, std::uint64_t seq) noexcept;

  std::atomic<std::uint64_t> published_{0};
  std::array<Place, kPlaces> places_;
  mutable std::mutex mutex_;
  Counts crowded_;  // short pins that found no place
  Counts long_pins_;
};

class Epochs::Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept { swap(other); }
  Pin& operator=(Pin&& other) noexcept {
    Pin moved(std::move(other));
    swap(moved);
    return *this;
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  ~Pin() {
    if (owner_ != nullptr) owner_->unpin(place_, seq_);
  }
  [[nodiscard]] std::uint64_t seq() const noexcept { return seq_; }

 private:
  friend class Epochs;
  Pin(Epochs* owner, std::size_t place, std::uint64_t seq)
      : owner_(owner), place_(place), seq_(seq) {}
  void swap(Pin& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(place_, other.place_);
    std::swap(seq_, other.seq_);
  }
  Epochs* owner_ = nullptr;
  std::size_t place_ = 0;
  std::uint64_t seq_ = 0;
};

}  // namespace upvec
