#include "links.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace upvec {
namespace {

constexpr std::size_t kUnitSlots = 4;            // 16 bytes
constexpr std::uint32_t kChunkUnits = 1U << 16;  // 1 MiB
constexpr std::uint32_t kMaxChunks = 1U << 16;
constexpr std::uint32_t kClasses = 48;
// A head is the list's size above its class.
constexpr unsigned kClassBits = 6;
constexpr std::uint32_t kClassMask = (1U << kClassBits) - 1;

// 4, 8, 12, 16, 20, 24, then 32, 48, 64, 96, …: lists are mostly short, and a third of them longer
// than eight.
std::size_t class_slots(std::uint32_t size_class) {
  constexpr std::uint32_t kLinear = 6;
  if (size_class <= kLinear) return kUnitSlots * size_class;
  const std::uint32_t above = size_class - kLinear - 1;
  return std::size_t{above % 2 == 0 ? 32U : 48U} << (above / 2);
}

std::size_t padded_words(std::size_t cap) { return (cap + 15) / 16 * 16; }

}  // namespace

InLists::InLists() : free_(kClasses) {
  chunks_ = static_cast<Slot**>(std::calloc(kMaxChunks, sizeof(Slot*)));
  if (chunks_ == nullptr) throw std::bad_alloc();
  open_unit_ = kChunkUnits;  // no open chunk yet
}

InLists::~InLists() {
  for (std::uint32_t c = 0; c < chunk_count_; ++c) std::free(chunks_[c]);
  std::free(chunks_);
}

Slot* InLists::data(std::uint32_t block) const noexcept {
  return chunks_[block >> 16] + std::size_t{block & 0xffff} * kUnitSlots;
}

std::uint32_t InLists::take_block(std::uint32_t size_class) {
  const std::scoped_lock lock(mutex_);
  auto& free = free_[size_class];
  if (!free.empty()) {
    const std::uint32_t block = free.back();
    free.pop_back();
    return block;
  }
  const std::size_t units = class_slots(size_class) / kUnitSlots;
  const bool alone = units > kChunkUnits;
  if (alone || open_unit_ + units > kChunkUnits) {
    if (chunk_count_ == kMaxChunks) throw std::bad_alloc();
    const std::size_t bytes = std::max<std::size_t>(units, kChunkUnits) * kUnitSlots * sizeof(Slot);
    auto* chunk = static_cast<Slot*>(std::malloc(bytes));
    if (chunk == nullptr) throw std::bad_alloc();
    chunk_bytes_total_ += bytes;
    chunks_[chunk_count_] = chunk;
    const std::uint32_t number = chunk_count_++;
    if (alone) return number << 16;
    open_chunk_ = number;
    open_unit_ = 0;
  }
  const std::uint32_t block = open_chunk_ << 16 | open_unit_;
  open_unit_ += static_cast<std::uint32_t>(units);
  return block;
}

void InLists::give_block(std::uint32_t block, std::uint32_t size_class) {
  const std::scoped_lock lock(mutex_);
  free_[size_class].push_back(block);
}

std::span<const Slot> InLists::get(std::size_t list) const {
  const Head& head = heads_[list];
  if ((head.size_class & kClassMask) == 0) return {};
  return {data(head.block), head.size_class >> kClassBits};
}

void InLists::insert(std::size_t list, Slot slot) {
  Head& head = heads_[list];
  std::uint32_t size = head.size_class >> kClassBits;
  std::uint32_t size_class = head.size_class & kClassMask;
  Slot* slots = size_class == 0 ? nullptr : data(head.block);
  Slot* const position = std::lower_bound(slots, slots + size, slot);
  const auto before = static_cast<std::size_t>(position - slots);
  if (before < size && *position == slot) return;
  if (size_class == 0 || size == class_slots(size_class)) {
    move_to(head, ++size_class);
    slots = data(head.block);
  }
  std::memmove(slots + before + 1, slots + before, (size - before) * sizeof(Slot));
  slots[before] = slot;
  ++size;
  head.size_class = size << kClassBits | size_class;
}

void InLists::erase(std::size_t list, Slot slot) {
  Head& head = heads_[list];
  std::uint32_t size = head.size_class >> kClassBits;
  const std::uint32_t size_class = head.size_class & kClassMask;
  if (size_class == 0) return;
  Slot* slots = data(head.block);
  Slot* const position = std::lower_bound(slots, slots + size, slot);
  if (position == slots + size || *position != slot) return;
  std::memmove(position, position + 1,
               static_cast<std::size_t>(slots + size - position - 1) * sizeof(Slot));
  --size;
  if (size == 0) {
    clear(list);
    return;
  }
  head.size_class = size << kClassBits | size_class;
  // Two classes too large, so that a list at the border of one is not copied to and fro.
  if (size_class > 2 && size <= class_slots(size_class - 2)) move_to(head, size_class - 1);
}

void InLists::move_to(Head& head, std::uint32_t size_class) {
  const std::uint32_t size = head.size_class >> kClassBits;
  const std::uint32_t present = head.size_class & kClassMask;
  const std::uint32_t block = take_block(size_class);
  if (size > 0) std::memcpy(data(block), data(head.block), size * sizeof(Slot));
  if (present != 0) give_block(head.block, present);
  head = {block, size << kClassBits | size_class};
}

void InLists::clear(std::size_t list) {
  Head& head = heads_[list];
  if ((head.size_class & kClassMask) != 0) give_block(head.block, head.size_class & kClassMask);
  head = Head{};
}

std::size_t InLists::allocated_bytes() const noexcept {
  const std::size_t unused = chunk_bytes_total_ == 0 ? 0 : kChunkUnits - open_unit_;
  return heads_.allocated_bytes() + chunk_bytes_total_ - unused * kUnitSlots * sizeof(Slot);
}

LinkTable::LinkTable(std::size_t cap)
    : cap_(cap), lists_(padded_words(cap) * sizeof(std::uint32_t)) {}

void LinkTable::ensure(std::size_t lists) {
  lists_.ensure(lists);
  in.ensure(lists);
}

std::size_t LinkTable::read(std::size_t list, Slot* out) const noexcept {
  const LinkWord* const from = words(list);
  std::size_t n = 0;
  for (; n < cap_; ++n) {
    const Slot slot = from[n].load(std::memory_order_acquire);
    if (slot == kNoSlot) break;
    out[n] = slot;
  }
  return n;
}

bool LinkTable::contains(std::size_t list, Slot slot) const noexcept {
  const LinkWord* const from = words(list);
  for (std::size_t i = 0; i < cap_; ++i) {
    const Slot word = from[i].load(std::memory_order_relaxed);
    if (word == slot) return true;
    if (word == kNoSlot) return false;
  }
  return false;
}

void LinkTable::write(std::size_t list, std::span<const Slot> slots) noexcept {
  for (ListShadow* const shadow : shadows_) shadow->keep(list);
  auto* const to = reinterpret_cast<LinkWord*>(lists_.at(list));
  for (std::size_t i = 0; i < slots.size(); ++i) to[i].store(slots[i], std::memory_order_release);
  for (std::size_t i = slots.size(); i < cap_; ++i) to[i].store(kNoSlot, std::memory_order_release);
}

}  // namespace upvec
