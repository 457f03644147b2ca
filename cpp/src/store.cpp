#include "store.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace upvec {
namespace {

IndexOptions checked(const IndexOptions& options) {
  const auto require = [](bool fine, const char* name, std::size_t got, const char* want) {
    if (fine) return;
    throw Error(ErrorCode::kInvalidArgument,
                std::string(name) + " = " + std::to_string(got) + "; want " + want);
  };
  require(options.dim >= 1 && options.dim <= 65536, "dim", options.dim, "1 to 65536");
  require(options.m >= 4 && options.m <= 256, "M", options.m, "4 to 256");
  require(options.ef_construction >= 1 && options.ef_construction <= 100000, "ef_construction",
          options.ef_construction, "1 to 100000");
  if (options.codes == Codes::kNone && options.keep == Keep::kNone) {
    throw Error(ErrorCode::kInvalidArgument,
                "codes = \"none\" with keep = \"none\" leaves nothing of the vectors; want codes = "
                "\"int8\", or keep = \"f32\" or \"bf16\"");
  }
  return options;
}

}  // namespace

Store::Store(const IndexOptions& index_options)
    : options(checked(index_options)),
      graph(options.dim, options.metric, options.codes, options.keep, options.m),
      keys(options.key_type, options.seed),
      anchors(graph),
      commit(graph) {
  graph.rows.reserve(1);
  graph.ensure_slots(2);
  chosen_entries.reserve(graph.entries.capacity());
}

Store::~Store() {
  retired.for_each_key([this](std::uint64_t key) { keys.release(StoredKey{key}); });
}

// Malkov and Yashunin, HNSW, section 4.1: level = floor(-ln(u) / ln(M)). The uniform number comes
// from the key, so that a level depends on neither the order nor the number of earlier inserts.
unsigned Store::draw_level(std::uint64_t key_hash) const noexcept {
  const double u = (static_cast<double>(key_hash >> 11) + 0.5) * 0x1p-53;
  const double level = -std::log(u) / std::log(static_cast<double>(options.m));
  return static_cast<unsigned>(std::min(level, static_cast<double>(kMaxLevel)));
}

void Store::set_level(Slot slot, unsigned top) {
  const unsigned present = graph.level_of(slot);
  if (present == top) return;
  std::uint32_t block = 0;
  if (top > 0) {
    auto& free = free_blocks[top];
    if (free.empty()) {
      graph.upper.ensure(upper_end + top);
      graph.upper_top.ensure(upper_end + top);
      block = upper_end;
      upper_end += top;
      for (unsigned i = 0; i < top; ++i) {
        graph.upper_top[block + i] = static_cast<std::uint8_t>(top);
      }
    } else {
      block = free.back();
      free.pop_back();
    }
  }
  if (present > 0) {
    // Readers may still be there: a block is only ever reused for the same number of levels, so
    // what they find is a list of the level that they look for.
    free_blocks[present].push_back(graph.upper_of[slot].load(std::memory_order_relaxed));
  }
  graph.upper_of[slot].store(block, std::memory_order_release);
}

void Store::choose_entry() {
  Slot entry = anchors.root();
  for (unsigned level = kMaxLevel; level > 0; --level) {
    if (by_level[level].empty()) continue;
    entry = *by_level[level].begin();
    break;
  }
  graph.entry.store(entry, std::memory_order_release);
}

// A graph of few rows takes few hops: to measure many entries would cost more than they save.
std::size_t Store::wanted_entries() const noexcept {
  constexpr std::size_t kRowsPerEntry = 64;
  return std::min(graph.entries.capacity(), live / kRowsPerEntry);
}

bool Store::has_outgrown_entries() const noexcept { return wanted_entries() != most_entries; }

bool Store::is_near_entries(Slot slot) const noexcept {
  return graph.walks_codes && graph.level_of(slot) >= lowest_entry_level;
}

void Store::choose_entries() {
  if (!graph.walks_codes) return;
  most_entries = wanted_entries();
  chosen_entries.clear();
  unsigned level = kMaxLevel + 1;
  while (level > 1 && chosen_entries.size() < most_entries) {
    --level;
    for (const Slot slot : by_level[level]) {
      if (chosen_entries.size() == most_entries) break;
      if ((graph.flags[slot] & kLeaving) == 0) chosen_entries.push_back(slot);
    }
  }
  lowest_entry_level = level;
  graph.entries.set(chosen_entries, graph.code_space, [this](Slot slot) -> Point {
    return graph.has_codes ? graph.codes.at(slot)
                           : graph.rows.vector(graph.row_of[slot].load(std::memory_order_relaxed));
  });
}

std::uint64_t Store::hash_of(std::uint64_t stored_key) const noexcept {
  if (options.key_type == KeyType::kInt64) {
    const std::int64_t value = KeyIndex::int_of(StoredKey{stored_key});
    return keys.hash(KeySpan::ints({&value, 1}), 0);
  }
  const std::string_view text = KeyIndex::string_of(StoredKey{stored_key});
  const std::uint64_t offsets[2] = {0, text.size()};
  return keys.hash(KeySpan::strings(offsets, text.data()), 0);
}

}  // namespace upvec
