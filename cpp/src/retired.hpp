// RetiredList: what newer versions have no use for, and older ones may still show.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include "planes.hpp"

namespace upvec {

struct Retired {
  enum class What : std::uint8_t {
    kRow,        // replaced: shown by the versions from its own seq to before `seq`
    kUnlinked,   // no reader can come to it any more, but one may be there
    kTombstone,  // shows that the slot is empty to who starts at its newest row
    kKey,        // of a slot that was given to another key
  };
  std::uint64_t seq;  // readers of this version and later need it no more
  std::uint64_t key;  // kKey
  Slot slot;
  Row row;    // kRow, kUnlinked, kTombstone
  Row newer;  // kRow: what replaced it, and still leads to it; kNoRow once that is not sure
  What what;
};

// The writer's alone. reclaim.cpp says what happens to its entries.
class RetiredList {
 public:
  void row(std::uint64_t seq, Slot slot, Row row, Row newer) {
    waiting.push_back({seq, 0, slot, row, newer, Retired::What::kRow});
  }
  void unlinked(std::uint64_t seq, Row row) {
    waiting.push_back({seq, 0, kNoSlot, row, kNoRow, Retired::What::kUnlinked});
  }
  void tombstone(std::uint64_t seq, Slot slot, Row row) {
    waiting.push_back({seq, 0, slot, row, kNoRow, Retired::What::kTombstone});
  }
  void key(std::uint64_t seq, Slot slot, std::uint64_t key) {
    waiting.push_back({seq, key, slot, kNoRow, kNoRow, Retired::What::kKey});
  }

  template <typename Visit>
  void for_each_key(const Visit& visit) const {
    const auto visit_keys = [&](const auto& entries) {
      for (const Retired& one : entries) {
        if (one.what == Retired::What::kKey) visit(one.key);
      }
    };
    visit_keys(waiting);
    for (const auto& [pin, entries] : held) visit_keys(entries);
  }

  std::deque<Retired> waiting;  // for reads under way to end; ascending by seq
  std::map<std::uint64_t, std::vector<Retired>> held;  // by a long pin that may ask for it
  std::unordered_map<Slot, Retired> tombstones;  // held by any long pin before them; one a slot
  std::uint64_t oldest_kept = 0;  // the oldest long pin when `tombstones` was last looked through
};

}  // namespace upvec
