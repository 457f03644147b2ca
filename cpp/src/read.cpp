#include "read.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <unordered_map>

#include "fence.hpp"
#include "filtered.hpp"
#include "team.hpp"
#include "traverse.hpp"

namespace upvec {
namespace {

bool same_key(const KeySpan& keys, std::size_t i, std::uint64_t stored) noexcept {
  return keys.type() == KeyType::kInt64
             ? keys.int_at(i) == KeyIndex::int_of(StoredKey{stored})
             : keys.string_at(i) == KeyIndex::string_of(StoredKey{stored});
}

class Searcher {
 public:
  // For k hits with ef candidates; the way is of a filter.
  Searcher(const Store& store, const Filter::State* filter, FilterWay way, std::size_t k,
           std::size_t ef, std::uint64_t seq)
      : store_(store),
        graph_(store.graph),
        filter_(filter),
        way_(way),
        k_(k),
        ef_(std::max(k, ef)),
        seq_(seq) {}

  // The k nearest that the beam finds, nearest first.
  void search(const float* query, Scratch& scratch, std::vector<Hit>& hits) const {
    encode(query, scratch);
    beam(query, ef_, scratch);
    fetch_found(k_, scratch);
    if (!collect(query, k_, scratch, hits)) collect_older(query, k_, ef_, scratch, hits);
  }

  // The same for queries [begin, end), as many at a time as there are lanes: while the points of
  // one are on their way from memory, the others measure theirs. query_of(i) is the i-th query;
  // done(i, hits) takes what it found.
  template <typename QueryOf, typename Done>
  void search_in_turns(std::size_t begin, std::size_t end, std::span<const ScratchPool::Loan> lanes,
                       const QueryOf& query_of, const Done& done) const {
    if (filter_ != nullptr && way_ != FilterWay::kWalkAll) {
      for (std::size_t i = begin; i < end; ++i) {
        search(query_of(i), *lanes[0], lanes[0]->hits);
        done(i, lanes[0]->hits);
      }
      return;
    }
    const auto run = [&](const auto& points) {
      std::array<Turn, kLanes> turns;
      std::size_t next = begin;
      std::size_t busy = 0;
      for (; busy < lanes.size() && next < end; ++busy) {
        turns[busy].scratch = &*lanes[busy];
        turns[busy].query = next;
        start(points, query_of(next++), ef_, turns[busy]);
      }
      while (busy > 0) {
        for (std::size_t lane = 0; lane < busy;) {
          Turn& turn = turns[lane];
          const float* const query = query_of(turn.query);
          if (advance(points, query, k_, ef_, turn)) {
            ++lane;
            continue;
          }
          std::vector<Hit>& hits = turn.scratch->hits;
          if (!collect(query, k_, *turn.scratch, hits)) {
            collect_older(query, k_, ef_, *turn.scratch, hits);
          }
          done(turn.query, hits);
          if (next == end) {
            turn = turns[--busy];
            continue;
          }
          turn.query = next;
          start(points, query_of(next++), ef_, turn);
          ++lane;
        }
      }
    };
    if (graph_.has_codes) {
      run(CodePoints(graph_));
    } else if (graph_.walks_codes) {
      run(RowPoints(graph_));
    } else {
      run(QueryPoints(graph_));
    }
  }
  // Queries/s by lanes as a ratio to one (which looks ahead instead, see traverse.hpp), at recall
  // .95 and .99, on Zen 4:    2              3
  //   200,000 x 128 SIFT      1.14 1.12      1.13 1.12
  //   98,000 x 384 texts      1.13 1.08      1.12 1.07
  static constexpr std::size_t kLanes = 2;

 private:
  // One of several searches that take turns.
  struct Turn {
    enum class Stage : std::uint8_t { kDescends, kWalks, kLocates, kFound };
    Scratch* scratch = nullptr;
    std::size_t query = 0;
    Stage stage = Stage::kDescends;
    Descent descent{};
  };

  void encode(const float* query, Scratch& scratch) const {
    if (!graph_.walks_codes) return;
    scratch.query_code.resize(graph_.code_space.point_bytes());
    graph_.code_space.encode(query, scratch.query_code.data());
  }
  static Point point_of(const CodePoints& /*points*/, const float* /*query*/, Scratch& scratch) {
    return scratch.query_code.data();
  }
  static Point point_of(const RowPoints& /*points*/, const float* /*query*/, Scratch& scratch) {
    return scratch.query_code.data();
  }
  static Point point_of(const QueryPoints& /*points*/, const float* query, Scratch& /*scratch*/) {
    return query;
  }

