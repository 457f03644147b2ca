// Graph: the state that searches, plans and commits share, and the few rules that all of them need.
//
// Words a reader may follow at any time: row_of, links, upper_of, entry (atomics; see links.hpp,
// rows.hpp). Everything else belongs to the writer: plans read it in parallel while nobody writes
// it, commits write it in parallel, each slot by one thread.
//
// A slot has two rows while a batch is on its way:
//   row_of       what readers see and what its links were made for ("linked" row)
//   planned row  what the batch will make it; the same at all other times. It stands in `pending`.
// If the index has codes beside its rows, a slot's code is that of its linked row, and the planned
// row's code waits in `pending` too. Where nothing but codes is kept, they are the rows: codes by
// slot as well would take as much memory again. To come to a code by way of its row costs a load;
// against codes by slot, inserts and searches at ef 32 / 64 / 128:
//   18,000 x 384 texts    .99    1.09 / 1.06 / .97   (the nearest are measured by fewer lines)
//   50,000 x 128 SIFT     .92    1.00 /  .99 / .90
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <set>
#include <unordered_map>

#include "codes.hpp"
#include "entries.hpp"
#include "links.hpp"
#include "pending.hpp"
#include "planes.hpp"
#include "rows.hpp"
#include "scratch.hpp"
#include "space.hpp"
#include "upvec/error.hpp"

namespace upvec {

inline constexpr unsigned kMaxLevel = 15;

// Flags of a slot; the writer's alone.
enum SlotFlag : std::uint8_t {
  kLive = 1,      // holds a key and stands in the graph (or will, when its batch is committed)
  kInFlight = 2,  // being re-linked by the sub-batch under way
  kLeaving = 4,   // will be removed by the batch under way: no new links to it
  kInFreeList = 8,
  kPending = 16,  // its planned row is not its linked row
  kReached = 32,  // see Anchors
};

struct SlotInfo {
  Slot anchor;  // its parent in the spanning tree; kNoSlot for the root
  float slack;  // see drift.hpp
};

class Graph {
 public:
  Graph(std::size_t dim, Metric metric, Codes how, Keep keep, std::size_t m)
      : code_space(metric, dim, keep == Keep::kNone),
        space(metric, dim, keep, code_space),
        walks_codes(how != Codes::kNone),
        has_codes(walks_codes && keep != Keep::kNone),
        rows(space.row_bytes()),
        pending(has_codes ? code_space.point_bytes() : 0),
        codes(code_space.point_bytes()),
        entries(walks_codes ? code_space.point_bytes() : 0),
        base(2 * m),
        upper(m) {}

  CodeSpace code_space;
  Space space;
  const bool walks_codes;  // is built and walked by codes
  const bool has_codes;    // and has them beside its rows; else they are its rows
  Rows rows;
  Pending pending;
  Plane<std::atomic<Row>> row_of;
  BytePlane codes;                             // by slot; nothing is kept there without has_codes
  Entries entries;                             // empty without walks_codes
  Plane<std::uint32_t> pending_of;             // by slot: its place in `pending`, or 0
  Plane<std::atomic<std::uint32_t>> upper_of;  // first list of the slot in `upper`; 0: level 0 only
  Plane<SlotInfo> info;
  Plane<std::uint8_t> children;  // by slot: how many are anchored there
  Plane<std::uint8_t> flags;     // by slot: SlotFlags; close together, as plans look at many
  // Of free slots that show no row any more: what they held last.
  std::unordered_map<Slot, std::uint64_t> free_keys;
  LinkTable base;                 // level 0, one list a slot
  LinkTable upper;                // levels above; the lists of a slot lie side by side
  Plane<std::uint8_t> upper_top;  // per list of `upper`: levels above 0 of the block it belongs to
  std::atomic<Slot> entry{kNoSlot};
  std::atomic<std::uint32_t> slot_end{1};  // slots in [1, slot_end) have been used

  // A reader's view -----------------------------------------------------------------------------
  [[nodiscard]] unsigned level_of(Slot slot) const noexcept {
    const std::uint32_t list = upper_of[slot].load(std::memory_order_acquire);
    return list == 0 ? 0 : upper_top[list];
  }
  // The slot's list on a level above 0; 0 if it has none there. Found by a single look at the slot,
  // which may get another level from one moment to the next.
  [[nodiscard]] std::uint32_t upper_list_of(Slot slot, unsigned level) const noexcept {
    const std::uint32_t first = upper_of[slot].load(std::memory_order_acquire);
    return first == 0 || upper_top[first] < level ? 0 : first + level - 1;
  }
  [[nodiscard]] const LinkTable& table(unsigned level) const noexcept {
    return level == 0 ? base : upper;
  }
  [[nodiscard]] LinkTable& table(unsigned level) noexcept { return level == 0 ? base : upper; }
  // The slot must have that level, or have had it when its block was given out.
  [[nodiscard]] std::size_t list_of(Slot slot, unsigned level) const noexcept {
    return level == 0 ? slot : upper_of[slot].load(std::memory_order_acquire) + level - 1;
  }

  // Of walks_codes.
  [[nodiscard]] Point code(Slot slot) const noexcept {
    if (has_codes) return codes.at(slot);
    return rows.vector(row_of[slot].load(std::memory_order_acquire));
  }

  // A planner's view ----------------------------------------------------------------------------
  [[nodiscard]] bool is_pending(Slot slot) const noexcept { return (flags[slot] & kPending) != 0; }
  [[nodiscard]] Row planned_row(Slot slot) const noexcept {
    const std::uint32_t place = pending_of[slot];
    return place != 0 ? pending.row(place) : row_of[slot].load(std::memory_order_relaxed);
  }
  [[nodiscard]] const std::byte* planned_vector(Slot slot) const noexcept {
    return rows.vector(planned_row(slot));
  }

  // The StoredKey, as bits, that a slot holds, or held last.
  [[nodiscard]] std::uint64_t key_of(Slot slot) const {
    const Row row = planned_row(slot);
    if (row != kNoRow) return rows.header(row).key;
    const auto free = free_keys.find(slot);
    if (free != free_keys.end()) return free->second;
    throw Error(ErrorCode::kLimit,
                "memory ran out in the middle of an earlier commit; the index can be read only");
  }

  void ensure_slots(std::size_t end) {
    row_of.ensure(end);
    if (has_codes) codes.ensure(end);
    pending_of.ensure(end);
    upper_of.ensure(end);
    info.ensure(end);
    children.ensure(end);
    flags.ensure(end);
    base.ensure(end);
  }
};

// A row of which a search reads all: its number, its header and its vector.
inline void count_row(const Graph& graph, Slot slot, Row row, Traffic& traffic) {
  traffic.row_of.read(&graph.row_of[slot], sizeof(Row));
  traffic.headers.read(&graph.rows.header(row), sizeof(RowHeader));
  traffic.vectors.read(graph.rows.vector(row), graph.space.row_bytes());
}

}  // namespace upvec
