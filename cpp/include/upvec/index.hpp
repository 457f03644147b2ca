// Index: keys and vectors in memory, with approximate nearest-neighbour search and in-place upsert.
//
// Thread safety: every function may be called from any thread at any time. Writers (upsert, remove,
// publish, reserve, check, digest) take turns; readers (get, search, …) never wait for them.
// A reader sees the state of one commit: all of a batch or nothing of it.
// A function that throws has changed nothing, except on exhausted memory in the middle of a commit,
// after which the index can be read but refuses to be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "upvec/error.hpp"
#include "upvec/types.hpp"
#include "upvec/version.hpp"

namespace upvec {

struct IndexOptions {
  std::size_t dim = 0;
  Metric metric = Metric::kL2;
  KeyType key_type = KeyType::kInt64;
  Codes codes = Codes::kInt8;
  Keep keep = Keep::kF32;             // kNone needs codes
  std::size_t m = 16;                 // links a level above 0; twice as many on level 0
  std::size_t ef_construction = 200;  // candidates held while links are chosen
  std::uint64_t seed = 0;             // of key hashes and of levels
};

struct WriteOptions {
  unsigned threads = 0;  // 0: one per processor
  bool publish = true;   // false: readers see the commit after publish()
};

struct UpsertOptions : WriteOptions {
  Mode mode = Mode::kUpsert;
  Duplicates duplicates = Duplicates::kError;
};

// An owned column of keys, of the type of the index.
struct Keys {
  KeyType type = KeyType::kInt64;
  std::vector<std::int64_t> ints;
  std::vector<std::uint64_t> offsets{0};  // of strings; one more than there are
  std::string bytes;

  [[nodiscard]] std::size_t size() const noexcept {
    return type == KeyType::kInt64 ? ints.size() : offsets.size() - 1;
  }
  [[nodiscard]] KeySpan span() const noexcept {
    return type == KeyType::kInt64 ? KeySpan::ints(ints) : KeySpan::strings(offsets, bytes.data());
  }
  void add(std::int64_t key) { ints.push_back(key); }
  void add(std::string_view key) {
    bytes += key;
    offsets.push_back(bytes.size());
  }
};

// q rows of k; unfilled places have key 0 or "" and distance infinity.
struct SearchResult {
  Keys keys;
  std::vector<float> distances;
  std::vector<std::int64_t> counts;  // filled places of each row
};

// Memory of the caller's for a SearchResult of q queries in an index of int64 keys: q * k keys, q *
// k distances, q counts.
struct SearchRoom {
  std::int64_t* keys = nullptr;
  float* distances = nullptr;
  std::int64_t* counts = nullptr;
};

// The hits of query i stand at [offsets[i], offsets[i + 1]), nearest first.
struct RangeResult {
  std::vector<std::int64_t> offsets;
  Keys keys;
  std::vector<float> distances;
};

struct CheckReport {
  std::size_t live = 0;
  std::size_t reachable = 0;  // live slots found breadth first from the entry, on level 0
  std::size_t dangling = 0;   // links to slots that are not live, or not on that level
  std::size_t doubled = 0;    // links that stand twice in a list
  std::size_t self_links = 0;
  std::size_t in_list_errors = 0;  // in-lists that do not agree with the links
  std::size_t anchor_errors = 0;   // anchors without a mutual link, or that do not lead to the root
  std::size_t key_errors = 0;      // keys that do not lead to their slot
  std::size_t pending = 0;         // slots whose planned row was not published
  std::size_t below_floor = 0;     // slots with fewer links than a quarter of the cap
  std::vector<std::size_t> degrees;     // histogram on level 0, by number of links
  std::vector<std::size_t> in_degrees;  // the same, by number of links that lead here

