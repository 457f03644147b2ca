// Range search: everything within a radius.
//
// A beam finds the way there. Then everything that lies within the radius is expanded, however much
// it is: the rows within a ball are as good as always linked among each other, by way of the ball
// or of its border. Codes tell what is within, with some slack; exact vectors decide. Queries that
// find a good part of the index give that up for a scan, which costs less.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "for_each_query.hpp"
#include "read.hpp"
#include "scan.hpp"
#include "traverse.hpp"

namespace upvec {
namespace {

// Puts what was found in order, and gives it its keys.
void to_hits(const Graph& graph, std::uint64_t seq, std::vector<Neighbor>& found,
             std::vector<Hit>& hits) {
  std::sort(found.begin(), found.end());
  hits.clear();
  hits.reserve(found.size());
  for (const Neighbor& one : found) {
    // What a slot shows at a pinned version does not change: this is the row that was measured.
    const Row row = visible_row(graph, one.slot, seq);
    hits.push_back({one.distance, graph.rows.header(row).key});
  }
}

class RangeSearch {
 public:
  RangeSearch(const Store& store, const Filter::State* filter, std::uint64_t seq, float radius,
              std::size_t ef)
      : store_(store),
        graph_(store.graph),
        filter_(filter),
        seq_(seq),
        radius_(radius),
        slots_(graph_.slot_end.load(std::memory_order_acquire)),
        ef_(std::min(ef == 0 ? kEf : ef, slots_)) {}

  // Whether no query needs to look at the graph.
  [[nodiscard]] bool only_scans() const {
    if (Scan(store_, filter_, seq_).bytes() <= kCheapBytes) return true;
    return seq_ != store_.writing.load(std::memory_order_seq_cst) &&
           store_.changes.count_since(seq_) * kChangedShare > slots_;
  }

  // Everything within the radius, nearest first. False, and nothing, if that is so much that a scan
  // costs less.
  bool find(const float* query, Scratch& scratch, std::vector<Hit>& hits) const {
    const Slot entry = graph_.entry.load(std::memory_order_acquire);
    ++scratch.counters.queries;
    scratch.inside.clear();
    if (entry != kNoSlot) {
      bool few = false;
      if (graph_.walks_codes) {
        scratch.query_code.resize(graph_.code_space.point_bytes());
        graph_.code_space.encode(query, scratch.query_code.data());
        const Point code = scratch.query_code.data();
        const float reach = radius_ + graph_.code_space.slack(code, radius_);
        few = graph_.has_codes ? walk(CodePoints(graph_), code, entry, reach, scratch)
                               : walk(RowPoints(graph_), code, entry, reach, scratch);
      } else {
        few = walk(QueryPoints(graph_), query, entry, radius_, scratch);
      }
      if (!few || is_lost(scratch)) return false;
    }
    scratch.slots.clear();
    for (const Neighbor& one : scratch.inside) scratch.slots.push_back(one.slot);
    // After the walk: so a slot that changed while it ran is in the log, or still as it was.
    if (seq_ != store_.writing.load(std::memory_order_seq_cst)) add_changed(scratch);
    measure_shown(query, scratch);
    take_within(scratch, hits);
    return true;
  }

 private:
  // Candidates of the beam, if the caller names none. On 18,000 text embeddings, where the radius
  // leaves 10 and 100 hits a query, recall is .9955 and .988 with 32, .9995 and .9916 with 64,
  // .9990 and .9941 with 96; with 50,000 of SIFT above .998 from 16 on. So many times fewer are
  // expanded at first, and the others only if something was within the radius.
  static constexpr std::size_t kEf = 96;
  static constexpr std::size_t kFirstShare = 4;
  // To scan so much takes as long as the beam.
  static constexpr std::size_t kCheapBytes = std::size_t{1} << 20;
  // A scan costs less from one in so many on: of 50,000 rows of 128 dimensions, finding 1,000 takes
  // 0.55 ms by the graph, and a scan 1 ms.
  static constexpr std::size_t kScanShare = 12;
  static constexpr std::size_t kChangedShare = 16;

