// ChangeLog: which slots have changed since a version that someone may still read.
//
// The graph leads to where slots are now; a reader of an older version measures those one by one
// whose shown row was replaced or taken away since. Only the newest change of a slot matters for
// that, so however many commits pass, the log grows to twice the slots that changed and no further.
// Thread safety: add() and drop() from the writer; count_since() and since() from any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "planes.hpp"

namespace upvec {

class ChangeLog {
 public:
  void add(std::uint64_t seq, Slot slot) {
    const std::scoped_lock lock(mutex_);
    changes_.push_back({seq, slot});
  }
  // Forgets what nobody may ask for who reads a version of `oldest` or later.
  void drop(std::uint64_t oldest) {
    const std::scoped_lock lock(mutex_);
    while (!changes_.empty() && changes_.front().seq <= oldest) changes_.pop_front();
    if (changes_.size() > kept_ * 2 + kSlack) keep_newest();
  }
  // How many changes commits after `seq` have made; a slot may count more than once.
  [[nodiscard]] std::size_t count_since(std::uint64_t seq) const {
    const std::scoped_lock lock(mutex_);
    const auto first =
        std::partition_point(changes_.begin(), changes_.end(),
                             [seq](const Change& change) { return change.seq <= seq; });
    return static_cast<std::size_t>(changes_.end() - first);
  }
  // Appends the slots changed by commits after `seq`; a slot may come more than once.
  void since(std::uint64_t seq, std::vector<Slot>& slots) const {
    const std::scoped_lock lock(mutex_);
    for (auto change = changes_.rbegin(); change != changes_.rend() && change->seq > seq;
         ++change) {
      slots.push_back(change->slot);
    }
  }
  [[nodiscard]] std::size_t bytes() const {
    const std::scoped_lock lock(mutex_);
    return changes_.size() * sizeof(Change);
  }

 private:
  struct Change {
    std::uint64_t seq;
    Slot slot;
  };
  static constexpr std::size_t kSlack = 1024;

  void keep_newest() {
    std::vector<bool> met;
    std::deque<Change> newest;
    for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) {
      if (change->slot >= met.size()) met.resize(std::size_t{change->slot} * 2 + 1);
      if (met[change->slot]) continue;
      met[change->slot] = true;
      newest.push_front(*change);
    }
    changes_.swap(newest);
    kept_ = changes_.size();
  }

  mutable std::mutex mutex_;
  std::deque<Change> changes_;  // ascending by seq
  std::size_t kept_ = 0;        // that keep_newest() left when it last ran
};

}  // namespace upvec