  // Every invariant holds. (below_floor is quality, not an invariant: a small graph has few links.)
  [[nodiscard]] bool ok() const noexcept {
    return reachable == live && dangling + doubled + self_links == 0 &&
           in_list_errors + anchor_errors + key_errors + pending == 0;
  }
};

// Wall-clock nanoseconds that upserts and removals have spent, by what they did. The work of a
// batch is shared out to its threads in `plan` and `lists` only; all else is done by one of them.
struct WritePhases {
  std::uint64_t check_ns = 0;    // prepare vectors, find duplicates and keys, decide what to change
  std::uint64_t threads_ns = 0;  // start threads
  std::uint64_t rows_ns = 0;     // take slots, write rows
  std::uint64_t plan_ns = 0;     // choose links
  std::uint64_t anchors_ns = 0;  // keep the spanning tree
  std::uint64_t gather_ns = 0;   // hand that over: what one thread does of it
  std::uint64_t lists_ns = 0;    // change the lists
  std::uint64_t settle_ns = 0;   // show the new rows
  std::uint64_t sections = 0;    // how often work was shared out
};

struct Stats {
  std::size_t live = 0;
  std::size_t slots = 0;  // ever used
  std::size_t rows = 0;   // in use, with those kept for readers
  std::uint64_t seq = 0;
  std::size_t vector_bytes = 0;  // 0 if codes are all that is kept
  std::size_t code_bytes = 0;
  std::size_t link_bytes = 0;
  std::size_t key_bytes = 0;
  std::size_t other_bytes = 0;
  unsigned max_level = 0;
  std::vector<std::size_t> degrees;  // histogram on level 0, by number of links
  std::uint64_t queries = 0;         // searches, with those made to place rows
  std::uint64_t distances = 0;
  std::uint64_t hops = 0;
  // What searches asked of memory, by name; empty unless built with UPVEC_COUNTERS.
  std::vector<std::pair<std::string, std::uint64_t>> counters;
  WritePhases phases;
};

struct Store;

// A pinned version; what it shows is kept until it is destroyed. Keeps the index alive.
class Snapshot {
 public:
  struct State;
  explicit Snapshot(std::shared_ptr<State> state) : state_(std::move(state)) {}
  [[nodiscard]] std::uint64_t seq() const noexcept;

 private:
  friend class Index;
  std::shared_ptr<State> state_;
};

// A compiled set of allowed keys. Keys that are not in the index when it is made are ignored.
class Filter {
 public:
  struct State;
  explicit Filter(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  [[nodiscard]] std::size_t size() const noexcept;

 private:
  friend class Index;
  std::shared_ptr<const State> state_;
};

// How a search keeps to what is allowed.
enum class FilterWay : std::uint8_t {
  kAuto,         // the cheapest
  kScan,         // measure every allowed row, by code
  kWalkAllowed,  // walk from allowed row to allowed row, looking through the lists of others
  kWalkAll,      // walk over all rows, and keep the allowed ones
};

// What the ways are expected to take for a query, as if so many rows were measured one after the
// other. Infinity: it would not find them.
struct FilterCosts {
  double scan = 0.0;
  double walk_allowed = 0.0;
  double walk_all = 0.0;
  FilterWay best = FilterWay::kWalkAll;
};

struct ReadOptions {
  const Snapshot* snapshot = nullptr;  // null: what is published when the call starts
};

struct SearchOptions : ReadOptions {
  std::size_t ef = 0;              // candidates held; 0: max(64, k + 54)
  const Filter* filter = nullptr;  // null: all keys are allowed
  unsigned threads = 0;
  FilterWay way = FilterWay::kAuto;
};

// One version of an index on its way into a file, in pieces that the caller writes. Whoever writes
// to the index meanwhile waits for nothing but the making of it. Used by one thread at a time;
// keeps the index alive.
class Image {
 public:
  struct State;
  struct Piece {
    std::uint64_t offset = 0;  // in the file
    std::vector<std::byte> bytes;
  };
  explicit Image(std::shared_ptr<State> state) : state_(std::move(state)) {}
  // The next piece, of a megabyte or so; false if there is none. Those that come first leave gaps,
  // which later ones fill; the header of the file comes last, so that a file that lacks a piece is
  // not one that loads. Throws Error(kLimit) if memory ran out: start again with a new image.
  bool next(Piece& piece);

