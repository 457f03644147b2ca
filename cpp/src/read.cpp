#include "read.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>

#include "fence.hpp"
#include "team.hpp"
#include "traverse.hpp"

namespace upvec {
namespace {

// A found row, with its key as the snapshot knows it.
struct Hit {
  float distance;
  std::uint64_t key;
};

bool same_key(const KeySpan& keys, std::size_t i, std::uint64_t stored) noexcept {
  return keys.type() == KeyType::kInt64
             ? keys.int_at(i) == KeyIndex::int_of(StoredKey{stored})
             : keys.string_at(i) == KeyIndex::string_of(StoredKey{stored});
}

void add_key(Keys& keys, std::uint64_t stored) {
  if (keys.type == KeyType::kInt64) {
    keys.add(KeyIndex::int_of(StoredKey{stored}));
  } else {
    keys.add(KeyIndex::string_of(StoredKey{stored}));
  }
}

void add_no_key(Keys& keys) {
  if (keys.type == KeyType::kInt64) {
    keys.add(std::int64_t{0});
  } else {
    keys.add(std::string_view{});
  }
}

void prepare_queries(const Store& store, const MatrixView& queries, float*& first,
                     PaddedVector& storage) {
  require_dim(store.options, queries, "queries");
  const std::size_t stride = store.graph.space.padded_dim();
  first = storage.reserve(std::max<std::size_t>(1, queries.rows * stride));
  std::vector<std::uint64_t> bad;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    if (!prepare_vector(store.options, queries.row(i), first + i * stride, stride))
      bad.push_back(i);
  }
  if (!bad.empty()) throw_bad_vectors(store.options, queries, std::move(bad), "queries");
}

class Searcher {
 public:
  Searcher(const Store& store, const Filter::State* filter, std::uint64_t seq)
      : store_(store), graph_(store.graph), filter_(filter), seq_(seq) {}

  // The k nearest that the beam finds, nearest first.
  void search(const float* query, std::size_t k, std::size_t ef, Scratch& scratch,
              std::vector<Hit>& hits) const {
    encode(query, scratch);
    if (filter_ != nullptr && scan_is_cheaper(ef)) {
      scan_allowed(query, k, scratch, hits);
      return;
    }
    beam(query, std::max(k, ef), scratch);
    fetch_found(k, scratch);
    if (!collect(query, k, scratch, hits)) collect_older(query, k, std::max(k, ef), scratch, hits);
  }

  // The same for queries [begin, end), as many at a time as there are lanes: while the points of
  // one are on their way from memory, the others measure theirs. query_of(i) is the i-th query,
  // hits_of(i) where its hits go.
  template <typename QueryOf, typename HitsOf>
  void search_in_turns(std::size_t begin, std::size_t end, std::size_t k, std::size_t ef,
                       std::span<const ScratchPool::Loan> lanes, const QueryOf& query_of,
                       const HitsOf& hits_of) const {
    if (filter_ != nullptr && scan_is_cheaper(ef)) {
      for (std::size_t i = begin; i < end; ++i) search(query_of(i), k, ef, *lanes[0], hits_of(i));
      return;
    }
    const auto run = [&](const auto& points) {
      std::array<Turn, kLanes> turns;
      std::size_t next = begin;
      std::size_t busy = 0;
      for (; busy < lanes.size() && next < end; ++busy) {
        turns[busy] = {&*lanes[busy], next};
        start(points, query_of(next++), std::max(k, ef), *turns[busy].scratch);
      }
      while (busy > 0) {
        for (std::size_t lane = 0; lane < busy;) {
          Turn& turn = turns[lane];
          const float* const query = query_of(turn.query);
          if (advance(points, query, k, std::max(k, ef), turn)) {
            ++lane;
            continue;
          }
          if (!collect(query, k, *turn.scratch, hits_of(turn.query))) {
            collect_older(query, k, std::max(k, ef), *turn.scratch, hits_of(turn.query));
          }
          if (next == end) {
            turn = turns[--busy];
            continue;
          }
          turn = {turn.scratch, next};
          start(points, query_of(next++), std::max(k, ef), *turn.scratch);
          ++lane;
        }
      }
    };
    with_points(graph_, run);
  }
  // Queries/s by lanes as a ratio to one (which looks ahead instead, see traverse.hpp), at recall
  // .95 and .99, on Zen 4:    2              3
  //   200,000 x 128 SIFT      1.14 1.12      1.13 1.12
  //   98,000 x 384 texts      1.13 1.08      1.12 1.07
  static constexpr std::size_t kLanes = 2;

