// Commit: writes what was planned, one new list per touched slot.
//
// Workers note what each plan wants of which list, by share of the lists. Then every share is
// sorted by list and every list written once, by one thread, so no list needs a lock; then the
// in-lists are brought in line, again one list at a time. Each result depends on the plans alone,
// never on the number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "anchors.hpp"
#include "graph.hpp"
#include "plan.hpp"
#include "team.hpp"

namespace upvec {

class Commit {
 public:
  explicit Commit(Graph& graph) : graph_(graph) {}

  // Before anything is asked for: how many workers there will be.
  void begin(unsigned workers) { workers_.resize(workers); }
  // Notes what the plan of items[index] asks for. Each worker by its own thread.
  void ask(const Item& item, std::size_t index, unsigned worker);
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
    std::uint32_t rank;  // kLost: where the target stands in the plan's old_in; kForced: its place
    std::uint16_t item;  // whose plan asks for it; 0 for kForced
    std::uint8_t level;
    Want want;

    // By list, own links first; never equal, so that the order depends on the plans alone.
    friend bool operator<(const Wish& a, const Wish& b) noexcept {
      return std::tie(a.list, a.want, a.item, a.rank) < std::tie(b.list, b.want, b.item, b.rank);
    }
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
  // Lists are shared out by share: all that touches one of them falls into the same.
  static constexpr std::size_t kShares = 64;
  struct Worker {
    std::array<std::vector<Wish>, kShares> asked;
    std::array<std::vector<InChange>, kShares> in_changes;
    std::vector<Change> changes;
    std::vector<Slot> starved;
    // Of the share and of the list at hand:
    std::vector<Wish> wishes;
    std::vector<std::size_t> group_starts;  // in wishes, and its end
    std::vector<Slot> before;
    std::vector<Slot> members;  // while holes > 0, that many of them are kNoSlot
    std::size_t holes = 0;
    std::vector<Slot> gone;
    std::vector<Slot> come;

    [[nodiscard]] std::size_t degree() const noexcept { return members.size() - holes; }
    [[nodiscard]] bool links_to(Slot slot) const noexcept;
    void add(Slot slot);  // in a hole, if there is one: what stays keeps its place
    void close_holes();
  };

  [[nodiscard]] std::uint64_t list_key(Slot slot, unsigned level) const noexcept;
  void ask(Worker& worker, Slot target, unsigned level, const Wish& wish) const;
  void write_share(std::size_t share, std::span<const Item> items, Worker& worker,
                   Scratch& scratch);
  static void gather(std::span<Worker> workers, std::size_t share, Worker& into);
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
  std::vector<Worker> workers_;
};

}  // namespace upvec
