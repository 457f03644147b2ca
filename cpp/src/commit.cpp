#include "commit.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "prune.hpp"
#include "simd/prefetch.hpp"
#include "traverse.hpp"

namespace upvec {
namespace {

// How many groups ahead lists and points are fetched.
constexpr std::size_t kAhead = 3;

// A list that overflows is pruned to this share of its cap, so that the next few links to it cost
// nothing. Chosen with the table in plan.cpp; over two full turnovers of 12,000 rows .78 loses .36
// points of recall@10 to a fresh build at ef 32, .70 loses .23 to a fresh build that is itself .13
// lower, and an update costs 3,660 and 3,600 distances (.85 with 96 candidates: .30 points, 4,570).
std::size_t headroom(std::size_t cap) { return cap * 78 / 100; }

// Below this the slot is planned anew. An absolute floor: a relative one lets degrees decay.
std::size_t degree_floor(std::size_t cap) { return cap / 4; }

}  // namespace

std::uint64_t Commit::list_key(Slot slot, unsigned level) const noexcept {
  const std::uint64_t table = level == 0 ? 0 : 1;
  return table << 32 | graph_.list_of(slot, level);
}

void Commit::ask(const Item& item, std::size_t index, unsigned worker_index) {
  Worker& worker = workers_[worker_index];
  Wish wish{};
  wish.item = static_cast<std::uint16_t>(index);
  for (unsigned level = 0; level < item.levels.size(); ++level) {
    const LevelPlan& plan = item.levels[level];
    wish.want = Want::kOwn;
    wish.other = kNoSlot;
    wish.rank = 0;
    ask(worker, item.slot, level, wish);
    wish.want = Want::kReverse;
    wish.other = item.slot;
    for (const Neighbor& link : plan.links) ask(worker, link.slot, level, wish);
    wish.want = Want::kLost;
    for (std::uint32_t in = 0; in < plan.old_in.size(); ++in) {
      const Slot target = plan.old_in[in];
      // Items of this sub-batch that leave their place get new lists anyway.
      if ((graph_.flags[target] & kInFlight) != 0) continue;
      const bool stays = item.task == Task::kMove && plan.stays_near[in] != 0;
      if (stays && !graph_.is_pending(target)) continue;
      wish.rank = in;
      ask(worker, target, level, wish);
    }
  }
}

void Commit::ask(Worker& worker, Slot target, unsigned level, const Wish& wish) const {
  const std::uint64_t list = list_key(target, level);
  Wish& one = worker.asked[list % kShares].emplace_back(wish);
  one.list = list;
  one.target = target;
  one.level = static_cast<std::uint8_t>(level);
}

std::vector<Slot> Commit::run(std::span<const Item> items, std::span<const ForcedLink> forced,
                              Team& team, std::span<Scratch* const> scratches) {
  for (std::uint32_t i = 0; i < forced.size(); ++i) {
    Wish wish{};
    wish.want = Want::kForced;
    wish.other = forced[i].to;
    wish.rank = i;
    ask(workers_[0], forced[i].from, 0, wish);
  }
  team.run(kShares, 1, [&](std::size_t share, unsigned worker) {
    write_share(share, items, workers_[worker], *scratches[worker]);
  });
  update_in_lists(team);

  std::vector<Slot> starved;
  for (Worker& worker : workers_) {
    for (std::vector<Wish>& asked : worker.asked) asked.clear();
    starved.insert(starved.end(), worker.starved.begin(), worker.starved.end());
    worker.starved.clear();
  }
  std::sort(starved.begin(), starved.end());
  return starved;
}

// All that is wished for in a share, in the order of the lists.
void Commit::gather(std::span<Worker> workers, std::size_t share, Worker& into) {
  into.wishes.clear();
  for (const Worker& worker : workers) {
    into.wishes.insert(into.wishes.end(), worker.asked[share].begin(), worker.asked[share].end());
  }
  std::sort(into.wishes.begin(), into.wishes.end());
  into.group_starts.clear();
  for (std::size_t i = 0; i < into.wishes.size(); ++i) {
    if (i == 0 || into.wishes[i].list != into.wishes[i - 1].list) into.group_starts.push_back(i);
  }
  into.group_starts.push_back(into.wishes.size());
}

void Commit::write_share(std::size_t share, std::span<const Item> items, Worker& worker,
                         Scratch& scratch) {
  gather(workers_, share, worker);
  const std::span<const Wish> all = worker.wishes;
  const std::vector<std::size_t>& starts = worker.group_starts;
  with_points(graph_, [&](const auto& points) {
    for (std::size_t group = 0; group + 1 < starts.size(); ++group) {
      if (group + kAhead + 1 < starts.size()) {
        const Wish& later = all[starts[group + kAhead]];
        prefetch_list(later.target, later.level);
        simd::prefetch_lines(points.current(later.target), points.point_bytes());
      }
      write_list(points, all.subspan(starts[group], starts[group + 1] - starts[group]), items,
                 worker, scratch);
    }
  });
}

// Lists are short: looking at all of one without a branch beats leaving early.
bool Commit::Worker::links_to(Slot slot) const noexcept {
  std::uint32_t found = 0;
  for (const Slot member : members) found += member == slot ? 1 : 0;
  return found != 0;
}

void Commit::Worker::add(Slot slot) {
  if (holes == 0) {
    members.push_back(slot);
    return;
  }
  *std::find(members.begin(), members.end(), kNoSlot) = slot;
  --holes;
}

void Commit::Worker::close_holes() {
  for (std::size_t i = 0; holes > 0; ++i) {
    while (holes > 0 && members.back() == kNoSlot) {
      members.pop_back();
      --holes;
    }
    if (holes == 0 || members[i] != kNoSlot) continue;
    members[i] = members.back();
    members.pop_back();
    --holes;
  }
}

template <typename Points>
void Commit::write_list(const Points& points, std::span<const Wish> wishes,
                        std::span<const Item> items, Worker& worker, Scratch& scratch) {
  const Slot target = wishes[0].target;
  const unsigned level = wishes[0].level;
  LinkTable& table = graph_.table(level);
  const std::size_t list = graph_.list_of(target, level);
  worker.before.resize(table.cap());
  worker.before.resize(table.read(list, worker.before.data()));

  start_members(wishes, items, worker);
  const bool removed = (graph_.flags[target] & (kInFlight | kLeaving)) == (kInFlight | kLeaving);
  if (!removed) {
    for (const Wish& wish : wishes) {
      if (wish.want != Want::kForced && wish.want != Want::kReverse) continue;
      if (!worker.links_to(wish.other)) worker.add(wish.other);
    }
    for (const Wish& wish : wishes) {
      if (wish.want == Want::kLost && worker.degree() < bridge_below(table.cap())) {
        bridge(wish, items[wish.item], worker);
      }
    }
    worker.close_holes();
    if (worker.degree() > table.cap()) shrink(points, target, level, worker, scratch);
    if (level == 0 && worker.degree() < degree_floor(table.cap()) &&
        worker.degree() < worker.before.size()) {
      worker.starved.push_back(target);
    }
  }
  if (worker.members == worker.before) return;
  table.write(list, worker.members);
  record_changes(target, level, worker);
}

// The target's own new links if it is an item; else its present ones, with holes for those that are
// lost.
void Commit::start_members(std::span<const Wish> wishes, std::span<const Item> items,
                           Worker& worker) {
  const Wish& first = wishes[0];
  worker.holes = 0;
  if (first.want == Want::kOwn) {
    const Item& item = items[first.item];
    worker.members.clear();
    for (const Neighbor& link : item.levels[first.level].links) worker.members.push_back(link.slot);
    if (item.task == Task::kRelink && first.level == 0) {
      for (const Slot other : worker.before) {
        const bool anchored =
            graph_.info[other].anchor == first.target || graph_.info[first.target].anchor == other;
        if (anchored && !worker.links_to(other)) worker.members.push_back(other);
      }
    }
    return;
  }
  worker.members.assign(worker.before.begin(), worker.before.end());
  for (const Wish& wish : wishes) {
    if (wish.want != Want::kLost) continue;
    const auto lost = std::find(worker.members.begin(), worker.members.end(), wish.other);
    if (lost == worker.members.end()) continue;
    *lost = kNoSlot;
    ++worker.holes;
  }
}

// To the nearest that the plan has found and nothing else has linked meanwhile.
void Commit::bridge(const Wish& lost, const Item& item, Worker& worker) {
  if (worker.links_to(lost.other)) return;
  for (const Slot other : item.levels[lost.level].bridges[lost.rank]) {
    if (other == kNoSlot) return;
    if (worker.links_to(other)) continue;
    worker.add(other);
    return;
  }
}

template <typename Points>
void Commit::shrink(const Points& points, Slot target, unsigned level, Worker& worker,
                    Scratch& scratch) {
  // A slot that a later sub-batch will move keeps, until then, the links that are right for its old
  // place: there, everything counts where it is linked now.
  const bool leaves_later = graph_.is_pending(target) && (graph_.flags[target] & kInFlight) == 0;
  const auto point_of = [&](Slot slot) {
    return leaves_later ? points.linked(slot) : points.planned(slot);
  };
  const Point point = point_of(target);
  scratch.points.clear();
  for (const Slot member : worker.members) {
    scratch.points.push_back(point_of(member));
    simd::prefetch_lines(scratch.points.back(), points.point_bytes());
  }
  measure(points, point, scratch);
  if constexpr (std::is_same_v<Points, CodePoints>) {
    const auto blurred = std::count_if(scratch.distances.begin(), scratch.distances.end(),
                                       [blur = points.blur(point)](float d) { return d < blur; });
    if (2 * static_cast<std::size_t>(blurred) > worker.members.size()) {
      shrink(RowPoints(graph_), target, level, worker, scratch);
      return;
    }
  }
  auto& candidates = scratch.candidates;
  candidates.clear();
  for (std::size_t i = 0; i < worker.members.size(); ++i) {
    candidates.push_back({scratch.distances[i], worker.members[i]});
  }
  std::sort(candidates.begin(), candidates.end());
  const auto is_protected = [&](Slot slot) {
    return level == 0 && (graph_.info[slot].anchor == target || graph_.info[target].anchor == slot);
  };
  prune(points, candidates, headroom(graph_.table(level).cap()), point_of, is_protected, scratch);
  worker.members.clear();
  for (const Neighbor& kept : scratch.kept) worker.members.push_back(kept.slot);
}

void Commit::record_changes(Slot target, unsigned level, Worker& worker) {
  const std::vector<Slot>& before = worker.before;
  const std::vector<Slot>& after = worker.members;
  worker.gone.clear();
  worker.come.clear();
  // What stays mostly keeps its place.
  const std::size_t common = std::min(before.size(), after.size());
  for (std::size_t i = 0; i < common; ++i) {
    if (before[i] == after[i]) continue;
    worker.gone.push_back(before[i]);
    worker.come.push_back(after[i]);
  }
  const auto rest = static_cast<std::ptrdiff_t>(common);
  worker.gone.insert(worker.gone.end(), before.begin() + rest, before.end());
  worker.come.insert(worker.come.end(), after.begin() + rest, after.end());

  const auto record_missing = [&](const std::vector<Slot>& from, const std::vector<Slot>& in,
                                  bool came) {
    for (const Slot other : from) {
      std::uint32_t found = 0;
      for (const Slot slot : in) found += slot == other ? 1 : 0;
      if (found != 0) continue;
      worker.changes.push_back({target, other, static_cast<std::uint8_t>(level), came});
    }
  };
  record_missing(worker.gone, worker.come, false);
  record_missing(worker.come, worker.gone, true);
}

// In two steps, as what becomes of the in-lists depends on links both ways: all lists must be
// written before the first step, and an in-list is changed by one thread in the second.
void Commit::update_in_lists(Team& team) {
  team.run(workers_.size(), 1,
           [&](std::size_t worker, unsigned) { find_in_changes(workers_[worker]); });
  team.run(kShares, 1, [&](std::size_t share, unsigned) {
    for (Worker& worker : workers_) {
      apply(worker.in_changes[share]);
      worker.in_changes[share].clear();
    }
  });
}

// v belongs in the in-list of u exactly if v links to u and u not to v. For a link u -> v that came
// or went these lists can be wrong: v's, about u, unless v -> u is there; and u's, about v, if v
// -> u is there or went at the same time. If both came or went, each has its turn, and no matter
// in which order, they ask for the same.
void Commit::find_in_changes(Worker& worker) const {
  constexpr std::size_t kListsAhead = 8;
  const std::vector<Change>& changes = worker.changes;
  const auto in_change = [&](Slot owner, Slot slot, std::uint8_t level, bool comes) {
    const std::uint64_t key = list_key(owner, level);
    worker.in_changes[key % kShares].push_back(
        {static_cast<std::uint32_t>(key), slot, level, comes});
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i + kListsAhead < changes.size()) {
      prefetch_list(changes[i + kListsAhead].to, changes[i + kListsAhead].level);
    }
    const auto [from, to, level, came] = changes[i];
    const bool back = graph_.table(level).contains(graph_.list_of(to, level), from);
    if (came) {
      in_change(from, to, level, false);
      if (!back) in_change(to, from, level, true);
    } else if (back) {
      in_change(from, to, level, true);
    } else {
      in_change(to, from, level, false);
    }
  }
  worker.changes.clear();
}

void Commit::apply(const std::vector<InChange>& in_changes) {
  constexpr std::size_t kHeadsAhead = 12;
  constexpr std::size_t kSlotsAhead = 6;
  for (std::size_t i = 0; i < in_changes.size(); ++i) {
    if (i + kHeadsAhead < in_changes.size()) {
      const InChange& later = in_changes[i + kHeadsAhead];
      graph_.table(later.level).in.prefetch_head(later.list);
    }
    if (i + kSlotsAhead < in_changes.size()) {
      const InChange& later = in_changes[i + kSlotsAhead];
      graph_.table(later.level).in.prefetch_slots(later.list);
    }
    const InChange& one = in_changes[i];
    InLists& in = graph_.table(one.level).in;
    if (one.comes) {
      in.insert(one.list, one.slot);
    } else {
      in.erase(one.list, one.slot);
    }
  }
}

void Commit::prefetch_list(Slot slot, unsigned level) const noexcept {
  const LinkTable& table = graph_.table(level);
  simd::prefetch_lines(table.words(graph_.list_of(slot, level)), table.cap() * sizeof(LinkWord));
}

}  // namespace upvec
