// Frees rows and keys that no reader may ask for any more.
//
// A row of seq a that commit b replaced is shown by the versions from a to b - 1. Nothing happens
// to it before every read under way has begun at b or later. Then only long pins can ask for it:
//  - with none below b, all readers stop at the newer row: it is free.
//  - with one from a to b - 1, it is held, in the name of the newest such pin, and looked at again
//    when that pin is let go. So a pin holds at most one row of each slot.
//  - with pins below a alone, nobody can be shown it, but their reads pass it on their way along
//    the slot's rows. It is taken out of that chain. A read under way may stand on it, so it is
//    free only once all reads under way have begun after the next commit: those cannot find it.
// Pins that are taken later are of versions published by now, thus not below b.
//
// Every reader finds its row: what is taken out of a chain is shown to nobody who walks it, and
// the order of the rest stays. When a row is freed while an older one of its slot is held, both
// were looked at by the same set of pins: one below the older's b is below the newer's, too, so the
// newer was not just freed but taken out, and nothing leads from the slot into a freed row but the
// `previous` of the oldest kept one, which no reader follows.
//
// What a snapshot holds therefore depends on how many rows it shows, not on how many commits pass.

#include <algorithm>
#include <cassert>
#include <optional>

#include "store.hpp"

namespace upvec {
namespace {

class Reclaimer {
 public:
  Reclaimer(Store& store, Epochs::Pinned pinned)
      : store_(store), lists_(store.retired), pinned_(std::move(pinned)) {}

  void run() {
    look_again();
    while (!lists_.waiting.empty() && lists_.waiting.front().seq <= pinned_.under_way) {
      const Retired one = lists_.waiting.front();
      lists_.waiting.pop_front();
      sort_out(one);
    }
    look_at_tombstones();
    // After the rows that have the keys.
    for (const Retired& one : keys_) sort_out_key(one);
  }

 private:
  // What was held by pins that are let go.
  void look_again() {
    auto& held = lists_.held;
    for (auto it = held.begin(); it != held.end();) {
      if (std::binary_search(pinned_.kept.begin(), pinned_.kept.end(), it->first)) {
        ++it;
        continue;
      }
      const auto node = held.extract(it++);
      for (const Retired& one : node.mapped()) sort_out(one);
    }
  }

  void sort_out(const Retired& one) {
    switch (one.what) {
      case Retired::What::kRow:
        sort_out_row(one);
        break;
      case Retired::What::kUnlinked:
        store_.graph.rows.release(one.row);
        break;
      case Retired::What::kTombstone:
        sort_out_tombstone(one);
        break;
      case Retired::What::kKey:
        keys_.push_back(one);
        break;
    }
  }

  void sort_out_row(const Retired& one) {
    const std::optional<std::uint64_t> pin = newest_pin_before(one.seq);
    if (!pin) {
      store_.graph.rows.release(one.row);
      return;
    }
    if (*pin >= header(one.row).seq) {
      hold(*pin, one);
      return;
    }
    unlink(one);
    lists_.unlinked(store_.head + 1, one.row);
  }

  // A tombstone that nothing replaced: as long as there are pins before it, it leads them on.
  void sort_out_tombstone(const Retired& one) {
    if (!is_newest(one)) return;  // it was retired once more, as a replaced row
    if (newest_pin_before(one.seq)) {
      lists_.tombstones.insert_or_assign(one.slot, one);
    } else {
      clear(one);
    }
  }

  void look_at_tombstones() {
    const std::uint64_t oldest = pinned_.oldest();
    if (oldest == lists_.oldest_kept) return;
    lists_.oldest_kept = oldest;
    std::erase_if(lists_.tombstones, [&](const auto& entry) {
      if (!is_newest(entry.second)) return true;
      if (newest_pin_before(entry.second.seq)) return false;
      clear(entry.second);
      return true;
    });
  }

  // A row's number may have been used again, for the same slot even, but not by the same commit.
  [[nodiscard]] bool is_newest(const Retired& tombstone) const {
    return store_.graph.row_of[tombstone.slot].load(std::memory_order_relaxed) == tombstone.row &&
           header(tombstone.row).seq == tombstone.seq;
  }

  // Until just now a reader of any version could come here.
  void clear(const Retired& tombstone) {
    store_.graph.free_keys.emplace(tombstone.slot, header(tombstone.row).key);
    store_.graph.row_of[tombstone.slot].store(kNoRow, std::memory_order_release);
    lists_.unlinked(store_.head + 1, tombstone.row);
  }

  void sort_out_key(const Retired& one) {
    const std::optional<std::uint64_t> pin = newest_pin_before(one.seq);
    if (pin && store_.options.key_type == KeyType::kString && some_row_has(one)) {
      hold(*pin, one);
    } else {
      store_.keys.release(StoredKey{one.key});
    }
  }

  [[nodiscard]] bool some_row_has(const Retired& key) const {
    Row row = store_.graph.row_of[key.slot].load(std::memory_order_relaxed);
    const std::uint64_t oldest = pinned_.oldest();
    while (row != kNoRow) {
      if (header(row).key == key.key) return true;
      if (header(row).seq <= oldest) return false;  // nobody asks for what is behind it
      row = header(row).previous.load(std::memory_order_relaxed);
    }
    return false;
  }

  void hold(std::uint64_t pin, Retired one) {
    one.newer = kNoRow;
    lists_.held[pin].push_back(one);
  }

  // Makes the newer row lead past this one.
  void unlink(const Retired& one) {
    Row at = one.newer;
    if (at == kNoRow) at = store_.graph.row_of[one.slot].load(std::memory_order_relaxed);
    while (header(at).previous.load(std::memory_order_relaxed) != one.row) {
      at = header(at).previous.load(std::memory_order_relaxed);
      assert(at != kNoRow);
    }
    const Row older = header(one.row).previous.load(std::memory_order_relaxed);
    header(at).previous.store(older, std::memory_order_release);
  }

  [[nodiscard]] std::optional<std::uint64_t> newest_pin_before(std::uint64_t seq) const {
    const auto it = std::lower_bound(pinned_.kept.begin(), pinned_.kept.end(), seq);
    if (it == pinned_.kept.begin()) return std::nullopt;
    return *(it - 1);
  }

  [[nodiscard]] RowHeader& header(Row row) const { return store_.graph.rows.header(row); }

  Store& store_;
  RetiredList& lists_;
  const Epochs::Pinned pinned_;
  std::vector<Retired> keys_;
};

}  // namespace

void Store::reclaim() {
  Epochs::Pinned pinned = epochs.pinned();
  changes.drop(pinned.oldest());
  Reclaimer(*this, std::move(pinned)).run();
}

}  // namespace upvec
