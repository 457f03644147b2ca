#include "plan.hpp"

#include <algorithm>

#include "drift.hpp"
#include "prune.hpp"
#include "traverse.hpp"

namespace upvec {
namespace {

// How many of the nearest are candidates for links, and how many links a new row may choose of them
// (of the cap; the others come from rows that choose it). Measured with the headroom in commit.cpp
// on 18,000 x 384 text embeddings by exact vectors, M = 16, alpha 1.1; distances a row to insert,
// and a query at recall@10 of .95 and .99:
//   candidates  own links  headroom   insert   .95    .99
//   all (450)      1         .85       5,490   583   1,228
//   96             1         .85       3,770   577   1,234
//   96            3/4        .85       3,430   591   1,230
//   64            3/4        .85       3,010   580   1,239
//   64            3/4        .78       2,870   565   1,222
//   48            3/4        .78       2,580   572   1,245
//   96            1/2        .85       2,610   588   1,306
// What decides is recall under churn, by codes: two turnovers by unrelated vectors, recall@10 at
// ef 16 / 32 / 64 less that of a fresh build, in points, and distances an update:
//          10,000 x 384 texts            15,000 x 128 image descriptors
//   64     -.4 / -.4 / -.2    3,420
//   96     +.2 / -.2 / -.1    3,920      -.6 / -.5 / -.3    3,460
//   128    -.2 / -.2 /   0    3,980
//   140                                  -.2 / -.4 / -.1    3,750
//   200    -.3 / -.2 /   0    4,200      +.2 / -.3 / -.1    4,000
//   400                                  -.2 / -.4 / -.2    4,530
// The farther candidates bring the long links that a graph has from its youth and that moves would
// take away. Against 96, 200 cost 2 % of the time of an insert and 8 % of a move's.
constexpr std::size_t kPruneCandidates = 200;
std::size_t own_links(std::size_t cap) { return cap * 3 / 4; }

void remember_place(const Graph& graph, Slot slot, unsigned level, LevelPlan& plan) {
  const LinkTable& table = graph.table(level);
  const std::size_t list = graph.list_of(slot, level);
  plan.old_links.resize(table.cap());
  plan.old_links.resize(table.read(list, plan.old_links.data()));
  const std::span<const Slot> one_way = table.in.get(list);
  plan.old_in.assign(one_way.begin(), one_way.end());
  for (const Slot other : plan.old_links) {
    simd::prefetch_lines(table.words(graph.list_of(other, level)), table.cap() * sizeof(LinkWord));
  }
  for (const Slot other : one_way) {
    simd::prefetch_lines(table.words(graph.list_of(other, level)), table.cap() * sizeof(LinkWord));
  }
  for (const Slot other : plan.old_links) {
    if (table.contains(graph.list_of(other, level), slot)) plan.old_in.push_back(other);
  }
  std::sort(plan.old_in.begin(), plan.old_in.end());
}

// The pool's slots as they will be: without those that leave and those of this sub-batch (which are
// measured one and all elsewhere), and at their planned rows. In order, those that do not move
// first; returns how many they are.
template <typename Points>
std::size_t collect_found(const Points& points, Point query, Scratch& scratch) {
  const Graph& graph = points.graph();
  scratch.moving.clear();
  for (std::size_t i = 0; i < scratch.pool.size(); ++i) {
    const Neighbor found = scratch.pool[i];
    const std::uint8_t flags = graph.flags[found.slot];
    if ((flags & (kLeaving | kInFlight)) != 0) continue;
    if ((flags & kPending) != 0) {
      ++scratch.counters.distances;
      scratch.moving.push_back({points.distance(query, points.planned(found.slot)), found.slot});
    } else {
      scratch.candidates.push_back(found);
    }
  }
  const std::size_t settled = scratch.candidates.size();
  scratch.candidates.insert(scratch.candidates.end(), scratch.moving.begin(), scratch.moving.end());
  return settled;
}

// The other rows of the sub-batch; without those beyond the farthest that was found, if that is all
// that the pool has room for.
template <typename Points>
void collect_peers(const Points& points, std::span<const Slot> peers, Slot self, Point query,
                   Scratch& scratch) {
  auto& candidates = scratch.candidates;
  const bool bounded = !candidates.empty() && scratch.pool.is_full();
  const Neighbor last =
      bounded ? *std::max_element(candidates.begin(), candidates.end()) : Neighbor{};
  scratch.slots.assign(peers.begin(), peers.end());
  scratch.points.clear();
  for (const Slot peer : peers) scratch.points.push_back(points.planned(peer));
  measure(points, query, scratch);
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    const Neighbor peer{scratch.distances[i], scratch.slots[i]};
    if (peer.slot != self && (!bounded || peer < last)) candidates.push_back(peer);
  }
}

// Sorts what is in order up to a place already.
void sort_rest(std::vector<Neighbor>& candidates, std::size_t sorted) {
  const auto rest = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
  std::sort(rest, candidates.end());
  std::inplace_merge(candidates.begin(), rest, candidates.end());
}

// The nearest that is no peer and will stay; failing that, moves later in the batch.
Neighbor nearest_outside(const std::vector<Neighbor>& found, std::size_t settled) {
  if (found.empty()) return {0.0F, kNoSlot};
  return settled > 0 ? found[0] : *std::min_element(found.begin(), found.end());
}

// Many rows that arrive together, near each other and far from all else, would choose nothing but
// each other: then no search finds the way to them, but by chance. So at least one link leads
// outside. It takes the place of the farthest, if there is no room.
void keep_way_out(const Graph& graph, Neighbor outside, std::size_t limit,
                  std::vector<Neighbor>& links) {
  const auto is_peer = [&](const Neighbor& link) {
    return (graph.flags[link.slot] & kInFlight) != 0;
  };
  if (outside.slot == kNoSlot || !std::all_of(links.begin(), links.end(), is_peer)) return;
  if (links.size() == limit) links.pop_back();
  links.insert(std::upper_bound(links.begin(), links.end(), outside), outside);
}

template <typename Points>
void choose_links(const Points& points, unsigned level, Neighbor outside, LevelPlan& plan,
                  Scratch& scratch) {
  const Graph& graph = points.graph();
  const std::size_t limit = own_links(graph.table(level).cap());
  const std::size_t n = std::min(kPruneCandidates, scratch.candidates.size());
  prune(
      points, std::span<const Neighbor>(scratch.candidates).first(n), limit,
      [&](Slot slot) { return points.planned(slot); }, [](Slot) { return false; }, scratch);
  plan.links.assign(scratch.kept.begin(), scratch.kept.end());
  keep_way_out(graph, outside, limit, plan.links);
}

void keep_nearest(const Scratch& scratch, Bridges& bridges) {
  std::array<Neighbor, std::tuple_size_v<Bridges>> nearest;
  std::size_t n = 0;
  for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
    Neighbor one{scratch.distances[i], scratch.slots[i]};
    for (std::size_t j = 0; j < n; ++j) {
      if (one < nearest[j]) std::swap(one, nearest[j]);
    }
    if (n < nearest.size()) nearest[n++] = one;
  }
  for (std::size_t j = 0; j < n; ++j) bridges[j] = nearest[j].slot;
}

