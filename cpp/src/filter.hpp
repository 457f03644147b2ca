// Filter: a set of allowed rows, and the way in which a search keeps to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "planes.hpp"
#include "upvec/index.hpp"

namespace upvec {

struct Store;

// Thread safety: any number of threads may read one; what is made on first use is made once.
struct Filter::State {
  std::shared_ptr<const Store> store;
  std::uint64_t seq = 0;              // of the version it was made for
  std::vector<std::uint64_t> bits;    // by slot
  std::size_t count = 0;              // of bits that are set
  std::vector<std::uint64_t> hashes;  // of the key of each slot in slots(), as it may get another
                                      // key. Empty: good for this version alone

  [[nodiscard]] bool contains(Slot slot) const noexcept {
    return slot / 64 < bits.size() && (bits[slot / 64] >> (slot % 64) & 1) != 0;
  }
  // Does the slot still hold, as this stored key, the key that was allowed?
  [[nodiscard]] bool contains(Slot slot, std::uint64_t key) const noexcept;
  // The same for the slot at a place of slots().
  [[nodiscard]] bool still_holds(std::size_t place, std::uint64_t key) const noexcept;
  [[nodiscard]] bool is_for_one_version() const noexcept { return hashes.empty() && count > 0; }

  // The allowed slots, ascending.
  [[nodiscard]] const std::vector<Slot>& slots() const;
  // Some of them, spread evenly over slots(): where a walk may begin.
  [[nodiscard]] const std::vector<Slot>& seeds() const;

 private:
  mutable std::once_flag listed_;
  mutable std::once_flag seeded_;
  mutable std::vector<Slot> slots_;
  mutable std::vector<Slot> seeds_;
};

std::shared_ptr<const Filter::State> make_filter(const std::shared_ptr<const Store>& store,
                                                 const KeySpan& allowed, std::uint64_t seq);
// Bit i of `allowed` stands for the key i; for this version alone.
std::shared_ptr<const Filter::State> make_filter_of_bits(const std::shared_ptr<const Store>& store,
                                                         std::span<const std::uint64_t> allowed,
                                                         std::uint64_t seq);

// What a search needs to know of a filter to choose its way.
struct FilterSize {
  std::size_t slots;    // of the graph
  std::size_t allowed;  // of these
  std::size_t cap;      // slots that a list names at most
};
[[nodiscard]] FilterSize size_of(const Store& store, const Filter::State& filter) noexcept;

// What the ways of a search for k rows with ef candidates are expected to take, as rows that are
// scanned. Infinity: it would not find them.
FilterCosts filter_costs(const FilterSize& size, std::size_t k, std::size_t ef) noexcept;
// A walk among the allowed slots that expands so many of them.
[[nodiscard]] double cost_of_walk_among_allowed(const FilterSize& size, std::size_t width) noexcept;
// How wide a beam over all slots has to be to meet enough allowed ones.
[[nodiscard]] std::size_t width_to_meet(const FilterSize& size, std::size_t k,
                                        std::size_t ef) noexcept;

}  // namespace upvec