  // Everything within the radius that a beam finds which is wide enough to see beyond it.
  void range(const float* query, float radius, std::size_t ef, Scratch& scratch,
             std::vector<Hit>& hits) const {
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    for (std::size_t width = std::max<std::size_t>(ef, 64);; width *= 2) {
      search(query, width, width, scratch, hits);
      const bool beyond = hits.size() < width || hits.back().distance > radius;
      if (beyond || width >= slots) break;
    }
    const auto end = std::partition_point(
        hits.begin(), hits.end(), [radius](const Hit& hit) { return hit.distance <= radius; });
    hits.erase(end, hits.end());
  }

 private:
  // One of several searches that take turns.
  struct Turn {
    Scratch* scratch = nullptr;
    std::size_t query = 0;
    bool walks = true;
  };

  void encode(const float* query, Scratch& scratch) const {
    if (!graph_.has_codes) return;
    scratch.query_code.resize(graph_.code_space.point_bytes());
    graph_.code_space.encode(query, scratch.query_code.data());
  }
  static Point point_of(const CodePoints& /*points*/, const float* /*query*/, Scratch& scratch) {
    return scratch.query_code.data();
  }
  static Point point_of(const ExactPoints& /*points*/, const float* query, Scratch& /*scratch*/) {
    return query;
  }

  // Up to the first list of level 0.
  template <typename Points>
  void start(const Points& points, const float* query, std::size_t ef, Scratch& scratch) const {
    encode(query, scratch);
    begin_pools(ef, scratch);
    ++scratch.counters.queries;
    const Slot entry = graph_.entry.load(std::memory_order_acquire);
    scratch.slots.clear();
    scratch.points.clear();
    if (entry == kNoSlot || !enter(points, point_of(points, query, scratch), entry, scratch))
      return;
    open_list(points, 0, take_next(points, 0, scratch), scratch);
  }

  // What one search does before the next one's turn; false when all that is left is to collect.
  template <typename Points>
  bool advance(const Points& points, const float* query, std::size_t k, std::size_t ef,
               Turn& turn) const {
    if (!turn.walks) return false;
    Scratch& scratch = *turn.scratch;
    absorb(points, point_of(points, query, scratch), 0, scratch,
           [&](Neighbor candidate) { accept(candidate, scratch); });
    if (const Slot slot = take_next(points, 0, scratch); slot != kNoSlot) {
      open_list(points, 0, slot, scratch);
      return true;
    }
    if (is_blurred(scratch)) walk_exactly(query, ef, scratch);
    fetch_found(k, scratch);
    turn.walks = false;
    return true;
  }

  // Sends for the rows that collect() will measure.
  void fetch_found(std::size_t k, Scratch& scratch) const {
    const CandidatePool& pool = found(scratch);
    const std::size_t n = std::min(graph_.has_codes ? measured_again(k) : k, pool.size());
    for (std::size_t i = 0; i < n; ++i) {
      const Row row = graph_.row_of[pool[i].slot].load(std::memory_order_acquire);
      simd::prefetch(&graph_.rows.header(row));
      if (graph_.has_codes) {
        simd::prefetch_lines(graph_.rows.vector(row), graph_.space.vector_bytes());
      }
    }
  }

  [[nodiscard]] bool commit_under_way() const noexcept {
    return store_.writing.load(std::memory_order_seq_cst) != seq_;
  }

  // A beam wide enough to meet ef allowed rows measures about 10 ef / selectivity of them; a scan
  // of the allowed rows measures each once.
  [[nodiscard]] bool scan_is_cheaper(std::size_t ef) const noexcept {
    const double allowed = static_cast<double>(filter_->slots.size());
    const double all = static_cast<double>(graph_.slot_end.load(std::memory_order_relaxed));
    return allowed * allowed <= 10.0 * static_cast<double>(ef) * all;
  }