// Who loses its link to a slot gets one to the nearest of the slot's neighbours in exchange, to
// which it has none yet. Found here, while all of them are at hand; a few for each of old_in, as
// others may be given to it by the same sub-batch.
template <typename Points>
void choose_bridges(const Points& points, const Item& item, unsigned level, LevelPlan& plan,
                    Scratch& scratch) {
  const Graph& graph = points.graph();
  const LinkTable& table = graph.table(level);
  scratch.next_slots.clear();
  for (const Slot other : plan.old_links) {
    if ((graph.flags[other] & (kLeaving | kInFlight)) == 0) scratch.next_slots.push_back(other);
  }
  scratch.slots = scratch.next_slots;
  locate(points, scratch);
  scratch.next_points = scratch.points;
  plan.bridges.assign(plan.old_in.size(), Bridges{});
  std::vector<Slot>& linked = scratch.linked;
  for (std::size_t i = 0; i < plan.old_in.size(); ++i) {
    const Slot target = plan.old_in[i];
    const bool stays = item.task == Task::kMove && plan.stays_near[i] != 0;
    if ((graph.flags[target] & kInFlight) != 0 || (stays && !graph.is_pending(target))) continue;
    linked.resize(table.cap());
    linked.resize(table.read(graph.list_of(target, level), linked.data()));
    // Links to slots of this sub-batch may all be lost.
    const auto stay =
        static_cast<std::size_t>(std::count_if(linked.begin(), linked.end(), [&](Slot slot) {
          return (graph.flags[slot] & kInFlight) == 0;
        }));
    if (stay >= bridge_below(table.cap())) continue;
    scratch.slots.clear();
    scratch.points.clear();
    for (std::size_t j = 0; j < scratch.next_slots.size(); ++j) {
      const Slot other = scratch.next_slots[j];
      std::uint32_t found = other == target ? 1 : 0;
      for (const Slot slot : linked) found += slot == other ? 1 : 0;
      if (found != 0) continue;
      scratch.slots.push_back(other);
      scratch.points.push_back(scratch.next_points[j]);
    }
    measure(points, points.current(target), scratch);
    keep_nearest(scratch, plan.bridges[i]);
  }
}

