// Digest of an index: equal for equal histories, whatever the number of threads, and after save and
// load.

#include <array>
#include <bit>
#include <cstdio>
#include <span>
#include <string>

#include "hash.hpp"
#include "store.hpp"

namespace upvec {
namespace {

// Two digests of different seeds, for 128 bits.
class TwinDigest {
 public:
  void add(std::uint64_t value) noexcept {
    first_.add(value);
    second_.add(value);
  }
  void add(const void* data, std::size_t bytes) noexcept {
    first_.add(data, bytes);
    second_.add(data, bytes);
  }
  [[nodiscard]] std::string hex() const {
    std::array<char, 33> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx",
                  static_cast<unsigned long long>(first_.value()),
                  static_cast<unsigned long long>(second_.value()));
    return text.data();
  }

 private:
  Digest first_{1};
  Digest second_{2};
};

void add_key(TwinDigest& digest, const Store& store, std::uint64_t key) {
  if (store.options.key_type == KeyType::kInt64) {
    digest.add(key);
    return;
  }
  const std::string_view text = KeyIndex::string_of(StoredKey{key});
  digest.add(text.size());
  digest.add(text.data(), text.size());
}

void add_links(TwinDigest& digest, const Graph& graph, Slot slot, unsigned level,
               std::span<Slot> room) {
  const std::size_t n = graph.table(level).read(graph.list_of(slot, level), room.data());
  digest.add(n);
  digest.add(room.data(), n * sizeof(Slot));
}

}  // namespace

std::string digest(const Store& store) {
  const std::scoped_lock lock(store.write_mutex);
  const Graph& graph = store.graph;
  TwinDigest digest;
  const Slot end = graph.slot_end.load(std::memory_order_relaxed);
  digest.add(end);
  digest.add(store.anchors.root());
  digest.add(graph.entry.load(std::memory_order_relaxed));
  std::vector<Slot> room(graph.base.cap());
  std::vector<std::byte> packed(graph.space.packed_bytes());
  for (Slot slot = 1; slot < end; ++slot) {
    const SlotInfo& info = graph.info[slot];
    const bool live = (graph.flags[slot] & kLive) != 0;
    digest.add(live ? 1 : 0);
    add_key(digest, store, graph.key_of(slot));
    digest.add(info.anchor);
    digest.add(live ? std::bit_cast<std::uint32_t>(info.slack) : 0);
    for (unsigned level = 0; level <= graph.level_of(slot); ++level) {
      add_links(digest, graph, slot, level, room);
    }
    if (!live) continue;
    graph.space.pack(graph.planned_vector(slot), packed.data());
    digest.add(packed.data(), packed.size());
  }
  for (const Slot slot : store.free_slots) digest.add(slot);
  return digest.hex();
}

}  // namespace upvec