  // Up to the first list.
  template <typename Points>
  void start(const Points& points, const float* query, std::size_t ef, Turn& turn) const {
    Scratch& scratch = *turn.scratch;
    encode(query, scratch);
    begin_pools(ef, scratch);
    UPVEC_COUNT(scratch.counters.traffic.begin_walk());
    ++scratch.counters.queries;
    const Slot entry = graph_.entry.load(std::memory_order_acquire);
    if (entry == kNoSlot) {
      turn.stage = Turn::Stage::kFound;
      return;
    }
    if (const Neighbor nearest = nearest_entry(scratch); nearest.slot != kNoSlot) {
      turn.stage = Turn::Stage::kWalks;
      enter(nearest, scratch);
    } else {
      turn.stage = Turn::Stage::kDescends;
      turn.descent = begin_descent(points, point_of(points, query, scratch), entry);
    }
    open_next(points, turn);
  }

  // Of graph.entries; kNoSlot if none will do.
  [[nodiscard]] Neighbor nearest_entry(Scratch& scratch) const {
    const Entries& entries = graph_.entries;
    const std::size_t n = entries.size();
    Neighbor best{0.0F, kNoSlot};
    if (n == 0) return best;
    scratch.points.resize(n);
    scratch.distances.resize(n);
    for (std::size_t i = 0; i < n; ++i) scratch.points[i] = entries.code(i);
    for (std::size_t i = 0; i < n; i += kMostTogether) {
      graph_.code_space.distances(scratch.query_code.data(), &scratch.points[i],
                                  std::min(kMostTogether, n - i), &scratch.distances[i]);
    }
    scratch.counters.distances += n;
    for (std::size_t i = 0; i < n; ++i) {
      const Neighbor entry{scratch.distances[i], entries.slot(i)};
      if (best.slot == kNoSlot || entry < best) best = entry;
    }
    // It may have been removed since.
    const bool links = graph_.base.words(best.slot)[0].load(std::memory_order_acquire) != kNoSlot;
    return links ? best : Neighbor{0.0F, kNoSlot};
  }

  // The next list of a search: sends for what it names. Without one, for what collect() will
  // measure.
  template <typename Points>
  bool open_next(const Points& points, Turn& turn) const {
    Scratch& scratch = *turn.scratch;
    if (turn.stage == Turn::Stage::kDescends) {
      if (open_upper_list(points, 0, turn.descent, scratch)) return true;
      turn.stage = Turn::Stage::kWalks;
      enter(turn.descent.best, scratch);
    }
    const Slot slot = take_next(points, 0, scratch);
    if (slot == kNoSlot) return false;
    open_list(points, 0, slot, scratch);
    return true;
  }

  // What one search does before the next one's turn; false when all that is left is to collect.
  template <typename Points>
  bool advance(const Points& points, const float* query, std::size_t k, std::size_t ef,
               Turn& turn) const {
    Scratch& scratch = *turn.scratch;
    const Point point = point_of(points, query, scratch);
    switch (turn.stage) {
      case Turn::Stage::kDescends:
        descend_once(points, point, turn.descent, scratch);
        break;
      case Turn::Stage::kWalks:
        absorb(points, point, 0, scratch, [&](Neighbor candidate) { accept(candidate, scratch); });
        break;
      case Turn::Stage::kLocates:
        fetch_found(k, scratch);
        turn.stage = Turn::Stage::kFound;
        return true;
      case Turn::Stage::kFound:
        return false;
    }
    if (open_next(points, turn)) return true;
    mend_walk(points, point, scratch);
    if (is_blurred(scratch)) walk_exactly(query, ef, scratch);
    locate_found(k, scratch);
    turn.stage = Turn::Stage::kLocates;
    return true;
  }

  // Sends for where they are.
  void locate_found(std::size_t k, const Scratch& scratch) const {
    const CandidatePool& pool = found(scratch);
    const std::size_t n = std::min(measured_again(k), pool.size());
    for (std::size_t i = 0; i < n; ++i) simd::prefetch(&graph_.row_of[pool[i].slot]);
  }