// A move takes a slot away from those that link to it, if their distance grows by more than this.
// Recall@10 at ef 16 / 32 / 64 less a fresh build's, in points: three turnovers of 10,000 rows by
// noise of 30 % of the nearest neighbour's distance, and two by unrelated vectors:
//   1.0   -.1 / -.3 / -.3   +.1 / -.3 / -.1        1.3   0 / -.2 / -.1   -.2 / -.4 / -.2
//   1.2     0 / -.1 / -.1     0 / -.3 / -.1        1.5   0 / -.1 / -.1   -.6 / -.6 / -.2
constexpr float kStillNear = 1.2F;

// Which of the slots that link here may go on doing so.
template <typename Points>
void measure_move(const Points& points, const Item& item, LevelPlan& plan, Scratch& scratch) {
  scratch.slots.assign(plan.old_in.begin(), plan.old_in.end());
  locate(points, scratch);
  measure(points, points.current(item.slot), scratch);
  const std::vector<float> before(scratch.distances.begin(), scratch.distances.end());
  measure(points, points.planned(item.slot), scratch);
  plan.stays_near.resize(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    plan.stays_near[i] = scratch.distances[i] <= kStillNear * before[i] ? 1 : 0;
  }
}

// A medium move: the new place is no farther from the nearest of the old neighbours than half of
// them are from the old place. Then scratch.pool starts with the old neighbours.
template <typename Points>
bool start_from_old_neighbors(const Points& points, const Item& item, Point query,
                              Scratch& scratch) {
  const std::vector<Slot>& old = item.levels[0].old_links;
  if (item.task != Task::kMove || item.levels.size() > 1 || old.empty()) return false;
  scratch.slots.assign(old.begin(), old.end());
  locate(points, scratch);
  measure(points, points.current(item.slot), scratch);
  const auto middle = scratch.distances.begin() + static_cast<std::ptrdiff_t>(old.size() / 2);
  std::nth_element(scratch.distances.begin(), middle, scratch.distances.end());
  const float radius = *middle;
  measure(points, query, scratch);
  if (*std::min_element(scratch.distances.begin(), scratch.distances.end()) > radius) return false;
  scratch.visited.begin(points.graph().slot_end.load(std::memory_order_relaxed));
  scratch.visited.insert(item.slot);  // it will have gone
  for (std::size_t i = 0; i < old.size(); ++i) {
    scratch.visited.insert(old[i]);
    scratch.pool.insert({scratch.distances[i], old[i]});
  }
  return true;
}

// How far a plan looks: it keeps so many candidates, and expands the nearest of them.
struct Effort {
  std::size_t capacity;
  std::size_t width;
};

// An insert keeps ef_construction candidates. Whether the farther ones are expanded, too, hardly
// matters to what pruning makes of them: rows/s as a ratio and recall@10 at ef 16 / 32 / 64 / 128,
//            18,000 x 384 texts                    50,000 x 128 SIFT
//   all      1     95.71  98.58  99.58  99.89      1     93.91  97.98  99.59  99.91
//   .8       1.08  95.69  98.53  99.56  99.87      1.07  93.86  97.95  99.59  99.91
//   .6       1.18  95.66  98.52  99.56  99.86      1.17  93.80  97.89  99.59  99.91
//   .45      1.29  95.61  98.41  99.53  99.84      1.28  93.70  97.84  99.54  99.90
// A move needs less, as bridges and links that it leaves to others make up for it; a medium one,
// which starts among its old neighbours, keeps fewer, too. Recall@10 at ef 32 and 64 less a fresh
// build's, in points, after eight turnovers by unrelated vectors, and after v1 -> v2 of the texts
// in one batch; and the first kind of moves as a ratio to inserts:
//   far  medium   texts: unrelated   v1 -> v2           SIFT: unrelated
//   .7   3/4      -.05 -.09   .69    +.03 -.15   .88    +.08 -.01   .64
//   .5   3/5      0    -.06   .73    +.03 -.10  1.00    +.02 -.06   .67
//   .4   1/2      -.06 -.09   .81    -.04 -.21   .99    -.05 -.06   .75
// (without bridge_below(), and the last row with it; v1 -> v2 always with it). What stands here is
// 1/2 and 1/2: by bench.churn, ten turnovers, +.03 -.05 .81, -.02 -.20 1.02, and -.01 -.05 .73; two
// runs of the same differ by up to .1 points. In one batch of
// 10,000 rows, a medium move's distances, and recall at ef 16 / 32 / 64 less a fresh build's, by
// how many candidates it keeps of ef_construction:
//              noise of 30 %              v1 -> v2 of the texts
//   all        3,360   0 / -.2 / -.1      3,810   +.1 /   0 / 0
//   3/4        2,980   0 / -.1 / -.1      3,400   +.1 / -.1 / 0
//   1/2        2,590 -.1 / -.1 / -.1      2,990     0 / -.3 / 0
Effort effort_of(Task task, bool near, std::size_t ef_construction) {
  const auto at_least_one = [](std::size_t n) { return std::max<std::size_t>(1, n); };
  if (near) {
    const std::size_t capacity = at_least_one(ef_construction * 3 / 4);
    return {capacity, at_least_one(capacity * 2 / 3)};
  }
  const std::size_t tenths = task == Task::kMove ? 5 : 7;
  return {ef_construction, at_least_one(ef_construction * tenths / 10)};
}

