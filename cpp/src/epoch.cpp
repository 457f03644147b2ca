#include "epoch.hpp"

#include <algorithm>
#include <functional>
#include <thread>

namespace upvec {

Epochs::Pin Epochs::pin() {
  thread_local const std::size_t home = std::hash<std::thread::id>{}(std::this_thread::get_id());
  for (std::size_t i = 0; i < kPlaces; ++i) {
    const std::size_t place = (home + i) % kPlaces;
    std::atomic<std::uint64_t>& word = places_[place].seq;
    std::uint64_t seq = published_.load(std::memory_order_seq_cst);
    std::uint64_t expected = kFree;
    if (!word.compare_exchange_strong(expected, seq, std::memory_order_seq_cst)) continue;
    // A writer that published and looked for readers between our load and our claim did not see us.
    // Only a claim that was there while its seq was still the published one protects anything.
    for (std::uint64_t now = published_.load(std::memory_order_seq_cst); now != seq;
         now = published_.load(std::memory_order_seq_cst)) {
      seq = now;
      word.store(seq, std::memory_order_seq_cst);
    }
    return {this, place, seq};
  }
  return pin_long();
}

Epochs::Pin Epochs::pin_long(std::uint64_t seq) {
  const std::scoped_lock lock(mutex_);
  ++long_pins_[seq];
  return {this, kPlaces, seq};
}

Epochs::Pin Epochs::pin_long() {
  const std::scoped_lock lock(mutex_);
  // oldest() reads published_ under the same mutex, so this seq cannot be passed by in between.
  const std::uint64_t seq = published();
  ++long_pins_[seq];
  return {this, kPlaces, seq};
}

std::uint64_t Epochs::oldest() const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t seq = published_.load(std::memory_order_seq_cst);
  if (!long_pins_.empty()) seq = std::min(seq, long_pins_.begin()->first);
  for (const Place& place : places_) {
    seq = std::min(seq, place.seq.load(std::memory_order_seq_cst));
  }
  return seq;
}

void Epochs::unpin(std::size_t place, std::uint64_t seq) noexcept {
  if (place < kPlaces) {
    places_[place].seq.store(kFree, std::memory_order_release);
    return;
  }
  const std::scoped_lock lock(mutex_);
  const auto it = long_pins_.find(seq);
  if (--it->second == 0) long_pins_.erase(it);
}

}  // namespace upvec
