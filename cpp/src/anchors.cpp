#include "anchors.hpp"

#include <algorithm>
#include <cassert>

#include "points.hpp"

namespace upvec {

// At most 8 children (a choice, not tuned), and for small degrees so few that a list always has
// room for the children and the anchor after it was pruned.
Anchors::Anchors(Graph& graph)
    : graph_(graph),
      max_children_(
          static_cast<std::uint8_t>(std::clamp<std::size_t>(graph.base.cap() / 4, 2, 8))) {}

std::vector<ForcedLink> Anchors::reattach(std::span<const Item> items, Counters& counters) {
  std::vector<Loose> loose;
  std::vector<ForcedLink> forced;
  detach(items, loose);
  if (root_ == kNoSlot) choose_root(loose);

  // Loose slots may hang on each other: go round until nobody finds a place among its own
  // neighbours, then put one by force and go on.
  while (!loose.empty()) {
    const auto still_loose = std::remove_if(loose.begin(), loose.end(), [&](const Loose& one) {
      return attach_to_neighbor(one, counters, forced);
    });
    const bool progress = still_loose != loose.end();
    loose.erase(still_loose, loose.end());
    if (!progress) {
      attach_anywhere(loose.front(), counters, forced);
      loose.erase(loose.begin());
    }
  }
  for (const Slot slot : reached_) graph_.flags[slot] &= static_cast<std::uint8_t>(~kReached);
  reached_.clear();
  return forced;
}

void Anchors::detach(std::span<const Item> items, std::vector<Loose>& loose) {
  const auto cut = [&](Slot slot) {
    SlotInfo& info = graph_.info[slot];
    if (info.anchor == kNoSlot) return;
    assert(graph_.children[info.anchor] > 0);
    --graph_.children[info.anchor];
    info.anchor = kNoSlot;
  };
  for (const Item& item : items) {
    if (item.leaves_place()) {
      for (const Slot other : item.levels[0].old_links) {
        if (graph_.info[other].anchor != item.slot) continue;
        cut(other);
        if ((graph_.flags[other] & kInFlight) == 0) loose.push_back({other, nullptr});
      }
      cut(item.slot);
      if (item.slot == root_) root_ = kNoSlot;
    }
    if (item.task == Task::kInsert || item.task == Task::kMove) loose.push_back({item.slot, &item});
  }
  // Orphans first: most of the graph may hang on them.
  std::sort(loose.begin(), loose.end(), [](const Loose& a, const Loose& b) {
    return std::pair(a.item != nullptr, a.slot) < std::pair(b.item != nullptr, b.slot);
  });
}

void Anchors::choose_root(std::vector<Loose>& loose) {
  if (loose.empty()) return;
  root_ = loose.front().slot;
  loose.erase(loose.begin());
}

bool Anchors::reaches_root(Slot slot) {
  walk_.clear();
  for (Slot at = slot; at != root_ && (graph_.flags[at] & kReached) == 0;
       at = graph_.info[at].anchor) {
    if (graph_.info[at].anchor == kNoSlot) return false;
    walk_.push_back(at);
  }
  for (const Slot passed : walk_) graph_.flags[passed] |= kReached;
  reached_.insert(reached_.end(), walk_.begin(), walk_.end());
  return true;
}

bool Anchors::accepts(Slot slot) {
  return graph_.children[slot] < max_children_ && reaches_root(slot);
}

void Anchors::attach(Slot child, Slot anchor, std::vector<ForcedLink>& forced) {
  graph_.info[child].anchor = anchor;
  ++graph_.children[anchor];
  forced.push_back({child, anchor});
  forced.push_back({anchor, child});
}

float Anchors::distance(Slot a, Slot b) const {
  return with_points(graph_, [&](const auto& points) {
    return points.distance(points.linked(a), points.linked(b));
  });
}

void Anchors::neighbors_of(const Loose& loose, Counters& counters) {
  if (loose.item != nullptr) {
    near_.assign(loose.item->levels[0].links.begin(), loose.item->levels[0].links.end());
    return;
  }
  std::vector<Slot> links(graph_.base.cap());
  links.resize(graph_.base.read(loose.slot, links.data()));
  near_.clear();
  for (const Slot other : links) {
    // Links to slots that are being moved or removed will be gone.
    if ((graph_.flags[other] & (kInFlight | kLeaving)) != 0) continue;
    ++counters.distances;
    near_.push_back({distance(loose.slot, other), other});
  }
  std::sort(near_.begin(), near_.end());
}

bool Anchors::attach_to_neighbor(const Loose& loose, Counters& counters,
                                 std::vector<ForcedLink>& forced) {
  neighbors_of(loose, counters);
  for (const Neighbor& near : near_) {
    if (!accepts(near.slot)) continue;
    attach(loose.slot, near.slot, forced);
    return true;
  }
  return false;
}

// All neighbours are full or hang on this very slot: the nearest that will do among their
// neighbours, else the first place in the tree.
void Anchors::attach_anywhere(const Loose& loose, Counters& counters,
                              std::vector<ForcedLink>& forced) {
  neighbors_of(loose, counters);
  std::vector<Slot> links(graph_.base.cap());
  Neighbor best{0.0F, kNoSlot};
  for (const Neighbor& near : near_) {
    const std::size_t n = graph_.base.read(near.slot, links.data());
    for (std::size_t i = 0; i < n; ++i) {
      const Slot other = links[i];
      if (other == loose.slot || (graph_.flags[other] & kLeaving) != 0 || !accepts(other)) continue;
      ++counters.distances;
      const Neighbor candidate{distance(loose.slot, other), other};
      if (best.slot == kNoSlot || candidate < best) best = candidate;
    }
  }
  attach(loose.slot, best.slot != kNoSlot ? best.slot : place_in_tree(forced), forced);
}

// Breadth first from the root and from what was attached in this call (its links are not written
// yet); some slot always has room, since a tree has leaves.
Slot Anchors::place_in_tree(const std::vector<ForcedLink>& forced) const {
  std::vector<Slot> queue{root_};
  for (const ForcedLink& link : forced) queue.push_back(link.from);
  std::vector<Slot> links(graph_.base.cap());
  for (std::size_t i = 0; i < queue.size(); ++i) {
    const Slot slot = queue[i];
    if (graph_.children[slot] < max_children_) return slot;
    const std::size_t n = graph_.base.read(slot, links.data());
    for (std::size_t j = 0; j < n; ++j) {
      if (graph_.info[links[j]].anchor == slot) queue.push_back(links[j]);
    }
  }
  return root_;
}

}  // namespace upvec