// Whether the pool is full of slots that these points can hardly tell apart.
template <typename Points>
bool is_blurred(const Points& points, Point query, const CandidatePool& pool) {
  return pool.is_full() && pool.size() > 0 && pool[pool.size() - 1].distance < points.blur(query);
}

// False, with nothing of use in the plan, if that needs points that see better.
template <typename Points>
bool find_links(const Points& points, Item& item, const Peers& peers, std::size_t ef_construction,
                Scratch& scratch) {
  const Graph& graph = points.graph();
  const auto top = static_cast<unsigned>(item.levels.size() - 1);
  const Point query = points.planned(item.slot);
  const Slot entry = graph.entry.load(std::memory_order_relaxed);
  const unsigned entry_level = entry == kNoSlot ? 0 : graph.level_of(entry);
  const Effort near_effort = effort_of(item.task, true, ef_construction);
  scratch.pool.begin(near_effort.capacity, near_effort.width);
  const bool near = start_from_old_neighbors(points, item, query, scratch);
  Neighbor nearest{0.0F, kNoSlot};
  if (entry != kNoSlot && !near) nearest = descend(points, query, entry, top, scratch);

  for (unsigned level = top + 1; level-- > 0;) {
    scratch.candidates.clear();
    std::size_t sorted = 0;
    if (near) {
      beam_search(points, query, level, scratch, [](Neighbor) {});
      if (is_blurred(points, query, scratch.pool)) return false;
      sorted = collect_found(points, query, scratch);
    } else if (nearest.slot != kNoSlot && level <= entry_level) {
      scratch.visited.begin(graph.slot_end.load(std::memory_order_relaxed));
      const Effort effort = effort_of(item.task, false, ef_construction);
      scratch.pool.begin(effort.capacity, effort.width);
      scratch.visited.insert(nearest.slot);
      scratch.pool.insert(nearest);
      beam_search(points, query, level, scratch, [](Neighbor) {});
      if (is_blurred(points, query, scratch.pool)) return false;
      nearest = scratch.pool[0];
      sorted = collect_found(points, query, scratch);
    }
    const Neighbor outside = nearest_outside(scratch.candidates, sorted);
    collect_peers(points, peers[level], item.slot, query, scratch);
    sort_rest(scratch.candidates, sorted);
    choose_links(points, level, outside, item.levels[level], scratch);
  }
  item.slack = slack_of(points.metric(), item.levels[0].links, points.blur(query));
  return true;
}

}  // namespace

void Peers::gather(std::span<const Item> items) {
  for (std::vector<Slot>& slots : by_level_) slots.clear();
  for (const Item& item : items) {
    if (!item.gets_links()) continue;
    for (std::size_t level = 0; level < item.levels.size(); ++level) {
      by_level_[level].push_back(item.slot);
    }
  }
}

void plan_item(const Graph& graph, Item& item, const Peers& peers, std::size_t ef_construction,
               Scratch& scratch) {
  with_points(graph, [&](const auto& points) {
    if (item.leaves_place()) {
      for (unsigned level = 0; level < item.levels.size(); ++level) {
        LevelPlan& plan = item.levels[level];
        remember_place(graph, item.slot, level, plan);
        if (item.task == Task::kMove) measure_move(points, item, plan, scratch);
        choose_bridges(points, item, level, plan, scratch);
      }
    }
    if (!item.gets_links()) return;
    ++scratch.counters.queries;
    if (!find_links(points, item, peers, ef_construction, scratch)) {
      find_links(RowPoints(graph), item, peers, ef_construction, scratch);
    }
  });
}

}  // namespace upvec
