#include "filter.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "read.hpp"
#include "store.hpp"

namespace upvec {
namespace {

constexpr std::size_t kSeeds = 64;

std::size_t words_for(const Store& store) {
  return store.graph.slot_end.load(std::memory_order_acquire) / 64 + 1;
}

void allow(Filter::State& filter, Slot slot) {
  std::uint64_t& word = filter.bits[slot / 64];
  const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
  filter.count += (word & bit) == 0 ? 1 : 0;
  word |= bit;
}

template <typename Visit>
void for_each_bit(std::span<const std::uint64_t> bits, const Visit& visit) {
  for (std::size_t w = 0; w < bits.size(); ++w) {
    for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
      visit(w * 64 + static_cast<std::size_t>(std::countr_zero(word)));
    }
  }
}

// A walk over all slots that expands so many.
double cost_of_walk(std::size_t width) noexcept {
  return 80.0 * (static_cast<double>(width) + 16.0);
}

}  // namespace

bool Filter::State::contains(Slot slot, std::uint64_t key) const noexcept {
  if (!contains(slot)) return false;
  if (is_for_one_version()) return true;
  const std::vector<Slot>& all = slots();
  const auto at = std::lower_bound(all.begin(), all.end(), slot);
  return still_holds(static_cast<std::size_t>(at - all.begin()), key);
}

bool Filter::State::still_holds(std::size_t place, std::uint64_t key) const noexcept {
  return is_for_one_version() || hashes[place] == store->hash_of(key);
}

const std::vector<Slot>& Filter::State::slots() const {
  std::call_once(listed_, [this] {
    slots_.reserve(count);
    for_each_bit(bits, [this](std::size_t slot) { slots_.push_back(static_cast<Slot>(slot)); });
  });
  return slots_;
}

const std::vector<Slot>& Filter::State::seeds() const {
  std::call_once(seeded_, [this] {
    const std::vector<Slot>& all = slots();
    const std::size_t n = std::min(kSeeds, all.size());
    for (std::size_t i = 0; i < n; ++i) seeds_.push_back(all[i * all.size() / n]);
  });
  return seeds_;
}

std::shared_ptr<const Filter::State> make_filter(const std::shared_ptr<const Store>& store,
                                                 const KeySpan& allowed, std::uint64_t seq) {
  require_key_type(*store, allowed);
  auto filter = std::make_shared<Filter::State>();
  filter->store = store;
  filter->seq = seq;
  std::vector<Slot> slots;
  std::vector<Row> rows;
  find_visible(*store, allowed, seq, slots, rows);
  filter->bits.resize(words_for(*store));
  for (const Slot slot : slots) {
    if (slot != kNoSlot) allow(*filter, slot);
  }
  filter->hashes.reserve(filter->count);
  for (const Slot slot : filter->slots()) {
    const Row row = visible_row(store->graph, slot, seq);
    filter->hashes.push_back(store->hash_of(store->graph.rows.header(row).key));
  }
  return filter;
}

std::shared_ptr<const Filter::State> make_filter_of_bits(const std::shared_ptr<const Store>& store,
                                                         std::span<const std::uint64_t> allowed,
                                                         std::uint64_t seq) {
  auto filter = std::make_shared<Filter::State>();
  filter->store = store;
  filter->seq = seq;
  filter->bits.resize(words_for(*store));
  // Where keys lead is as it was at `seq`, unless one has lost its slot since.
  for_each_bit(allowed, [&](std::size_t key) {
    const auto wanted = static_cast<std::int64_t>(key);
    const std::uint32_t slot = store->keys.find_one(KeySpan::ints({&wanted, 1}), 0);
    if (slot != kNoValue && slot / 64 < filter->bits.size()) allow(*filter, slot);
  });
  if (store->keys_erased_at.load(std::memory_order_seq_cst) <= seq) return filter;
  std::vector<std::int64_t> keys;
  for_each_bit(allowed, [&](std::size_t key) { keys.push_back(static_cast<std::int64_t>(key)); });
  return make_filter(store, KeySpan::ints(keys), seq);
}

FilterSize size_of(const Store& store, const Filter::State& filter) noexcept {
  return {store.graph.slot_end.load(std::memory_order_acquire), filter.count,
          store.graph.base.cap()};
}

double cost_of_walk_among_allowed(const FilterSize& size, std::size_t width) noexcept {
  // Where a list names less than one allowed slot, they do not lead to each other. Recall of
  // 200,000 x 128 SIFT and 98,000 x 384 texts, whose lists name 32, by the share that is allowed by
  // chance:
  //   5 %  .994 .995    3 %  .980 .990    2 %  .965 .974    1 %  .829 .901
  if (size.allowed < size.slots / size.cap) return std::numeric_limits<double>::infinity();
  return 2.5 * cost_of_walk(width);
}

std::size_t width_to_meet(const FilterSize& size, std::size_t k, std::size_t ef) noexcept {
  // Recall and queries/s (to unfiltered ones) by how many allowed ones it is to meet, of 200,000 x
  // 128 SIFT, k = 10 and ef = 64, half / a fifth of the rows allowed by chance:
  //   64    .9945 .52   .9985 .26
  //   45    .9925 .61   .9965 .33
  //   32    .9825 .92   .9945 .43
  //   22    .9825 .83   .9890 .59
  const std::size_t few = k + k / 4 + 10;
  const auto enough = static_cast<double>(few);
  const double more = static_cast<double>(ef) / static_cast<double>(effective_ef(0, k));
  const auto all = static_cast<double>(size.slots);
  const double allowed = std::max(1.0, static_cast<double>(size.allowed));
  const double width = std::min(enough * more * all / allowed, all);
  return std::max(ef, static_cast<std::size_t>(width));
}

FilterCosts filter_costs(const FilterSize& size, std::size_t k, std::size_t ef) noexcept {
  FilterCosts costs;
  costs.scan = static_cast<double>(size.allowed);
  costs.walk_all = cost_of_walk(width_to_meet(size, k, ef));
  costs.walk_allowed = cost_of_walk_among_allowed(size, ef);
  costs.best = FilterWay::kWalkAll;
  if (costs.walk_allowed < costs.walk_all) costs.best = FilterWay::kWalkAllowed;
  if (costs.scan < std::min(costs.walk_all, costs.walk_allowed)) costs.best = FilterWay::kScan;
  return costs;
}

}  // namespace upvec
