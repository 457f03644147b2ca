// Plan: what a sub-batch will do to the graph, computed without writing to it.
//
// A batch first writes all its new vectors as planned rows. It is then cut into sub-batches; for
// each row of one the plan searches the graph as it stands (by linked rows, for which the links are
// right), measures what it finds by planned rows (where everything will be when the batch is done),
// adds the other rows of the sub-batch, of which it measures every one, and prunes. Plans of one
// sub-batch do not see each other's results, so they can be made in any order by any number of
// threads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "graph.hpp"

namespace upvec {

enum class Task : std::uint8_t {
  kInsert,  // a slot without links
  kDrift,   // a slot that moves so little that its links stay: never planned
  kMove,    // a slot whose planned row differs from its linked row
  kRemove,
  kRelink,  // a slot that lost too many links: new ones, same row
};

// Where a link may lead in place of one that is lost, nearest first; kNoSlot where there is no
// more.
using Bridges = std::array<Slot, 3>;

// A list that loses a link and is shorter than this gets a bridge. At .4 and .5 of the width (see
// plan.cpp), recall@10 at ef 32 and 64 after eight turnovers less a fresh build's, in points, and
// moves as a ratio to inserts:
//   of 32   18,000 x 384 texts: unrelated, cluster    25,000 x 128 SIFT: unrelated, cluster
//   always  -.05 -.13   .83     -.16 -.11   1.02      -.05 -.05   .70     -.20 -.08   .89
//   28        0  -.10   .87     -.16 -.08   1.12      +.02 -.06   .75     -.11   0    .91
//   26      -.02 -.10   .95     -.24 -.09   1.06      +.05 -.07   .79     -.06 -.04   .96
//   24      -.09 -.11   .99     -.22 -.08   1.13      -.07 -.07   .84     -.11 -.03  1.01
inline std::size_t bridge_below(std::size_t cap) { return cap - cap / 8; }

struct LevelPlan {
  std::vector<Neighbor> links;           // chosen, nearest first; empty for kRemove
  std::vector<Slot> old_links;           // kMove, kRemove: before the sub-batch
  std::vector<Slot> old_in;              // kMove, kRemove: every slot that links here
  std::vector<std::uint8_t> stays_near;  // kMove: 1 for each of old_in that may keep its link
  std::vector<Bridges> bridges;          // for each of old_in
};

struct Item {
  Slot slot = kNoSlot;
  Task task = Task::kInsert;
  float slack = 0.0F;             // with the new links
  std::vector<LevelPlan> levels;  // [0, level of the slot]

  [[nodiscard]] bool gets_links() const noexcept { return task != Task::kRemove; }
  [[nodiscard]] bool leaves_place() const noexcept {
    return task == Task::kMove || task == Task::kRemove;
  }
};

// The slots of a sub-batch that get links, by level.
class Peers {
 public:
  void gather(std::span<const Item> items);
  [[nodiscard]] std::span<const Slot> operator[](unsigned level) const { return by_level_[level]; }

 private:
  std::array<std::vector<Slot>, kMaxLevel + 1> by_level_;
};

void plan_item(const Graph& graph, Item& item, const Peers& peers, std::size_t ef_construction,
               Scratch& scratch);

}  // namespace upvec
