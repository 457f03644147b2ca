// Commit: writes what was planned, one new list per touched slot.
//
// All that a sub-batch wants of a list is gathered first and grouped by list; then every list is
// written once, by one thread, so no list needs a lock; then the in-lists are brought in line,
// again one list at a time. Each result depends on the plans alone, never on the number of threads.
#pragma once

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
    std::uint8_t level;
    Want want;
  };
  // A link that came or went.
  struct Link {
    Slot from;
    Slot to;
    std::uint8_t level;
  };
  // Whether `other` belongs in the in-list of `owner` may have changed: look again.
  struct Touched {
    std::uint64_t list;
    Slot owner;
    Slot other;
    std::uint8_t level;
  };
  struct Worker {
    std::vector<Link> changed;
    std::vector<Slot> starved;
    std::vector<Slot> before;
    std::vector<Neighbor> members;
    std::vector<Slot> after;
  };

  [[nodiscard]] std::uint64_t list_key(Slot slot, unsigned level) const noexcept;
  void gather(std::span<const Item> items, std::span<const ForcedLink> forced);
  template <typename Points>
  void write_list(const Points& points, std::span<const Wish> wishes, std::span<const Item> items,
                  Worker& worker, Scratch& scratch);
  void start_members(std::span<const Wish> wishes, std::span<const Item> items, Worker& worker);
  template <typename Points>
  void bridge(const Points& points, const Wish& lost, const Item& item, Worker& worker,
              Scratch& scratch);
  template <typename Points>
  void shrink(const Points& points, Slot target, unsigned level, Worker& worker, Scratch& scratch);
  void record_changes(Slot target, unsigned level, Worker& worker);
  void update_in_lists(Team& team);
  void update_in_list(const Touched& one);
  void prefetch_list(Slot slot, unsigned level) const noexcept;

  Graph& graph_;
  std::vector<Wish> wishes_;
  std::vector<std::size_t> group_starts_;
  std::vector<Worker> workers_;
  std::vector<Touched> touched_;
};

}  // namespace upvec