 private:
  std::shared_ptr<State> state_;
};

class Index {
 public:
  explicit Index(const IndexOptions& options);

  // One outcome a row. Vectors must be finite, of the index's dimension, and not zero under cosine.
  std::vector<Outcome> upsert(const KeySpan& keys, MatrixView vectors,
                              const UpsertOptions& options = {});
  // 1 where something was removed; of a key that is named twice, at the first place.
  std::vector<std::uint8_t> remove(const KeySpan& keys, const WriteOptions& options = {});
  // Makes every commit so far visible. Returns the published seq.
  std::uint64_t publish();
  // Makes room for so many keys in all.
  void reserve(std::size_t keys);

  [[nodiscard]] Snapshot snapshot() const;
  // Of the newest commit, published or not.
  [[nodiscard]] Snapshot head_snapshot() const;
  [[nodiscard]] Filter filter(const KeySpan& allowed, const ReadOptions& options = {}) const;
  // The same for int64 keys from 0 on, of which bit i of `allowed` stands for i. Good for reads of
  // that version alone; others throw Error(kInvalidArgument).
  [[nodiscard]] Filter filter_of_bits(std::span<const std::uint64_t> allowed,
                                      const ReadOptions& options = {}) const;
  // What a search for k rows with this filter would do.
  [[nodiscard]] FilterCosts filter_costs(const Filter& filter, std::size_t k,
                                         std::size_t ef = 0) const;

  // vectors: room for keys.size() * dim floats; found: for keys.size(). Rows not found become
  // zeros. The vectors are those that are kept (see Keep); put back, they count as unchanged.
  void get(const KeySpan& keys, float* vectors, std::uint8_t* found,
           const ReadOptions& options = {}) const;
  [[nodiscard]] SearchResult search(MatrixView queries, std::size_t k,
                                    const SearchOptions& options = {}) const;
  // By measuring every row, at the speed of memory: the oracle of search().
  [[nodiscard]] SearchResult exact_search(MatrixView queries, std::size_t k,
                                          const SearchOptions& options = {}) const;
  // The same, written to where the caller wants it. Keys must be int64.
  void search_into(MatrixView queries, std::size_t k, const SearchRoom& room,
                   const SearchOptions& options = {}) const;
  void exact_search_into(MatrixView queries, std::size_t k, const SearchRoom& room,
                         const SearchOptions& options = {}) const;
  // Throws what a search for k rows of so many queries would throw: a result has at most 2^28
  // places.
  static void require_places(std::size_t queries, std::size_t k);
  // Everything that is found at no more than the radius (in the metric's distance).
  [[nodiscard]] RangeResult range_search(MatrixView queries, float radius,
                                         const SearchOptions& options = {}) const;
  [[nodiscard]] Keys keys(const ReadOptions& options = {}) const;
  [[nodiscard]] std::size_t size() const noexcept;  // published

  // Of the newest commit, published or not; what is loaded or copied is published.
  // Written to a temporary file, synced, then renamed to path.
  void save(const std::string& path) const;
  [[nodiscard]] Image image() const;
  // With map, the file is read through a mapping instead of a buffer.
  static Index load(const std::string& path, bool map = true);
  static Index load_bytes(const void* data, std::size_t size_bytes);
  [[nodiscard]] Index copy() const;

  [[nodiscard]] CheckReport check() const;
  // Of keys, vectors, links and anchors, as 32 hexadecimal digits.
  [[nodiscard]] std::string digest() const;
  [[nodiscard]] Stats stats() const;
  [[nodiscard]] const IndexOptions& options() const noexcept;
  // The name of the distance kernels in use.
  [[nodiscard]] static const char* simd();

 private:
  explicit Index(std::shared_ptr<Store> store) : store_(std::move(store)) {}
  std::shared_ptr<Store> store_;
};

}  // namespace upvec