  void beam(const float* query, std::size_t ef, Scratch& scratch) const {
    const Slot entry = graph_.entry.load(std::memory_order_acquire);
    begin_pools(ef, scratch);
    ++scratch.counters.queries;
    if (entry == kNoSlot) return;
    if (!graph_.has_codes) {
      walk(ExactPoints(graph_), query, entry, scratch);
      return;
    }
    walk(CodePoints(graph_), scratch.query_code.data(), entry, scratch);
    if (is_blurred(scratch)) walk_exactly(query, ef, scratch);
  }

  // Full of rows that codes can't tell apart: there may be more of them.
  [[nodiscard]] bool is_blurred(const Scratch& scratch) const noexcept {
    if (!graph_.has_codes) return false;
    const CandidatePool& pool = found(scratch);
    return pool.is_full() && pool.size() > 0 && pool[pool.size() - 1].distance < blur(scratch);
  }
  void walk_exactly(const float* query, std::size_t ef, Scratch& scratch) const {
    begin_pools(ef, scratch);
    walk(ExactPoints(graph_), query, graph_.entry.load(std::memory_order_acquire), scratch);
  }

  void begin_pools(std::size_t ef, Scratch& scratch) const {
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    std::size_t width = ef;
    if (filter_ != nullptr) {
      const double share = static_cast<double>(filter_->slots.size()) / static_cast<double>(slots);
      width = static_cast<std::size_t>(static_cast<double>(ef) / std::clamp(share, 1e-6, 1.0));
      scratch.accepted.begin(std::min<std::size_t>(ef, filter_->slots.size()));
    }
    scratch.pool.begin(std::min(width, slots));  // no more can be found than there are
  }

  // Distances from the query by code are not to be trusted up to here.
  [[nodiscard]] float blur(const Scratch& scratch) const noexcept {
    return graph_.code_space.blur(scratch.query_code.data());
  }

  void accept(Neighbor candidate, Scratch& scratch) const noexcept {
    if (filter_ != nullptr && filter_->contains(candidate.slot)) scratch.accepted.insert(candidate);
  }

  // From the entry down to level 0. False if there is nothing that was there at the start.
  template <typename Points>
  bool enter(const Points& points, Point query, Slot entry, Scratch& scratch) const {
    scratch.visited.begin(graph_.slot_end.load(std::memory_order_acquire));
    const Neighbor start = descend(points, query, entry, 0, scratch);
    if (scratch.visited.insert(start.slot) == 0) return false;
    scratch.pool.insert(start);
    accept(start, scratch);
    return true;
  }

  template <typename Points>
  void walk(const Points& points, Point query, Slot entry, Scratch& scratch) const {
    if (!enter(points, query, entry, scratch)) return;
    beam_search(points, query, 0, scratch, [&](Neighbor candidate) { accept(candidate, scratch); });
  }

  [[nodiscard]] const CandidatePool& found(const Scratch& scratch) const noexcept {
    return filter_ == nullptr ? scratch.pool : scratch.accepted;
  }

  // The first k of the beam. False if a commit newer than this version was begun: then what the
  // beam measured may not be what this version shows.
  bool collect(const float* query, std::size_t k, Scratch& scratch, std::vector<Hit>& hits) const {
    hits.clear();
    if (commit_under_way()) return false;
    const CandidatePool& pool = found(scratch);
    std::size_t n = std::min(graph_.has_codes ? measured_again(k) : k, pool.size());
    if (graph_.has_codes) {
      while (n < pool.size() && pool[n].distance < blur(scratch)) ++n;
    }
    scratch.candidates.clear();
    // Rows that this version does not show give their places to those behind them.
    for (std::size_t i = 0; i < pool.size() && scratch.candidates.size() < n; ++i) {
      const Row row = graph_.row_of[pool[i].slot].load(std::memory_order_acquire);
      const RowHeader& header = graph_.rows.header(row);
      if (row == kNoRow || header.removed != 0 || header.seq > seq_) continue;
      if (filter_ != nullptr && !filter_->contains(pool[i].slot, header.key)) continue;
      UPVEC_COUNT(count_row(graph_, pool[i].slot, row, scratch.counters.traffic));
      scratch.candidates.push_back({graph_.has_codes
                                        ? graph_.space.distance(query, graph_.rows.vector(row))
                                        : pool[i].distance,
                                    pool[i].slot});
    }
    if (graph_.has_codes) {
      scratch.counters.distances += scratch.candidates.size();
      UPVEC_COUNT(scratch.counters.traffic.exact_distances += scratch.candidates.size());
      std::sort(scratch.candidates.begin(), scratch.candidates.end());
    }
    for (std::size_t i = 0; i < std::min(k, scratch.candidates.size()); ++i) {
      const Neighbor& candidate = scratch.candidates[i];
      const Row row = graph_.row_of[candidate.slot].load(std::memory_order_acquire);
      hits.push_back({candidate.distance, graph_.rows.header(row).key});
    }
    return !commit_under_way();
  }

