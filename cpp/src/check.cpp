// Proof of the graph's invariants, by looking at everything.

#include <algorithm>
#include <vector>

#include "store.hpp"

namespace upvec {
namespace {

class Checker {
 public:
  explicit Checker(const Store& store)
      : store_(store),
        graph_(store.graph),
        end_(store.graph.slot_end.load(std::memory_order_relaxed)),
        in_degree_(end_, 0) {}

  CheckReport run() {
    report_.degrees.assign(graph_.base.cap() + 1, 0);
    for (Slot slot = 1; slot < end_; ++slot) {
      check_lists(slot);
      if (!live(slot)) continue;
      ++report_.live;
      report_.pending += graph_.is_pending(slot) ? 1 : 0;
    }
    for (Slot slot = 1; slot < end_; ++slot) {
      if (!live(slot)) continue;
      const std::size_t degree = in_degree_[slot];
      if (degree >= report_.in_degrees.size()) report_.in_degrees.resize(degree + 1);
      ++report_.in_degrees[degree];
    }
    check_anchors();
    check_keys();
    walk();
    return report_;
  }

 private:
  [[nodiscard]] bool live(Slot slot) const { return (graph_.flags[slot] & kLive) != 0; }

  std::vector<Slot> links(Slot slot, unsigned level) const {
    std::vector<Slot> slots(graph_.table(level).cap());
    slots.resize(graph_.table(level).read(graph_.list_of(slot, level), slots.data()));
    return slots;
  }

  void check_lists(Slot slot) {
    for (unsigned level = 0; level <= graph_.level_of(slot); ++level) {
      const LinkTable& table = graph_.table(level);
      const std::vector<Slot> list = links(slot, level);
      if (level == 0 && live(slot)) {
        ++report_.degrees[list.size()];
        report_.below_floor += list.size() < graph_.base.cap() / 4 ? 1 : 0;
      }
      if (!live(slot)) report_.dangling += list.size();
      for (std::size_t i = 0; i < list.size(); ++i) {
        const Slot other = list[i];
        if (other >= end_ || !live(other) || graph_.level_of(other) < level) {
          ++report_.dangling;
          continue;
        }
        if (other == slot) ++report_.self_links;
        if (std::find(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i), other) !=
            list.begin() + static_cast<std::ptrdiff_t>(i)) {
          ++report_.doubled;
        }
        if (level == 0) ++in_degree_[other];
        check_in_list(slot, other, level);
      }
      for (const Slot in : table.in.get(graph_.list_of(slot, level))) {
        const bool right = in < end_ && live(in) && graph_.level_of(in) >= level &&
                           table.contains(graph_.list_of(in, level), slot) &&
                           !table.contains(graph_.list_of(slot, level), in);
        report_.in_list_errors += right ? 0 : 1;
      }
    }
  }

  void check_in_list(Slot from, Slot to, unsigned level) {
    const LinkTable& table = graph_.table(level);
    const auto in = table.in.get(graph_.list_of(to, level));
    const bool listed = std::binary_search(in.begin(), in.end(), from);
    const bool mutual = table.contains(graph_.list_of(to, level), from);
    report_.in_list_errors += listed != mutual ? 0 : 1;
  }

  void check_anchors() {
    const Slot root = store_.anchors.root();
    std::vector<std::uint8_t> settled(end_, 0);  // 1: leads to the root
    std::vector<std::size_t> children(end_, 0);
    if (root != kNoSlot) settled[root] = 1;
    if ((root == kNoSlot) != (report_.live == 0)) ++report_.anchor_errors;
    std::vector<Slot> path;
    for (Slot slot = 1; slot < end_; ++slot) {
      const Slot anchor = graph_.info[slot].anchor;
      if (!live(slot)) {
        report_.anchor_errors += anchor != kNoSlot ? 1 : 0;
        continue;
      }
      if (slot == root) {
        report_.anchor_errors += anchor != kNoSlot ? 1 : 0;
        continue;
      }
      if (anchor == kNoSlot || anchor >= end_ || !live(anchor)) {
        ++report_.anchor_errors;
        continue;
      }
      ++children[anchor];
      if (!graph_.base.contains(slot, anchor) || !graph_.base.contains(anchor, slot)) {
        ++report_.anchor_errors;
      }
      path.clear();
      Slot at = slot;
      while (at != kNoSlot && at < end_ && settled[at] == 0 && path.size() <= report_.live) {
        path.push_back(at);
        at = graph_.info[at].anchor;
      }
      if (at == kNoSlot || at >= end_ || settled[at] == 0) {
        ++report_.anchor_errors;
        continue;
      }
      for (const Slot passed : path) settled[passed] = 1;
    }
    for (Slot slot = 1; slot < end_; ++slot) {
      if (live(slot) && children[slot] != graph_.children[slot]) ++report_.anchor_errors;
    }
  }

  void check_keys() {
    std::size_t live_keys = 0;
    store_.keys.for_each([&](StoredKey key, std::uint32_t slot) {
      if (slot == kNoSlot || slot >= end_ ||
          graph_.key_of(slot) != static_cast<std::uint64_t>(key)) {
        ++report_.key_errors;
      } else if (live(slot)) {
        ++live_keys;
        const Row row = graph_.planned_row(slot);
        if (row == kNoRow || graph_.rows.header(row).key != static_cast<std::uint64_t>(key)) {
          ++report_.key_errors;
        }
      }
    });
    report_.key_errors += live_keys == report_.live ? 0 : 1;
    report_.key_errors += store_.live == report_.live ? 0 : 1;
  }

  void walk() {
    const Slot entry = graph_.entry.load(std::memory_order_relaxed);
    if (entry == kNoSlot || entry >= end_ || !live(entry)) return;
    std::vector<std::uint8_t> met(end_, 0);
    std::vector<Slot> queue{entry};
    met[entry] = 1;
    for (std::size_t i = 0; i < queue.size(); ++i) {
      for (const Slot next : links(queue[i], 0)) {
        if (next >= end_ || met[next] != 0 || !live(next)) continue;
        met[next] = 1;
        queue.push_back(next);
      }
    }
    report_.reachable = queue.size();
  }

  const Store& store_;
  const Graph& graph_;
  std::size_t end_;
  std::vector<std::size_t> in_degree_;
  CheckReport report_;
};

}  // namespace

CheckReport check(const Store& store) {
  const std::scoped_lock lock(store.write_mutex);
  return Checker(store).run();
}

}  // namespace upvec