  // Sends for the rows that collect() will measure.
  void fetch_found(std::size_t k, Scratch& scratch) const {
    const CandidatePool& pool = found(scratch);
    const std::size_t n = std::min(graph_.walks_codes ? measured_again(k) : k, pool.size());
    for (std::size_t i = 0; i < n; ++i) {
      const Row row = graph_.row_of[pool[i].slot].load(std::memory_order_acquire);
      simd::prefetch(&graph_.rows.header(row));
      if (graph_.walks_codes) {
        simd::prefetch_lines(graph_.rows.vector(row), graph_.space.row_bytes());
      }
    }
  }

  [[nodiscard]] bool commit_under_way() const noexcept {
    return store_.writing.load(std::memory_order_seq_cst) != seq_;
  }

  void beam(const float* query, std::size_t ef, Scratch& scratch) const {
    const Slot entry = graph_.entry.load(std::memory_order_acquire);
    begin_pools(ef, scratch);
    ++scratch.counters.queries;
    if (entry == kNoSlot) return;
    if (!graph_.walks_codes) {
      find(QueryPoints(graph_), query, entry, scratch);
    } else if (graph_.has_codes) {
      find(CodePoints(graph_), scratch.query_code.data(), entry, scratch);
    } else {
      find(RowPoints(graph_), scratch.query_code.data(), entry, scratch);
    }
    if (is_blurred(scratch)) walk_exactly(query, ef, scratch);
  }

  // Full of rows that codes can't tell apart: there may be more of them.
  [[nodiscard]] bool is_blurred(const Scratch& scratch) const noexcept {
    if (!graph_.walks_codes) return false;
    const CandidatePool& pool = found(scratch);
    return pool.is_full() && pool.size() > 0 && pool[pool.size() - 1].distance < blur(scratch);
  }
  void walk_exactly(const float* query, std::size_t ef, Scratch& scratch) const {
    begin_pools(ef, scratch);
    find(QueryPoints(graph_), query, graph_.entry.load(std::memory_order_acquire), scratch);
  }

