// OldCodes: the codes that the commit under way replaces.
//
// Readers of the version before it find there, without the graph, the slots that have left their
// places. A scan of codes is several times cheaper than one of exact vectors.
// Thread safety: add() from the writer, the rest from any thread. What is below size() stays.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "codes.hpp"
#include "fence.hpp"
#include "planes.hpp"

namespace upvec {

class OldCodes {
 public:
  // Of at most so many slots.
  OldCodes(std::uint64_t commit, std::size_t most, const CodeSpace& space)
      : commit_(commit),
        words_(space.point_bytes() / sizeof(std::uint64_t)),
        slots_(std::make_unique_for_overwrite<Slot[]>(most)),
        codes_(std::make_unique_for_overwrite<std::uint64_t[]>(most * words_)) {}

  void add(Slot slot, Point code, const CodeSpace& space) noexcept {
    const std::size_t i = size_.load(std::memory_order_relaxed);
    slots_[i] = slot;
    space.copy(code, reinterpret_cast<std::byte*>(&codes_[i * words_]));
    size_.store(i + 1, std::memory_order_release);
    release_fence();  // before anything of the slot changes
  }
  [[nodiscard]] std::uint64_t commit() const noexcept { return commit_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  [[nodiscard]] Slot slot(std::size_t i) const noexcept { return slots_[i]; }
  [[nodiscard]] Point code(std::size_t i) const noexcept { return &codes_[i * words_]; }

 private:
  std::uint64_t commit_;
  std::size_t words_;
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<std::uint64_t[]> codes_;
  std::atomic<std::size_t> size_{0};
};

// Those of the newest commit, for whoever still wants them.
class NewestOldCodes {
 public:
  void set(std::shared_ptr<const OldCodes> codes) {
    const std::scoped_lock lock(mutex_);
    codes_.swap(codes);
  }
  // Null if this commit is not the newest, or is done.
  [[nodiscard]] std::shared_ptr<const OldCodes> of(std::uint64_t commit) const {
    const std::scoped_lock lock(mutex_);
    return codes_ != nullptr && codes_->commit() == commit ? codes_ : nullptr;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const OldCodes> codes_;
};

}  // namespace upvec
