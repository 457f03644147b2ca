// Exact search: the k nearest by measuring every row.
#include <algorithm>
#include <vector>

#include "nearest.hpp"
#include "read.hpp"
#include "scan.hpp"
#include "team.hpp"

namespace upvec {
namespace {

// A batch of more tiles than this for each thread is shared out by tiles, else by rows.
constexpr std::size_t kTilesPerThread = 4;

class ExactSearch {
 public:
  ExactSearch(const Store& store, const Filter::State* filter, std::uint64_t seq,
              const float* queries, std::size_t n, const Places& places)
      : graph_(store.graph),
        scan_(store, filter, seq),
        seq_(seq),
        queries_(queries),
        n_(n),
        places_(places),
        k_(std::min(places.k(), std::max<std::size_t>(1, scan_.size()))) {}

  void run(unsigned threads) {
    const std::size_t tiles = (n_ + kScanTile - 1) / kScanTile;
    Team team(Team::useful_threads(threads, n_ * scan_.bytes() / kScanPieceBytes));
    nearest_.resize(team.size() * std::min(kScanTile, n_));
    hits_.resize(team.size());
    if (tiles >= kTilesPerThread * team.size()) {
      team.run(tiles, 1, [&](std::size_t tile, unsigned worker) {
        begin(tile, worker);
        measure(tile, 0, scan_.size(), worker);
        finish(tile, worker);
      });
      return;
    }
    for (std::size_t tile = 0; tile < tiles; ++tile) share_rows(tile, team);
  }

 private:
  [[nodiscard]] std::size_t queries_of(std::size_t tile) const noexcept {
    return std::min(kScanTile, n_ - tile * kScanTile);
  }
  Nearest& nearest(std::size_t query, unsigned worker) noexcept {
    return nearest_[worker * std::min(kScanTile, n_) + query];
  }
  void begin(std::size_t tile, unsigned worker) {
    for (std::size_t q = 0; q < queries_of(tile); ++q) nearest(q, worker).begin(k_);
  }
  void measure(std::size_t tile, std::size_t from, std::size_t to, unsigned worker) {
    scan_.run(from, to, queries_ + tile * kScanTile * graph_.space.padded_dim(), queries_of(tile),
              [&](std::size_t q, const float* distances, const Slot* slots, std::size_t n) {
                nearest(q, worker).add(distances, slots, n);
              });
  }
  void share_rows(std::size_t tile, Team& team) {
    for (unsigned worker = 0; worker < team.size(); ++worker) begin(tile, worker);
    const std::size_t piece = std::max<std::size_t>(1, kScanPieceBytes / graph_.space.row_bytes());
    const std::size_t pieces = (scan_.size() + piece - 1) / piece;
    team.run(pieces, 1, [&](std::size_t i, unsigned worker) {
      measure(tile, i * piece, std::min((i + 1) * piece, scan_.size()), worker);
    });
    for (std::size_t q = 0; q < queries_of(tile); ++q) {
      for (unsigned worker = 1; worker < team.size(); ++worker) {
        nearest(q, 0).add(nearest(q, worker));
      }
    }
    finish(tile, 0);
  }
  void finish(std::size_t tile, unsigned worker) {
    std::vector<Hit>& hits = hits_[worker];
    for (std::size_t q = 0; q < queries_of(tile); ++q) {
      hits.clear();
      for (const std::uint64_t word : nearest(q, worker).sorted()) {
        // What a slot shows at a pinned version does not change: this is the row that was measured.
        const Row row = visible_row(graph_, PackedNeighbor::slot(word), seq_);
        hits.push_back({PackedNeighbor::distance(word), graph_.rows.header(row).key});
      }
      places_.fill(tile * kScanTile + q, hits);
    }
  }

  const Graph& graph_;
  Scan scan_;
  std::uint64_t seq_;
  const float* queries_;
  std::size_t n_;
  const Places& places_;
  std::size_t k_;
  std::vector<Nearest> nearest_;        // by worker, then by query of a tile
  std::vector<std::vector<Hit>> hits_;  // by worker
};

}  // namespace

void exact_search(const Store& store, const MatrixView& queries, const SearchOptions& options,
                  const Filter::State* filter, std::uint64_t seq, const Places& places) {
  require_dim(store.options, queries, "queries");
  PaddedVector storage;
  const float* const prepared = prepare_queries(store.options, queries, storage);
  ExactSearch(store, filter, seq, prepared, queries.rows, places).run(options.threads);
}

}  // namespace upvec
