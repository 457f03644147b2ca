// Store: the state behind one Index.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "anchors.hpp"
#include "change_log.hpp"
#include "commit.hpp"
#include "epoch.hpp"
#include "graph.hpp"
#include "key_index.hpp"
#include "old_codes.hpp"
#include "retired.hpp"
#include "scratch.hpp"
#include "upvec/index.hpp"

namespace upvec {

struct Store {
  explicit Store(const IndexOptions& index_options);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  IndexOptions options;
  Graph graph;
  KeyIndex keys;  // key -> slot; a removed key stays until its slot is given to another
  mutable Epochs epochs;
  mutable ScratchPool scratches;
  ChangeLog changes;
  NewestOldCodes old_codes;

  std::atomic<std::uint64_t> writing{0};         // the commit under way, else the newest one
  std::atomic<std::uint64_t> keys_erased_at{0};  // the newest commit that took a key out of `keys`
  std::atomic<std::size_t> published_live{0};

  // Below: the writer's, under this mutex.
  mutable std::mutex write_mutex;
  std::uint64_t head = 0;  // newest commit
  std::size_t live = 0;
  bool broken = false;  // memory ran out in the middle of a commit
  bool has_in_lists = true;
  Anchors anchors;
  Commit commit;
  std::deque<Slot> free_slots;  // first in, first out: which slot is next depends on history alone
  RetiredList retired;
  std::array<std::set<Slot>, kMaxLevel + 1>
      by_level;  // live slots whose top level is this (from 1)
  std::array<std::vector<std::uint32_t>, kMaxLevel + 1> free_blocks;  // of graph.upper
  std::uint32_t upper_end = 1;
  unsigned lowest_entry_level = 1;
  std::size_t most_entries = 0;  // when they were last chosen
  std::vector<Slot> chosen_entries;
  WritePhases phases;

  [[nodiscard]] std::uint64_t hash_of(std::uint64_t stored_key) const noexcept;
  [[nodiscard]] std::size_t wanted_entries() const noexcept;
  [[nodiscard]] unsigned draw_level(std::uint64_t key_hash) const noexcept;
  // Gives the slot lists for levels 1 .. top, or none for top 0.
  void set_level(Slot slot, unsigned top);
  void choose_entry();
  // Chooses graph.entries anew, none of them a slot that is leaving.
  void choose_entries();
  // Whether there ought to be more of them, or fewer, for so many keys.
  [[nodiscard]] bool has_outgrown_entries() const noexcept;
  // Whether what happens to the slot may change them.
  [[nodiscard]] bool is_near_entries(Slot slot) const noexcept;
  // Frees what no reader may ask for any more; see reclaim.cpp.
  void reclaim();
  // Makes the in-lists of a loaded index, which readers need not wait for; see in_lists.cpp. What
  // writes calls it first.
  void ensure_in_lists();
};

struct Snapshot::State {
  std::shared_ptr<const Store> store;
  Epochs::Pin pin;
};

// The functions of Index, by file.
std::vector<Outcome> upsert(Store& store, const KeySpan& keys, MatrixView vectors,
                            const UpsertOptions& options);  // write.cpp
std::vector<std::uint8_t> remove(Store& store, const KeySpan& keys, const WriteOptions& options);
CheckReport check(const Store& store);   // check.cpp
std::string digest(const Store& store);  // digest.cpp

// Brings a caller's vector into the form in which vectors are measured: padded, and of unit length
// under cosine (one whose length is 1 to within 1e-6 stays as it is). False if it cannot be stored.
bool prepare_vector(const IndexOptions& options, const float* from, float* to,
                    std::size_t padded_dim) noexcept;  // vectors.cpp
// All queries of a call in that form, side by side in `storage`. Throws if one cannot be stored.
const float* prepare_queries(const IndexOptions& options, const MatrixView& queries,
                             PaddedVector& storage);
// The same, and on to what a row keeps of it; `room` for padded_dim floats. What get() returned
// becomes the row that it was read from.
bool prepare_row(const IndexOptions& options, const Space& space, const float* from, float* room,
                 std::byte* row) noexcept;
[[noreturn]] void throw_bad_vectors(const IndexOptions& options, const MatrixView& vectors,
                                    std::vector<std::uint64_t> rows, const char* what);
void require_key_type(const Store& store, const KeySpan& keys);
void require_dim(const IndexOptions& options, const MatrixView& vectors, const char* what);

}  // namespace upvec
