// Hits: what reads have found, on its way to the caller.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "key_index.hpp"
#include "upvec/index.hpp"

namespace upvec {

// A found row, with its key (a StoredKey, as bits) as the reader's version knows it.
struct Hit {
  float distance;
  std::uint64_t key;
};

// Room for k hits a query. Different queries may be written by different threads.
class Places {
 public:
  Places(std::size_t k, std::uint64_t* keys, float* distances, std::int64_t* counts)
      : k_(k), keys_(keys), distances_(distances), counts_(counts) {}

  [[nodiscard]] std::size_t k() const noexcept { return k_; }
  // At most k hits, nearest first; the places behind them become empty.
  void fill(std::size_t query, std::span<const Hit> hits) const noexcept {
    std::uint64_t* const keys = keys_ + query * k_;
    float* const distances = distances_ + query * k_;
    for (std::size_t i = 0; i < hits.size(); ++i) {
      keys[i] = hits[i].key;
      distances[i] = hits[i].distance;
    }
    std::fill(keys + hits.size(), keys + k_, kNoKey);
    std::fill(distances + hits.size(), distances + k_, std::numeric_limits<float>::infinity());
    counts_[query] = static_cast<std::int64_t>(hits.size());
  }
  static constexpr std::uint64_t kNoKey = 0;

 private:
  std::size_t k_;
  std::uint64_t* keys_;
  float* distances_;
  std::int64_t* counts_;
};

inline void add_key(Keys& keys, std::uint64_t stored) {
  if (keys.type == KeyType::kInt64) {
    keys.add(KeyIndex::int_of(StoredKey{stored}));
  } else if (stored == Places::kNoKey) {  // no address of a string
    keys.add(std::string_view{});
  } else {
    keys.add(KeyIndex::string_of(StoredKey{stored}));
  }
}

}  // namespace upvec