  // How many of the nearest by code are measured by exact vector. Recall, in points, lost against
  // measuring all of them, on 200,000 x 128 SIFT and on 98,000 x 384 texts:
  //             k + 2        k + 4        k + 6        k + 10
  //   10        .05  .01      0    0       0    0       0    0
  //   100       .33  .06     .11  .01     .04   0       0    0     (ef 400)
  static std::size_t measured_again(std::size_t k) noexcept { return k + k / 8 + 5; }

  // Of an older version: the beam finds the slots that have not changed since, the change log has
  // the others.
  void collect_older(const float* query, std::size_t k, std::size_t ef, Scratch& scratch,
                     std::vector<Hit>& hits) const {
    if (graph_.has_codes) {
      const auto old = store_.old_codes.of(seq_ + 1);
      if (old != nullptr && collect_before(*old, query, k, ef, scratch)) {
        measure_visible(query, scratch);
        take_nearest(k, scratch, hits);
        return;
      }
    }
    if (scan_beats_beam()) {
      scratch.slots.resize(graph_.slot_end.load(std::memory_order_acquire) - 1);
      std::iota(scratch.slots.begin(), scratch.slots.end(), Slot{1});
      measure_visible(query, scratch);
      take_nearest(k, scratch, hits);
      return;
    }
    // Slots that came into this neighbourhood since then crowd out those that were here.
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    for (std::size_t width = ef; count_unchanged(scratch) < std::min(k, found(scratch).size()) &&
                                 found(scratch).size() >= width && width < slots;) {
      width *= 2;
      beam(query, width, scratch);
    }
    // After the beam: so a slot that changed while it ran is in the log, or still as it was.
    scratch.slots.clear();
    store_.changes.since(seq_, scratch.slots);
    const CandidatePool& pool = found(scratch);
    for (std::size_t i = 0; i < pool.size(); ++i) scratch.slots.push_back(pool[i].slot);
    std::sort(scratch.slots.begin(), scratch.slots.end());
    scratch.slots.erase(std::unique(scratch.slots.begin(), scratch.slots.end()),
                        scratch.slots.end());
    measure_visible(query, scratch);
    take_nearest(k, scratch, hits);
  }

  // Of the version before the commit under way: what may be among its k nearest, to scratch.slots.
  // False if codes can't tell, or the commit is done.
  bool collect_before(const OldCodes& old, const float* query, std::size_t k, std::size_t ef,
                      Scratch& scratch) const {
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    const std::size_t width = std::min(ef, slots);
    const bool scans =
        old.size() * kScanShare > slots || !beam_finds_unchanged(query, k, width, slots, scratch);
    CandidatePool& shown = scratch.shown;
    // A slot may be met twice: in the graph, and then, as it has changed meanwhile, among the old.
    shown.begin(std::min(std::max(2 * measured_again(k), width), 2 * slots));
    if (scans) {
      scan_graph(slots, scratch);
    } else {
      const CandidatePool& pool = found(scratch);
      for (std::size_t i = 0; i < pool.size(); ++i) {
        if (shows_newest(pool[i].slot)) shown.insert(pool[i]);
      }
    }
    // After that: what has changed meanwhile is there.
    acquire_fence();
    scan_codes(
        old.size(), [&](std::size_t i) { return old.slot(i); },
        [&](Slot, std::size_t i) { return old.code(i); }, [](Slot) { return true; }, scratch);
    return take_shown(k, scratch) && store_.writing.load(std::memory_order_seq_cst) == old.commit();
  }
  // If more than this part has moved, a beam finds little that has not; how much wider it gets.
  static constexpr std::size_t kScanShare = 2;
  static constexpr std::size_t kWidest = 4;