  // A walk beside a commit may end where it began: at a slot that has just lost its list, or has
  // yet to get it.
  [[nodiscard]] bool is_lost(const Scratch& scratch) const noexcept {
    const std::size_t live = store_.published_live.load(std::memory_order_relaxed);
    return seq_ != store_.writing.load(std::memory_order_seq_cst) &&
           scratch.pool.size() < std::min(ef_ / kFirstShare, live);
  }

  template <typename Points>
  bool walk(const Points& points, Point query, Slot entry, float reach, Scratch& scratch) const {
    const Neighbor start = descend(points, query, entry, 0, scratch);
    // After that: it may have ended at a slot that is newer than this search.
    scratch.visited.begin(graph_.slot_end.load(std::memory_order_acquire));
    scratch.pool.begin(ef_, std::max<std::size_t>(1, ef_ / kFirstShare));
    scratch.visited.insert(start.slot);
    const auto note = [&](Neighbor candidate) {
      if (candidate.distance <= reach) scratch.inside.push_back(candidate);
    };
    note(start);
    scratch.pool.insert(start);
    beam_search(points, query, 0, scratch, note);
    if (scratch.inside.empty()) return true;
    scratch.pool.widen();
    beam_search(points, query, 0, scratch, note);
    return expand_inside(points, query, reach, scratch);
  }

  // All that the beam had no room for.
  template <typename Points>
  bool expand_inside(const Points& points, Point query, float reach, Scratch& scratch) const {
    const CandidatePool& pool = scratch.pool;
    if (!pool.is_full() || pool.size() == 0) return true;  // it had room for everything
    const Neighbor last = pool[pool.size() - 1];
    auto& inside = scratch.inside;
    const std::size_t most = slots_ / kScanShare;
    for (std::size_t i = 0; i < inside.size(); ++i) {
      if (inside.size() > most) return false;
      if (!(last < inside[i])) continue;
      expand(points, query, inside[i].slot, scratch);
      for (std::size_t j = 0; j < scratch.slots.size(); ++j) {
        if (scratch.distances[j] > reach) continue;
        inside.push_back({scratch.distances[j], scratch.slots[j]});
        simd::prefetch_lines(graph_.base.words(scratch.slots[j]),
                             graph_.base.cap() * sizeof(LinkWord));
      }
    }
    return true;
  }

  template <typename Points>
  void expand(const Points& points, Point query, Slot slot, Scratch& scratch) const {
    const std::size_t cap = graph_.base.cap();
    scratch.slots.resize(cap);
    scratch.slots.resize(
        scratch.visited.insert_list(graph_.base.words(slot), cap, scratch.slots.data()));
    locate(points, scratch);
    ++scratch.counters.hops;
    measure(points, query, scratch);
  }

  void add_changed(Scratch& scratch) const {
    store_.changes.since(seq_, scratch.slots);
    std::sort(scratch.slots.begin(), scratch.slots.end());
    scratch.slots.erase(std::unique(scratch.slots.begin(), scratch.slots.end()),
                        scratch.slots.end());
  }

  // Measures the rows that scratch.slots show at this version, if any, by exact vector.
  void measure_shown(const float* query, Scratch& scratch) const {
    for (const Slot slot : scratch.slots) {
      simd::prefetch(&graph_.rows.header(graph_.row_of[slot].load(std::memory_order_acquire)));
    }
    scratch.points.clear();
    std::size_t shown = 0;
    for (const Slot slot : scratch.slots) {
      const Row row = visible_row(graph_, slot, seq_);
      if (row == kNoRow) continue;
      if (filter_ != nullptr && !filter_->contains(slot, graph_.rows.header(row).key)) continue;
      scratch.slots[shown++] = slot;
      scratch.points.push_back(graph_.rows.vector(row));
    }
    scratch.slots.resize(shown);
    measure(QueryPoints(graph_), query, scratch);
  }