  void begin_pools(std::size_t ef, Scratch& scratch) const {
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    std::size_t width = ef;
    if (filter_ != nullptr) {
      // A scan leaves nothing out: it need not keep more than will be measured again.
      const bool keeps_few = way_ == FilterWay::kScan && ef == ef_ && graph_.walks_codes;
      scratch.accepted.begin(std::min(keeps_few ? 2 * measured_again(k_) : ef, filter_->count));
      if (way_ != FilterWay::kWalkAll) return;
      width = width_to_meet(size_of(store_, *filter_), k_, ef);
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

  // Begins the walk over level 0. What is newer than that, a walk does not meet; the start is not.
  void enter(Neighbor start, Scratch& scratch) const {
    scratch.visited.begin(graph_.slot_end.load(std::memory_order_acquire));
    scratch.visited.insert(start.slot);
    scratch.pool.insert(start);
    accept(start, scratch);
  }

  template <typename Points>
  void find(const Points& points, Point query, Slot entry, Scratch& scratch) const {
    if (filter_ == nullptr || way_ == FilterWay::kWalkAll) {
      walk(points, query, entry, scratch);
      mend_walk(points, query, scratch);
    } else if (way_ == FilterWay::kWalkAllowed) {
      scratch.pool.begin(kScouts);
      const std::uint64_t before = scratch.counters.distances;
      walk(points, query, entry, scratch);
      const auto met = static_cast<double>(scratch.counters.distances - before);
      const auto slots = static_cast<double>(graph_.slot_end.load(std::memory_order_relaxed));
      const double expected = std::min(met * static_cast<double>(filter_->count) / slots,
                                       static_cast<double>(std::min(ef_, filter_->count)));
      const bool are_few_here = static_cast<double>(scratch.accepted.size()) < expected / 4;
      find_allowed(points, query, *filter_, size_of(store_, *filter_), ef_, are_few_here, scratch);
    } else {
      upvec::scan_allowed(points, query, *filter_, scratch);
    }
  }

  // How wide a beam over all slots looks for allowed ones near the query, before the walk from one
  // of them to the next.
  static constexpr std::size_t kScouts = 16;

  // A walk over all slots that met too few allowed ones, as where the query is there are fewer of
  // them than elsewhere, is no answer.
  template <typename Points>
  void mend_walk(const Points& points, Point query, Scratch& scratch) const {
    if (filter_ == nullptr) return;
    const CandidatePool& pool = scratch.pool;
    const std::size_t enough = std::min(k_, filter_->count);
    std::size_t allowed = 0;
    for (std::size_t i = 0; i < pool.size() && allowed < enough; ++i) {
      allowed += filter_->contains(pool[i].slot) ? 1 : 0;
    }
    if (allowed < enough)
      find_allowed(points, query, *filter_, size_of(store_, *filter_), ef_, true, scratch);
  }

  // A function of its own for each kind of points: all of them inlined into beam(), searches took
  // some 2 % longer.
  template <typename Points>
  [[gnu::noinline]] void walk(const Points& points, Point query, Slot entry,
                              Scratch& scratch) const {
    UPVEC_COUNT(scratch.counters.traffic.begin_walk());
    Neighbor start{0.0F, kNoSlot};
    if constexpr (!std::is_same_v<Points, QueryPoints>) start = nearest_entry(scratch);
    if (start.slot == kNoSlot) start = descend(points, query, entry, 0, scratch);
    enter(start, scratch);
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
    std::size_t n = std::min(graph_.walks_codes ? measured_again(k) : k, pool.size());
    if (graph_.walks_codes) {
      while (n < pool.size() && pool[n].distance < blur(scratch)) ++n;
    }
    scratch.candidates.clear();
    scratch.points.clear();
    // Rows that this version does not show give their places to those behind them.
    std::size_t end = 0;
    while (end < pool.size() && scratch.candidates.size() < n) {
      const std::size_t from = end;
      end = std::min(from + n - scratch.candidates.size(), pool.size());
      take_shown_of(pool, from, end, scratch);
    }
    if (graph_.walks_codes) {
      measure_candidates(query, scratch);
      if (filter_ != nullptr) measure_doubtful(query, k, end, scratch);
    }
    for (std::size_t i = 0; i < std::min(k, scratch.candidates.size()); ++i) {
      const Neighbor& candidate = scratch.candidates[i];
      const Row row = graph_.row_of[candidate.slot].load(std::memory_order_acquire);
      hits.push_back({candidate.distance, graph_.rows.header(row).key});
    }
    return !commit_under_way();
  }

  // Of [from, end) of the pool, what this version shows as the graph has it.
  void take_shown_of(const CandidatePool& pool, std::size_t from, std::size_t end,
                     Scratch& scratch) const {
    for (std::size_t i = from; i < end; ++i) {
      const Row row = graph_.row_of[pool[i].slot].load(std::memory_order_acquire);
      const RowHeader& header = graph_.rows.header(row);
      if (row == kNoRow || header.removed != 0 || header.seq > seq_) continue;
      if (filter_ != nullptr && !filter_->contains(pool[i].slot, header.key)) continue;
      UPVEC_COUNT(count_row(graph_, pool[i].slot, row, scratch.counters.traffic));
      scratch.candidates.push_back(pool[i]);
      scratch.points.push_back(graph_.rows.vector(row));
    }
  }

  // Puts the distances to scratch.points, which have been sent for, in the place of those by code.
  void measure_candidates(const float* query, Scratch& scratch) const {
    const std::size_t n = scratch.points.size();
    scratch.distances.resize(n);
    for (std::size_t i = 0; i < n; i += kMostTogether) {
      graph_.space.distances_to(query, &scratch.points[i], std::min(kMostTogether, n - i),
                                &scratch.distances[i]);
    }
    scratch.widest_error = 0.0F;
    for (std::size_t i = 0; i < n; ++i) {
      float& distance = scratch.candidates[i].distance;
      scratch.widest_error =
          std::max(scratch.widest_error, std::abs(distance - scratch.distances[i]));
      distance = scratch.distances[i];
    }
    scratch.counters.distances += n;
    UPVEC_COUNT(scratch.counters.traffic.exact_distances += n);
    std::sort(scratch.candidates.begin(), scratch.candidates.end());
  }

  // Of an answer that is far away, codes can't tell the first from the next: so all that may be
  // nearer than the k-th, as far as codes have been wrong with the first n of the pool.
  void measure_doubtful(const float* query, std::size_t k, std::size_t n, Scratch& scratch) const {
    const CandidatePool& pool = found(scratch);
    auto& candidates = scratch.candidates;
    if (n >= pool.size() || candidates.size() < k) return;
    std::size_t end = n;
    const float bound = candidates[k - 1].distance + scratch.widest_error;
    while (end < pool.size() && pool[end].distance <= bound) ++end;
    if (end == n) return;
    const std::vector<Neighbor> measured(candidates);
    candidates.clear();
    scratch.points.clear();
    take_shown_of(pool, n, end, scratch);
    measure_candidates(query, scratch);
    candidates.insert(candidates.end(), measured.begin(), measured.end());
    std::sort(candidates.begin(), candidates.end());
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
    if (graph_.walks_codes) {
      const auto old = store_.old_codes.of(seq_ + 1);
      if (old != nullptr && collect_before(*old, query, k, ef, scratch)) {
        measure_visible(query, scratch);
        take_nearest(k, scratch, hits);
        return;
      }
    }
    if (scan_beats_beam()) {
      scan_all(query, k, scratch, hits);
      return;
    }
    // Slots that came into this neighbourhood since then crowd out those that were here.
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    for (std::size_t width = ef; count_unchanged(scratch) < std::min(k, found(scratch).size()) &&
                                 found(scratch).size() >= width && width < slots;) {
      width *= 2;
      beam(query, width, scratch);
    }
    if (count_unchanged(scratch) < std::min(k, most_unchanged()) && !found(scratch).is_full()) {
      scan_all(query, k, scratch, hits);
      return;
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

  // A walk beside a commit may end where it began: at a slot that has just lost its list, or has
  // yet to get it. So a beam that finds less than there may be is not to be trusted.
  [[nodiscard]] std::size_t most_unchanged() const noexcept {
    return filter_ != nullptr ? filter_->count
                              : store_.published_live.load(std::memory_order_relaxed);
  }

  void scan_all(const float* query, std::size_t k, Scratch& scratch, std::vector<Hit>& hits) const {
    if (filter_ != nullptr) {
      scan_allowed(query, k, scratch, hits);
      return;
    }
    scratch.slots.resize(graph_.slot_end.load(std::memory_order_acquire) - 1);
    std::iota(scratch.slots.begin(), scratch.slots.end(), Slot{1});
    measure_visible(query, scratch);
    take_nearest(k, scratch, hits);
  }

  // Of the version before the commit under way: what may be among its k nearest, to scratch.slots.
  // False if codes can't tell, or the commit is done.
  bool collect_before(const OldCodes& old, const float* query, std::size_t k, std::size_t ef,
                      Scratch& scratch) const {
    const std::size_t slots = graph_.slot_end.load(std::memory_order_acquire);
    const std::size_t width = std::min(ef, slots);
    const bool scans = (filter_ != nullptr && way_ == FilterWay::kScan) ||
                       old.size() * kScanShare > slots ||
                       !beam_finds_unchanged(query, k, width, slots, scratch);
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
        [&](Slot, std::size_t i) { return old.code(i); }, [](Slot, std::size_t) { return true; },
        scratch);
    return take_shown(k, scratch) && store_.writing.load(std::memory_order_seq_cst) == old.commit();
  }
  // If more than this part has moved, a beam finds little that has not; how much wider it gets.
  static constexpr std::size_t kScanShare = 2;
  static constexpr std::size_t kWidest = 4;

  // Slots that came into this neighbourhood since then crowd out those that were here.
  bool beam_finds_unchanged(const float* query, std::size_t k, std::size_t ef, std::size_t slots,
                            Scratch& scratch) const {
    const auto enough = [&] { return count_unchanged(scratch) >= std::min(k, most_unchanged()); };
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
    const std::vector<Slot>* const allowed = filter_ != nullptr ? &filter_->slots() : nullptr;
    const std::size_t n = allowed != nullptr ? allowed->size() : slots - 1;
    const auto slot_of = [allowed](std::size_t i) {
      return allowed != nullptr ? (*allowed)[i] : static_cast<Slot>(i + 1);
    };
    scan_codes(
        n, slot_of, [this](Slot slot, std::size_t) { return graph_.code(slot); },
        [this, n, &slot_of](Slot slot, std::size_t i) {
          constexpr std::size_t kHeadersAhead = 8;
          if (i + kHeadersAhead < n) {
            const Slot ahead = slot_of(i + kHeadersAhead);
            const Row later = graph_.row_of[ahead].load(std::memory_order_acquire);
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
      if (!wanted(slot, i) || (filter_ != nullptr && !filter_->contains(slot))) continue;
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
    measure(QueryPoints(graph_), query, scratch);
    scratch.candidates.clear();
    for (std::size_t i = 0; i < shown; ++i) {
      scratch.candidates.push_back({scratch.distances[i], scratch.slots[i]});
    }
  }

  void scan_allowed(const float* query, std::size_t k, Scratch& scratch,
                    std::vector<Hit>& hits) const {
    scratch.slots = filter_->slots();
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
  FilterWay way_;
  std::size_t k_;
  std::size_t ef_;
  std::uint64_t seq_;
};

}  // namespace

// The recall that this gives; in brackets that of 2 k, and how many times longer it takes:
//   set           k 1     k 10    k 100                 k 1,000
//   wordnet-20k   1.000   .9968   .9931 (.9959, 1.31)   .9959 (.9997, 1.93)
//   wordnet-100k  .9950   .9923   .9909 (.9949, 1.28)   .9912 (.9985, 1.86)
//   sift-50k      1.000   .9954   .9944 (.9971, 1.29)   .9987 (.9999, 1.84)
//   sift-200k     .9930   .9880   .9869 (.9917, 1.24)   .9962 (.9993, 1.87)
std::size_t effective_ef(std::size_t ef, std::size_t k) noexcept {
  return ef == 0 ? std::max<std::size_t>(64, k + 54) : std::max(ef, k);
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
  std::unordered_multimap<std::uint64_t, std::size_t> wanted;
  for (const std::size_t i : missing) wanted.emplace(store.keys.hash(keys, i), i);
  const Slot end = store.graph.slot_end.load(std::memory_order_acquire);
  for (Slot slot = 1; slot < end; ++slot) {
    const Row row = visible_row(store.graph, slot, seq);
    if (row == kNoRow) continue;
    const std::uint64_t key = store.graph.rows.header(row).key;
    const auto [first, last] = wanted.equal_range(store.hash_of(key));
    for (auto at = first; at != last; ++at) {
      if (!same_key(keys, at->second, key)) continue;
      slots[at->second] = slot;
      rows[at->second] = row;
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
      simd::prefetch_lines(store.graph.rows.vector(rows[i + 4]), store.graph.space.row_bytes());
    }
    if (found[i] != 0) {
      store.graph.space.decode(store.graph.rows.vector(rows[i]), vectors + i * dim);
    } else {
      std::memset(vectors + i * dim, 0, dim * sizeof(float));
    }
  }
}

void search(const Store& store, const MatrixView& queries, const SearchOptions& options,
            const Filter::State* filter, std::uint64_t seq, const Places& places) {
  require_dim(store.options, queries, "queries");
  const std::size_t ef = effective_ef(options.ef, places.k());
  FilterWay way = options.way;
  if (filter == nullptr) {
    way = FilterWay::kWalkAll;
  } else if (way == FilterWay::kAuto) {
    way = filter_costs(size_of(store, *filter), places.k(), ef).best;
  }
  const Searcher searcher(store, filter, way, places.k(), ef, seq);
  if (queries.rows == 1) {
    // Such a call takes microseconds: no threads, no memory of its own.
    const ScratchPool::Loan scratch = store.scratches.take();
    searcher.search(prepare_queries(store.options, queries, scratch->query), *scratch,
                    scratch->hits);
    places.fill(0, scratch->hits);
    return;
  }
  PaddedVector storage;
  const float* const prepared = prepare_queries(store.options, queries, storage);
  const std::size_t stride = store.graph.space.padded_dim();
  const auto query_of = [&](std::size_t i) { return prepared + i * stride; };
  const auto done = [&](std::size_t i, const std::vector<Hit>& hits) { places.fill(i, hits); };
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
    searcher.search_in_turns(chunk * kChunk, end, std::span(loans).subspan(worker * lanes, lanes),
                             query_of, done);
  });
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