  // Slots that came into this neighbourhood since then crowd out those that were here.
  bool beam_finds_unchanged(const float* query, std::size_t k, std::size_t ef, std::size_t slots,
                            Scratch& scratch) const {
    const auto enough = [&] {
      return count_unchanged(scratch) >= std::min(k, found(scratch).size());
    };
    for (std::size_t width = 2 * ef; !enough() && width <= std::min(kWidest * ef, slots);) {
      beam(query, width, scratch);
      width *= 2;
    }
    return enough();
  }

  // The nearest of scratch.shown, to scratch.slots: as many as are to be measured, of those that
  // this version shows. False if there may be more that are as near.
  bool take_shown(std::size_t k, Scratch& scratch) const {
    const CandidatePool& shown = scratch.shown;
    scratch.slots.clear();
    scratch.visited.begin(graph_.slot_end.load(std::memory_order_acquire));
    std::size_t i = 0;
    for (; i < shown.size(); ++i) {
      const bool blurred = shown[i].distance < blur(scratch);
      if (scratch.slots.size() >= measured_again(k) && !blurred) break;
      if (scratch.visited.insert(shown[i].slot) == 0) continue;
      const Row row = visible_row(graph_, shown[i].slot, seq_);
      if (row == kNoRow) continue;
      if (filter_ != nullptr && !filter_->contains(shown[i].slot, graph_.rows.header(row).key)) {
        continue;
      }
      scratch.slots.push_back(shown[i].slot);
    }
    // Had there been more room, more would have been taken.
    const bool cut = i == shown.size() && shown.is_full() &&
                     (scratch.slots.size() < measured_again(k) ||
                      shown[shown.size() - 1].distance < blur(scratch));
    std::sort(scratch.slots.begin(), scratch.slots.end());
    return !cut;
  }

  // All slots that this version shows as the graph has them, by code.
  void scan_graph(std::size_t slots, Scratch& scratch) const {
    scan_codes(
        slots - 1, [](std::size_t i) { return static_cast<Slot>(i + 1); },
        [this](Slot slot, std::size_t) { return graph_.codes.at(slot); },
        [this, slots](Slot slot) {
          constexpr Slot kHeadersAhead = 8;
          if (slot + kHeadersAhead < slots) {
            const Row later = graph_.row_of[slot + kHeadersAhead].load(std::memory_order_acquire);
            simd::prefetch(&graph_.rows.header(later));
          }
          return shows_newest(slot);
        },
        scratch);
  }

  // Measures n codes into scratch.shown, those of slots that are asked for.
  template <typename SlotOf, typename CodeOf, typename Wanted>
  void scan_codes(std::size_t n, const SlotOf& slot_of, const CodeOf& code_of, const Wanted& wanted,
                  Scratch& scratch) const {
    const auto measure_block = [&] {
      measure(CodePoints(graph_), scratch.query_code.data(), scratch);
      for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
        scratch.shown.insert({scratch.distances[i], scratch.slots[i]});
      }
      scratch.slots.clear();
      scratch.points.clear();
    };
    scratch.slots.clear();
    scratch.points.clear();
    for (std::size_t i = 0; i < n; ++i) {
      const Slot slot = slot_of(i);
      if (!wanted(slot) || (filter_ != nullptr && !filter_->contains(slot))) continue;
      scratch.slots.push_back(slot);
      scratch.points.push_back(code_of(slot, i));
      if (scratch.slots.size() == kMostTogether) measure_block();
    }
    measure_block();
  }

  [[nodiscard]] bool shows_newest(Slot slot) const noexcept {
    const Row row = graph_.row_of[slot].load(std::memory_order_acquire);
    if (row == kNoRow) return false;
    const RowHeader& header = graph_.rows.header(row);
    return header.seq <= seq_ && header.removed == 0;
  }

  // When a good part has changed, hardly any of a beam's finds are as they were: 18,000 rows of
  // which all had changed took 97,000 distances a query that way.
  [[nodiscard]] bool scan_beats_beam() const {
    constexpr std::size_t kShare = 16;
    return store_.changes.count_since(seq_) * kShare >
           graph_.slot_end.load(std::memory_order_acquire);
  }