  void take_within(Scratch& scratch, std::vector<Hit>& hits) const {
    scratch.candidates.clear();
    for (std::size_t i = 0; i < scratch.slots.size(); ++i) {
      if (scratch.distances[i] > radius_) continue;
      scratch.candidates.push_back({scratch.distances[i], scratch.slots[i]});
    }
    to_hits(graph_, seq_, scratch.candidates, hits);
  }

  const Store& store_;
  const Graph& graph_;
  const Filter::State* filter_;
  std::uint64_t seq_;
  float radius_;
  std::size_t slots_;
  std::size_t ef_;
};

// The queries that are left to a scan, in tiles; the rows are shared out to threads.
class RangeScan {
 public:
  RangeScan(const Store& store, const Filter::State* filter, std::uint64_t seq, float radius)
      : graph_(store.graph), scan_(store, filter, seq), seq_(seq), radius_(radius) {}

  void run(const float* prepared, const std::vector<std::size_t>& queries, unsigned threads,
           std::vector<std::vector<Hit>>& hits) {
    if (queries.empty()) return;
    const std::size_t stride = graph_.space.padded_dim();
    Team team(Team::useful_threads(threads, queries.size() * scan_.bytes() / kScanPieceBytes));
    PaddedVector storage;
    float* const tile = storage.reserve(kScanTile * stride);
    for (std::size_t first = 0; first < queries.size(); first += kScanTile) {
      const std::size_t n = std::min(kScanTile, queries.size() - first);
      for (std::size_t q = 0; q < n; ++q) {
        std::copy_n(prepared + queries[first + q] * stride, stride, tile + q * stride);
      }
      measure(tile, n, team);
      for (std::size_t q = 0; q < n; ++q) {
        std::vector<Neighbor>& all = found_[q];
        for (unsigned worker = 1; worker < team.size(); ++worker) {
          const std::vector<Neighbor>& more = found_[worker * n + q];
          all.insert(all.end(), more.begin(), more.end());
        }
        to_hits(graph_, seq_, all, hits[queries[first + q]]);
      }
    }
  }

 private:
  void measure(const float* tile, std::size_t n, Team& team) {
    found_.assign(team.size() * n, {});
    const std::size_t piece = std::max<std::size_t>(1, kScanPieceBytes / graph_.space.row_bytes());
    team.run((scan_.size() + piece - 1) / piece, 1, [&](std::size_t i, unsigned worker) {
      scan_.run(i * piece, std::min((i + 1) * piece, scan_.size()), tile, n,
                [&](std::size_t q, const float* distances, const Slot* slots, std::size_t rows) {
                  std::vector<Neighbor>& found = found_[worker * n + q];
                  for (std::size_t j = 0; j < rows; ++j) {
                    if (distances[j] <= radius_) found.push_back({distances[j], slots[j]});
                  }
                });
    });
  }

  const Graph& graph_;
  Scan scan_;
  std::uint64_t seq_;
  float radius_;
  std::vector<std::vector<Neighbor>> found_;  // by worker, then by query of a tile
};

}  // namespace

RangeResult range_search(const Store& store, const MatrixView& queries, float radius,
                         const SearchOptions& options, const Filter::State* filter,
                         std::uint64_t seq) {
  if (std::isnan(radius)) throw Error(ErrorCode::kInvalidArgument, "radius = NaN; want a number");
  require_dim(store.options, queries, "queries");
  PaddedVector storage;
  const float* const prepared = prepare_queries(store.options, queries, storage);
  const std::size_t stride = store.graph.space.padded_dim();
  std::vector<std::vector<Hit>> hits(queries.rows);
  std::vector<std::uint8_t> done(queries.rows, 0);
  const RangeSearch search(store, filter, seq, radius, options.ef);
  if (!search.only_scans()) {
    for_each_query(store, queries.rows, options.threads, [&](std::size_t i, Scratch& scratch) {
      done[i] = search.find(prepared + i * stride, scratch, hits[i]) ? 1 : 0;
    });
  }
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    if (done[i] == 0) left.push_back(i);
  }
  RangeScan(store, filter, seq, radius).run(prepared, left, options.threads, hits);

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

}  // namespace upvec
