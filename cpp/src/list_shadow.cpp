#include "list_shadow.hpp"

#include <algorithm>
#include <new>
#include <thread>

#include "links.hpp"

namespace upvec {

ListShadow::ListShadow(const LinkTable& table, std::size_t lists)
    : table_(table),
      lists_(lists),
      states_(std::make_unique<std::atomic<std::uint8_t>[]>(lists / kBlockLists + 1)),
      kept_(std::make_unique<std::unique_ptr<Slot[]>[]>(lists / kBlockLists + 1)) {}

void ListShadow::keep(std::size_t list) noexcept {
  if (list < lists_) settle(list / kBlockLists);
}

void ListShadow::settle(std::size_t block) noexcept {
  std::atomic<std::uint8_t>& state = states_[block];
  if (state.load(std::memory_order_acquire) == kKept) return;
  std::uint8_t untouched = kUntouched;
  if (!state.compare_exchange_strong(untouched, kBusy, std::memory_order_acquire)) {
    while (state.load(std::memory_order_acquire) == kBusy) std::this_thread::yield();
    return;
  }
  const std::size_t cap = table_.cap();
  auto* const copy = new (std::nothrow) Slot[kBlockLists * cap];
  if (copy != nullptr) {
    const std::size_t begin = block * kBlockLists;
    const std::size_t end = std::min(begin + kBlockLists, lists_);
    for (std::size_t list = begin; list < end; ++list) {
      const LinkWord* const words = table_.words(list);
      Slot* const to = copy + (list - begin) * cap;
      for (std::size_t i = 0; i < cap; ++i) to[i] = words[i].load(std::memory_order_relaxed);
    }
    kept_[block].reset(copy);
  }
  state.store(kKept, std::memory_order_release);
}

const Slot* ListShadow::list(std::size_t list) {
  const std::size_t block = list / kBlockLists;
  settle(block);
  if (!kept_[block]) throw std::bad_alloc();
  return kept_[block].get() + list % kBlockLists * table_.cap();
}

void ListShadow::drop(std::size_t list) noexcept { kept_[list / kBlockLists].reset(); }

}  // namespace upvec