  [[nodiscard]] std::size_t count_unchanged(const Scratch& scratch) const noexcept {
    const CandidatePool& pool = found(scratch);
    std::size_t unchanged = 0;
    for (std::size_t i = 0; i < pool.size(); ++i) {
      unchanged += shows_newest(pool[i].slot) ? 1 : 0;
    }
    return unchanged;
  }

  // Measures the rows that scratch.slots show at this version, if any, into scratch.candidates.
  void measure_visible(const float* query, Scratch& scratch) const {
    std::size_t shown = 0;
    scratch.points.clear();
    for (const Slot slot : scratch.slots) {
      const Row row = visible_row(graph_, slot, seq_);
      if (row == kNoRow) continue;
      if (filter_ != nullptr && !filter_->contains(slot, graph_.rows.header(row).key)) continue;
      scratch.slots[shown++] = slot;
      scratch.points.push_back(graph_.rows.vector(row));
    }
    scratch.slots.resize(shown);
    measure(ExactPoints(graph_), query, scratch);
    scratch.candidates.clear();
    for (std::size_t i = 0; i < shown; ++i) {
      scratch.candidates.push_back({scratch.distances[i], scratch.slots[i]});
    }
  }

  void scan_allowed(const float* query, std::size_t k, Scratch& scratch,
                    std::vector<Hit>& hits) const {
    scratch.slots.assign(filter_->slots.begin(), filter_->slots.end());
    measure_visible(query, scratch);
    take_nearest(k, scratch, hits);
  }

  void take_nearest(std::size_t k, Scratch& scratch, std::vector<Hit>& hits) const {
    auto& candidates = scratch.candidates;
    const std::size_t n = std::min(k, candidates.size());
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(n),
                      candidates.end());
    hits.clear();
    for (std::size_t i = 0; i < n; ++i) {
      // What a slot shows at a pinned version does not change: this is the row that was measured.
      const Row row = visible_row(graph_, candidates[i].slot, seq_);
      hits.push_back({candidates[i].distance, graph_.rows.header(row).key});
    }
  }

  const Store& store_;
  const Graph& graph_;
  const Filter::State* filter_;
  std::uint64_t seq_;
};

// Runs one search a query on a team and gathers the hits, in query order.
template <typename Search>
std::vector<std::vector<Hit>> for_each_query(const Store& store, std::size_t queries,
                                             unsigned threads, const Search& search) {
  std::vector<std::vector<Hit>> hits(queries);
  constexpr std::size_t kGrain = 8;
  Team team(Team::useful_threads(threads, queries / kGrain));
  std::vector<ScratchPool::Loan> loans;
  loans.reserve(team.size());
  for (unsigned i = 0; i < team.size(); ++i) loans.push_back(store.scratches.take());
  team.run(queries, kGrain,
           [&](std::size_t i, unsigned worker) { search(i, *loans[worker], hits[i]); });
  return hits;
}

SearchResult to_matrix(const Store& store, const std::vector<std::vector<Hit>>& hits,
                       std::size_t k) {
  SearchResult result;
  result.keys.type = store.options.key_type;
  result.distances.reserve(hits.size() * k);
  result.counts.reserve(hits.size());
  if (store.options.key_type == KeyType::kInt64) result.keys.ints.reserve(hits.size() * k);
  for (const auto& row : hits) {
    for (const Hit& hit : row) {
      add_key(result.keys, hit.key);
      result.distances.push_back(hit.distance);
    }
    for (std::size_t i = row.size(); i < k; ++i) {
      add_no_key(result.keys);
      result.distances.push_back(std::numeric_limits<float>::infinity());
    }
    result.counts.push_back(static_cast<std::int64_t>(row.size()));
  }
  return result;
}

std::size_t effective_ef(const SearchOptions& options, std::size_t k) {
  return options.ef == 0 ? std::max<std::size_t>(2 * k, 64) : std::max(options.ef, k);
}

// A result has room for k rows a query, found or not.
void require_k(std::size_t k, std::size_t queries) {
  if (k == 0) throw Error(ErrorCode::kInvalidArgument, "k = 0; want at least 1");
  constexpr std::size_t kMaxPlaces = std::size_t{1} << 28;
  if (k > kMaxPlaces / std::max<std::size_t>(1, queries)) {
    throw Error(ErrorCode::kLimit, std::to_string(queries) +
                                       " queries of k = " + std::to_string(k) +
                                       "; want at most 2^28 places in a result");
  }
}

}  // namespace

