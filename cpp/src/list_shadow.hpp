// ListShadow: what the lists of a table were at one moment, while the writer goes on changing them.
//
// The lists are kept block by block, and only when somebody is about to lose them: the writer
// copies a block before it first changes a list in it, the reader of the shadow when it gets there
// and nobody has. So to begin costs nothing, and the memory held is that of the blocks that changed
// before they were read.
//
// Thread safety: keep() from any thread of the writer's, lists() and drop() from one other thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "planes.hpp"

namespace upvec {

class LinkTable;

class ListShadow {
 public:
  // 8 KiB of lists of 32. To copy that takes 0.3 us from the cache.
  static constexpr std::size_t kBlockLists = 64;

  // Of lists [0, lists) of the table, which must outlive it.
  ListShadow(const LinkTable& table, std::size_t lists);

  // Before a list is changed. Without memory to keep it, the shadow fails and the change goes on.
  void keep(std::size_t list) noexcept;

  // The words of a list as they were, as many as the table's cap; good until its block is dropped.
  // Throws std::bad_alloc if it could not be kept.
  const Slot* list(std::size_t list);
  // The block of this list is not asked for again.
  void drop(std::size_t list) noexcept;

 private:
  enum State : std::uint8_t { kUntouched, kBusy, kKept };
  // Makes sure that the block is kept, by whoever is first.
  void settle(std::size_t block) noexcept;

  const LinkTable& table_;
  std::size_t lists_;
  std::unique_ptr<std::atomic<std::uint8_t>[]> states_;
  std::unique_ptr<std::unique_ptr<Slot[]>[]> kept_;
};

}  // namespace upvec
