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

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

// A list that overflows is pruned to this share of its cap, so that the next few links to it cost
// nothing. Chosen with the table in plan.cpp; over two full turnovers of 12,000 rows .78 loses .36
// points of recall@10 to a fresh build at ef 32, .70 loses .23 to a fresh build that is itself .13
// lower, and an update costs 3,660 and 3,600 distances (.85 with 96 candidates: .30 points, 4,570).
std::size_t headroom(std::size_t cap) { return cap * 78 / 100; }

// A list that loses a link and is shorter than this gets a bridge. Over two full turnovers of
// 12,000 rows 28 of 32 ends at recall@10 .9827 at ef 32 for 3,660 distances an update, 24 of 32 at
// .9811 for 3,500.
std::size_t bridge_below(std::size_t cap) { return cap; }

// Below this the slot is planned anew. An absolute floor: a relative one lets degrees decay.
std::size_t degree_floor(std::size_t cap) { return cap / 4; }

bool holds(const std::vector<Neighbor>& members, Slot slot) {
  return std::any_of(members.begin(), members.end(),
                     [slot](const Neighbor& member) { return member.slot == slot; });
}

}  // namespace

std::uint64_t Commit::list_key(Slot slot, unsigned level) const noexcept {
  const std::uint64_t table = level == 0 ? 0 : 1;
  return table << 32 | graph_.list_of(slot, level);
}

std::vector<Slot> Commit::run(std::span<const Item> items, std::span<const ForcedLink> forced,
                              Team& team, std::span<Scratch* const> scratches) {
  gather(items, forced);
  workers_.resize(team.size());
  const std::size_t groups = group_starts_.size() - 1;
  team.run(groups, 16, [&](std::size_t group, unsigned worker) {
    const std::span<const Wish> wishes(wishes_.data() + group_starts_[group],
                                       group_starts_[group + 1] - group_starts_[group]);
    with_points(graph_, [&](const auto& points) {
      if (group + kAhead < groups) {
        const Wish& later = wishes_[group_starts_[group + kAhead]];
        prefetch_list(later.target, later.level);
        simd::prefetch_lines(points.current(later.target), points.point_bytes());
      }
      write_list(points, wishes, items, workers_[worker], *scratches[worker]);
    });
  });
  update_in_lists(team);

  std::vector<Slot> starved;
  for (Worker& worker : workers_) {
    starved.insert(starved.end(), worker.starved.begin(), worker.starved.end());
    worker.starved.clear();
  }
  std::sort(starved.begin(), starved.end());
  return starved;
}

void Commit::gather(std::span<const Item> items, std::span<const ForcedLink> forced) {
  asked_.clear();
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    for (std::size_t l = 0; l < item.levels.size(); ++l) {
      const auto level = static_cast<std::uint8_t>(l);
      const LevelPlan& plan = item.levels[l];
      asked_.push_back(
          {list_key(item.slot, level), item.slot, kNoSlot, 0.0F, i, 0, level, Want::kOwn});
      for (const Neighbor& link : plan.links) {
        asked_.push_back({list_key(link.slot, level), link.slot, item.slot, link.distance, i, 0,
                          level, Want::kReverse});
      }
      for (std::uint32_t in = 0; in < plan.old_in.size(); ++in) {
        const Slot target = plan.old_in[in];
        // Items of this sub-batch that leave their place get new lists anyway.
        if ((graph_.flags[target] & kInFlight) != 0) continue;
        const bool stays = item.task == Task::kMove && plan.stays_near[in] != 0;
        if (stays && !graph_.is_pending(target)) continue;
        asked_.push_back(
            {list_key(target, level), target, item.slot, kUnknown, i, in, level, Want::kLost});
      }
    }
  }
  for (const ForcedLink& link : forced) {
    asked_.push_back(
        {list_key(link.from, 0), link.from, link.to, kUnknown, 0, 0, 0, Want::kForced});
  }
  sort_wishes();
}

void Commit::sort_wishes() {
  constexpr unsigned kWantBits = 2;
  places_.clear();
  for (std::uint32_t i = 0; i < asked_.size(); ++i) {
    const std::uint64_t want = static_cast<std::uint64_t>(asked_[i].want);
    places_.push_back({asked_[i].list << kWantBits | want, i});
  }
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return a.order < b.order || (a.order == b.order && a.at < b.at);
  });
  wishes_.clear();
  group_starts_.clear();
  for (const Place& place : places_) {
    const Wish& wish = asked_[place.at];
    if (wishes_.empty() || wishes_.back().list != wish.list)
      group_starts_.push_back(wishes_.size());
    wishes_.push_back(wish);
  }
  group_starts_.push_back(wishes_.size());
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
      if (!holds(worker.members, wish.other)) worker.members.push_back({wish.distance, wish.other});
    }
    for (const Wish& wish : wishes) {
      if (wish.want == Want::kLost && worker.members.size() < bridge_below(table.cap())) {
        bridge(wish, items[wish.item], worker);
      }
    }
    if (worker.members.size() > table.cap()) shrink(points, target, level, worker, scratch);
    if (level == 0 && worker.members.size() < degree_floor(table.cap()) &&
        worker.members.size() < worker.before.size()) {
      worker.starved.push_back(target);
    }
  }
  worker.after.clear();
  for (const Neighbor& member : worker.members) worker.after.push_back(member.slot);
  if (worker.after == worker.before) return;
  table.write(list, worker.after);
  record_changes(target, level, worker);
}