Row visible_row(const Graph& graph, Slot slot, std::uint64_t seq) noexcept {
  Row row = graph.row_of[slot].load(std::memory_order_acquire);
  while (row != kNoRow && graph.rows.header(row).seq > seq) {
    row = graph.rows.header(row).previous.load(std::memory_order_acquire);
  }
  return row == kNoRow || graph.rows.header(row).removed != 0 ? kNoRow : row;
}

void find_visible(const Store& store, const KeySpan& keys, std::uint64_t seq,
                  std::vector<Slot>& slots, std::vector<Row>& rows) {
  slots.resize(keys.size());
  rows.assign(keys.size(), kNoRow);
  store.keys.find(keys, slots);
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (slots[i] != kNoValue) rows[i] = visible_row(store.graph, slots[i], seq);
    if (rows[i] != kNoRow && same_key(keys, i, store.graph.rows.header(rows[i]).key)) continue;
    rows[i] = kNoRow;
    slots[i] = kNoSlot;
    missing.push_back(i);
  }
  // A later commit may have given the slot of a removed key to another one. Then only the rows
  // know.
  if (missing.empty() || store.keys_erased_at.load(std::memory_order_seq_cst) <= seq) return;
  const Slot end = store.graph.slot_end.load(std::memory_order_acquire);
  for (Slot slot = 1; slot < end; ++slot) {
    const Row row = visible_row(store.graph, slot, seq);
    if (row == kNoRow) continue;
    for (const std::size_t i : missing) {
      if (!same_key(keys, i, store.graph.rows.header(row).key)) continue;
      slots[i] = slot;
      rows[i] = row;
    }
  }
}

void get(const Store& store, const KeySpan& keys, float* vectors, std::uint8_t* found,
         std::uint64_t seq) {
  std::vector<Slot> slots;
  std::vector<Row> rows;
  find_visible(store, keys, seq, slots, rows);
  const std::size_t dim = store.options.dim;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    found[i] = rows[i] != kNoRow ? 1 : 0;
    if (i + 4 < keys.size() && rows[i + 4] != kNoRow) {
      simd::prefetch_lines(store.graph.rows.vector(rows[i + 4]), store.graph.space.vector_bytes());
    }
    if (found[i] != 0) {
      std::memcpy(vectors + i * dim, store.graph.rows.vector(rows[i]), dim * sizeof(float));
    } else {
      std::memset(vectors + i * dim, 0, dim * sizeof(float));
    }
  }
}

SearchResult search(const Store& store, const MatrixView& queries, std::size_t k,
                    const SearchOptions& options, const Filter::State* filter, std::uint64_t seq) {
  require_k(k, queries.rows);
  float* prepared = nullptr;
  PaddedVector storage;
  prepare_queries(store, queries, prepared, storage);
  const std::size_t ef = effective_ef(options, k);
  const Searcher searcher(store, filter, seq);
  const std::size_t stride = store.graph.space.padded_dim();
  std::vector<std::vector<Hit>> hits(queries.rows);
  const auto query_of = [&](std::size_t i) { return prepared + i * stride; };
  const auto hits_of = [&](std::size_t i) -> std::vector<Hit>& { return hits[i]; };
  // Of every chunk, the last query has nobody to take turns with.
  constexpr std::size_t kChunk = 64;
  const std::size_t chunks = (queries.rows + kChunk - 1) / kChunk;
  Team team(Team::useful_threads(options.threads, chunks));
  const std::size_t lanes = std::min(Searcher::kLanes, queries.rows);
  std::vector<ScratchPool::Loan> loans;
  loans.reserve(team.size() * lanes);
  while (loans.size() < team.size() * lanes) loans.push_back(store.scratches.take());
  team.run(chunks, 1, [&](std::size_t chunk, unsigned worker) {
    const std::size_t end = std::min((chunk + 1) * kChunk, queries.rows);
    searcher.search_in_turns(chunk * kChunk, end, k, ef,
                             std::span(loans).subspan(worker * lanes, lanes), query_of, hits_of);
  });
  return to_matrix(store, hits, k);
}

