// One chunk of a ScalarIndex; see there.
//
// Thread safety: a chunk never changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "scalar_index.hpp"

namespace upvec {

class ScalarChunk {
 public:
  virtual ~ScalarChunk() = default;

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::span<const std::int64_t> keys() const noexcept { return keys_; }
  [[nodiscard]] bool has_nulls() const noexcept { return has_nulls_; }
  [[nodiscard]] virtual std::size_t bytes() const noexcept = 0;

  // The rows of the keys at places [first, last) of keys(), which are not none.
  virtual void match_places(std::size_t first, std::size_t last,
                            std::span<std::uint64_t> bits) const noexcept = 0;
  // The rows of the keys that are wanted, of keys().size() that may be.
  virtual void match_wanted(std::span<const std::uint8_t> wanted,
                            std::span<std::uint64_t> bits) const noexcept = 0;
  virtual void match_null(std::span<std::uint64_t> bits) const noexcept = 0;

 protected:
  std::size_t rows_ = 0;
  bool has_nulls_ = false;
  std::vector<std::int64_t> keys_;  // distinct, ascending, all that rows hold
};

using ScalarChunkPtr = std::shared_ptr<const ScalarChunk>;

// `old` may be null if the update is whole.
ScalarChunkPtr next_dictionary_chunk(const ScalarChunk* old, const ScalarUpdate& update,
                                     std::size_t rows);
ScalarChunkPtr next_list_chunk(const ScalarChunk* old, const ScalarUpdate& update,
                               std::size_t rows);

}  // namespace upvec