// The target's own new links if it is an item; else its present ones, less those that are lost.
void Commit::start_members(std::span<const Wish> wishes, std::span<const Item> items,
                           Worker& worker) {
  worker.members.clear();
  const Wish& first = wishes[0];
  if (first.want == Want::kOwn) {
    const Item& item = items[first.item];
    const auto& links = item.levels[first.level].links;
    worker.members.assign(links.begin(), links.end());
    if (item.task == Task::kRelink && first.level == 0) {
      for (const Slot other : worker.before) {
        const bool anchored =
            graph_.info[other].anchor == first.target || graph_.info[first.target].anchor == other;
        if (anchored && !holds(worker.members, other)) worker.members.push_back({kUnknown, other});
      }
    }
    return;
  }
  for (const Slot other : worker.before) worker.members.push_back({kUnknown, other});
  for (const Wish& wish : wishes) {
    if (wish.want != Want::kLost) continue;
    std::erase_if(worker.members,
                  [&](const Neighbor& member) { return member.slot == wish.other; });
  }
}

// The nearest of the old neighbours of the slot that left, as the plan has measured them.
void Commit::bridge(const Wish& lost, const Item& item, Worker& worker) {
  if (holds(worker.members, lost.other)) return;
  const LevelPlan& plan = item.levels[lost.level];
  const std::size_t width = plan.old_links.size();
  const float* const distances = plan.bridges.data() + lost.in * width;
  // Whoever is nearest is mostly linked already: so each is looked at only when its turn comes.
  worker.bridges.assign(distances, distances + width);
  for (std::size_t tries = 0; tries < width; ++tries) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < width; ++i) {
      if (worker.bridges[i] < worker.bridges[best]) best = i;
    }
    const Slot other = plan.old_links[best];
    worker.bridges[best] = std::numeric_limits<float>::infinity();
    if (other == lost.target || (graph_.flags[other] & (kLeaving | kInFlight)) != 0) continue;
    if (holds(worker.members, other)) continue;
    worker.members.push_back({kUnknown, other});
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
  for (const Neighbor& member : worker.members) {
    scratch.points.push_back(point_of(member.slot));
    simd::prefetch_lines(scratch.points.back(), points.point_bytes());
  }
  measure(points, point, scratch);
  if constexpr (std::is_same_v<Points, CodePoints>) {
    const auto blurred = std::count_if(scratch.distances.begin(), scratch.distances.end(),
                                       [blur = points.blur(point)](float d) { return d < blur; });
    if (2 * static_cast<std::size_t>(blurred) > worker.members.size()) {
      shrink(ExactPoints(graph_), target, level, worker, scratch);
      return;
    }
  }
  for (std::size_t i = 0; i < worker.members.size(); ++i) {
    worker.members[i].distance = scratch.distances[i];
  }
  std::sort(worker.members.begin(), worker.members.end());
  const auto is_protected = [&](Slot slot) {
    return level == 0 && (graph_.info[slot].anchor == target || graph_.info[target].anchor == slot);
  };
  prune(points, worker.members, headroom(graph_.table(level).cap()), point_of, is_protected,
        scratch);
  worker.members.swap(scratch.kept);
}

void Commit::record_changes(Slot target, unsigned level, Worker& worker) {
  const auto level_byte = static_cast<std::uint8_t>(level);
  const std::vector<Slot>& before = worker.before;
  const std::vector<Slot>& after = worker.after;
  // Most lists keep their beginning.
  const std::size_t common = std::min(before.size(), after.size());
  std::size_t begin = 0;
  while (begin < common && before[begin] == after[begin]) ++begin;
  const auto record_missing = [&](const std::vector<Slot>& from, const std::vector<Slot>& in,
                                  bool came) {
    for (std::size_t i = begin; i < from.size(); ++i) {
      // Lists are short: looking at all of one without a branch beats sorting both.
      std::uint32_t found = 0;
      for (std::size_t j = begin; j < in.size(); ++j) found += in[j] == from[i] ? 1 : 0;
      if (found == 0) worker.changes.push_back({target, from[i], level_byte, came});
    }
  };
  record_missing(before, after, false);
  record_missing(after, before, true);
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