SearchResult exact_search(const Store& store, const MatrixView& queries, std::size_t k,
                          const SearchOptions& options, const Filter::State* filter,
                          std::uint64_t seq) {
  require_k(k, queries.rows);
  float* prepared = nullptr;
  PaddedVector storage;
  prepare_queries(store, queries, prepared, storage);
  const Graph& graph = store.graph;
  const std::size_t stride = graph.space.padded_dim();
  const Slot end = graph.slot_end.load(std::memory_order_acquire);
  // Every row is brought from memory once for a tile of queries.
  constexpr std::size_t kTile = 16;
  const std::size_t tiles = (queries.rows + kTile - 1) / kTile;
  std::vector<std::vector<Hit>> hits(queries.rows);
  Team team(Team::useful_threads(options.threads, tiles));
  team.run(tiles, 1, [&](std::size_t tile, unsigned) {
    const std::size_t begin = tile * kTile;
    const std::size_t n = std::min(kTile, queries.rows - begin);
    std::vector<CandidatePool> pools(n);
    for (CandidatePool& pool : pools) pool.begin(std::min<std::size_t>(k, end));
    for (Slot slot = 1; slot < end; ++slot) {
      const Row row = visible_row(graph, slot, seq);
      if (row == kNoRow) continue;
      if (filter != nullptr && !filter->contains(slot, graph.rows.header(row).key)) continue;
      for (std::size_t i = 0; i < n; ++i) {
        pools[i].insert(
            {graph.space.distance(prepared + (begin + i) * stride, graph.rows.vector(row)), slot});
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < pools[i].size(); ++j) {
        const Row row = visible_row(graph, pools[i][j].slot, seq);
        hits[begin + i].push_back({pools[i][j].distance, graph.rows.header(row).key});
      }
    }
  });
  return to_matrix(store, hits, k);
}

RangeResult range_search(const Store& store, const MatrixView& queries, float radius,
                         const SearchOptions& options, const Filter::State* filter,
                         std::uint64_t seq) {
  if (std::isnan(radius)) throw Error(ErrorCode::kInvalidArgument, "radius = NaN; want a number");
  float* prepared = nullptr;
  PaddedVector storage;
  prepare_queries(store, queries, prepared, storage);
  const Searcher searcher(store, filter, seq);
  const std::size_t stride = store.graph.space.padded_dim();
  const auto hits =
      for_each_query(store, queries.rows, options.threads,
                     [&](std::size_t i, Scratch& scratch, std::vector<Hit>& found) {
                       searcher.range(prepared + i * stride, radius, options.ef, scratch, found);
                     });
  RangeResult result;
  result.keys.type = store.options.key_type;
  result.offsets.push_back(0);
  for (const auto& row : hits) {
    for (const Hit& hit : row) {
      add_key(result.keys, hit.key);
      result.distances.push_back(hit.distance);
    }
    result.offsets.push_back(static_cast<std::int64_t>(result.distances.size()));
  }
  return result;
}

std::shared_ptr<const Filter::State> make_filter(const std::shared_ptr<const Store>& store,
                                                 const KeySpan& allowed, std::uint64_t seq) {
  require_key_type(*store, allowed);
  auto filter = std::make_shared<Filter::State>();
  filter->store = store;
  std::vector<Row> rows;
  find_visible(*store, allowed, seq, filter->slots, rows);
  std::erase(filter->slots, kNoSlot);
  std::sort(filter->slots.begin(), filter->slots.end());
  filter->slots.erase(std::unique(filter->slots.begin(), filter->slots.end()), filter->slots.end());
  filter->bits.resize(store->graph.slot_end.load(std::memory_order_acquire) / 64 + 1);
  for (const Slot slot : filter->slots) {
    filter->bits[slot / 64] |= std::uint64_t{1} << (slot % 64);
    const Row row = visible_row(store->graph, slot, seq);
    filter->hashes.push_back(store->hash_of(store->graph.rows.header(row).key));
  }
  return filter;
}

Keys visible_keys(const Store& store, std::uint64_t seq) {
  Keys keys;
  keys.type = store.options.key_type;
  const Slot end = store.graph.slot_end.load(std::memory_order_acquire);
  for (Slot slot = 1; slot < end; ++slot) {
    const Row row = visible_row(store.graph, slot, seq);
    if (row != kNoRow) add_key(keys, store.graph.rows.header(row).key);
  }
  return keys;
}

}  // namespace upvec
