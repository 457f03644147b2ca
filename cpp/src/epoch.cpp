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
  const std::scoped_lock lock(mutex_);
  // pinned() reads published_ under the same mutex, so this seq cannot be passed by in between.
  const std::uint64_t seq = published();
  ++crowded_[seq];
  return {this, kCrowded, seq};
}

Epochs::Pin Epochs::pin_long(std::uint64_t seq) {
  const std::scoped_lock lock(mutex_);
  ++long_pins_[seq];
  return {this, kLong, seq};
}

Epochs::Pin Epochs::pin_long() {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t seq = published();  // as in pin()
  ++long_pins_[seq];
  return {this, kLong, seq};
}

Epochs::Pinned Epochs::pinned() const {
  const std::scoped_lock lock(mutex_);
  Pinned pinned{published_.load(std::memory_order_seq_cst), {}};
  if (!crowded_.empty()) pinned.under_way = std::min(pinned.under_way, crowded_.begin()->first);
  for (const Place& place : places_) {
    pinned.under_way = std::min(pinned.under_way, place.seq.load(std::memory_order_seq_cst));
  }
  for (const auto& [seq, count] : long_pins_) pinned.kept.push_back(seq);
  return pinned;
}

void Epochs::unpin(std::size_t place, std::uint64_t seq) noexcept {
  if (place < kPlaces) {
    places_[place].seq.store(kFree, std::memory_order_release);
    return;
  }
  const std::scoped_lock lock(mutex_);
  Counts& counts = place == kLong ? long_pins_ : crowded_;
  const auto it = counts.find(seq);
  if (--it->second == 0) counts.erase(it);
}

}  // namespace upvec
