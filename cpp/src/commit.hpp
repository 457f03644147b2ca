// Commit: writes what was planned, one new list per touched slot.
//
// All that a sub-batch wants of a list is gathered first and grouped by list; then every list is
// written once, by one thread, so no list needs a lock; then the in-lists are brought in line,
// again one list at a time. Each result depends on the plans alone, never on the number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "anchors.hpp"
#include "graph.hpp"
#include "plan.hpp"
#include "team.hpp"

namespace upvec {

class Commit {
 public:
  explicit Commit(Graph& graph) : graph_(graph) {}

  // Writes the lists. scratches: one per worker of the team.
  // Returns the slots that were left with too few links on level 0, in ascending order.
  std::vector<Slot> run(std::span<const Item> items, std::span<const ForcedLink> forced, Team& team,
                        std::span<Scratch* const> scratches);

 private:
  enum class Want : std::uint8_t { kOwn, kForced, kReverse, kLost };
  struct Wish {
    std::uint64_t list;  // which table, then which list in it
    Slot target;         // whose list it is
    Slot other;          // kNoSlot for kOwn
    float distance;      // kReverse: between the planned rows
    std::uint32_t item;  // whose plan asks for it; 0 for kForced
    std::uint32_t in;    // kLost: where the target stands in the plan's old_in
    std::uint8_t level;
    Want want;
  };
  // Where a wish stands in asked_, and where it belongs: by list, then by what is wanted.
  struct Place {
    std::uint64_t order;
    std::uint32_t at;
  };
  // A link that came or went.
  struct Change {
    Slot from;
    Slot to;
    std::uint8_t level;
    bool came;
  };
  // What that does to an in-list.
  struct InChange {
    std::uint32_t list;
    Slot slot;
    std::uint8_t level;
    bool comes;
  };
  // In-lists are shared out by share: all that touches one of them falls into the same.
  static constexpr std::size_t kShares = 64;
  struct Worker {
    std::vector<Change> changes;
    std::array<std::vector<InChange>, kShares> in_changes;
    std::vector<Slot> starved;
    std::vector<Slot> before;
    std::vector<Neighbor> members;
    std::vector<float> bridges;
    std::vector<Slot> after;
  };

  [[nodiscard]] std::uint64_t list_key(Slot slot, unsigned level) const noexcept;
  void gather(std::span<const Item> items, std::span<const ForcedLink> forced);
  void sort_wishes();
  template <typename Points>
  void write_list(const Points& points, std::span<const Wish> wishes, std::span<const Item> items,
                  Worker& worker, Scratch& scratch);
  void start_members(std::span<const Wish> wishes, std::span<const Item> items, Worker& worker);
  void bridge(const Wish& lost, const Item& item, Worker& worker);
  template <typename Points>
  void shrink(const Points& points, Slot target, unsigned level, Worker& worker, Scratch& scratch);
  void record_changes(Slot target, unsigned level, Worker& worker);
  void update_in_lists(Team& team);
  void find_in_changes(Worker& worker) const;
  void apply(const std::vector<InChange>& in_changes);
  void prefetch_list(Slot slot, unsigned level) const noexcept;

  Graph& graph_;
  std::vector<Wish> asked_;   // in the order of the items
  std::vector<Wish> wishes_;  // in the order of the lists
  std::vector<Place> places_;
  std::vector<std::size_t> group_starts_;  // in wishes_, and its end
  std::vector<Worker> workers_;
};

}  // namespace upvec
