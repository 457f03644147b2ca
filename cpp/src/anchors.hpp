// Anchors: the spanning tree that keeps level 0 connected.
//
// Every slot but the root keeps a mutual link to its anchor; pruning may not remove it; and
// following anchors from any slot ends at the root. So level 0 is connected in both directions, and
// a search from any entry can reach every slot. An anchor is accepted only if its own anchors lead
// to the root, which keeps cycles out. Few children an anchor, so that no list fills up with
// protected links.
//
// Used by the writer alone, between the plan and the commit of a sub-batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph.hpp"
#include "plan.hpp"

namespace upvec {

// `from` must link to `to`.
struct ForcedLink {
  Slot from;
  Slot to;
};

class Anchors {
 public:
  explicit Anchors(Graph& graph);

  [[nodiscard]] Slot root() const noexcept { return root_; }
  void set_root(Slot root) noexcept { root_ = root; }

  // Takes the items that leave their place out of the tree and gives new anchors to them and to the
  // slots that were anchored to them. Returns the links that the commit must make.
  std::vector<ForcedLink> reattach(std::span<const Item> items, Counters& counters);

  [[nodiscard]] std::uint8_t max_children() const noexcept { return max_children_; }

 private:
  struct Loose {
    Slot slot;
    const Item* item;  // null for an orphan, whose links stay where they are
  };
  void detach(std::span<const Item> items, std::vector<Loose>& loose);
  void choose_root(std::vector<Loose>& loose);
  bool attach_to_neighbor(const Loose& loose, Counters& counters, std::vector<ForcedLink>& forced);
  void attach_anywhere(const Loose& loose, Counters& counters, std::vector<ForcedLink>& forced);
  void attach(Slot child, Slot anchor, std::vector<ForcedLink>& forced);
  [[nodiscard]] bool accepts(Slot slot);
  [[nodiscard]] bool reaches_root(Slot slot);
  [[nodiscard]] Slot place_in_tree(const std::vector<ForcedLink>& forced) const;
  [[nodiscard]] float distance(Slot a, Slot b) const;
  void neighbors_of(const Loose& loose, Counters& counters);

  Graph& graph_;
  std::uint8_t max_children_;
  Slot root_ = kNoSlot;
  // Flagged kReached: known to reach the root in this call. Attachments are only added after the
  // detaching at its start, so such knowledge stays true, and walks are short.
  std::vector<Slot> reached_;
  std::vector<Slot> walk_;
  std::vector<Neighbor> near_;
};

}  // namespace upvec
