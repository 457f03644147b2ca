// The in-lists of an index that was loaded: they follow from the links, and only writers use them.
//
// For every link u -> v without v -> u, u goes into the in-list of v. To look for v -> u is a
// random access to memory, so while the links of one slot are looked at, the lists that those of
// the next lead to are sent for. What each thread finds it puts down by share of the lists; then
// every share is brought in by one thread.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "simd/prefetch.hpp"
#include "store.hpp"
#include "team.hpp"

namespace upvec {
namespace {

class InListMaker {
 public:
  InListMaker(Graph& graph, Team& team) : graph_(graph), team_(team), workers_(team.size()) {}

  void make() {
    const std::size_t end = graph_.slot_end.load(std::memory_order_relaxed);
    team_.run((end + kSlotsAtOnce - 1) / kSlotsAtOnce, 1, [&](std::size_t block, unsigned worker) {
      const auto first = static_cast<Slot>(std::max<std::size_t>(1, block * kSlotsAtOnce));
      const auto last = static_cast<Slot>(std::min(end, (block + 1) * kSlotsAtOnce));
      find(first, last, workers_[worker]);
    });
    team_.run(kShares, 1, [&](std::size_t share, unsigned) {
      for (const Worker& worker : workers_) {
        for (const OneWay& one : worker.found[share]) {
          graph_.table(one.level).in.insert(one.list, one.from);
        }
      }
    });
  }

 private:
  static constexpr std::size_t kShares = 64;
  static constexpr std::size_t kSlotsAtOnce = 4096;

  struct OneWay {
    std::uint32_t list;
    Slot from;
    std::uint8_t level;
  };
  struct Worker {
    std::array<std::vector<OneWay>, kShares> found;
    std::vector<Slot> links;
    std::vector<Slot> next;
  };

  void find(Slot first, Slot last, Worker& worker) {
    read(first, 0, worker.next);
    for (Slot slot = first; slot < last; ++slot) {
      std::swap(worker.links, worker.next);
      if (slot + 1 < last) read(slot + 1, 0, worker.next);
      look(slot, 0, worker);
      for (unsigned level = 1; level <= graph_.level_of(slot); ++level) {
        read(slot, level, worker.links);
        look(slot, level, worker);
      }
    }
  }

  void read(Slot slot, unsigned level, std::vector<Slot>& links) {
    const LinkTable& table = graph_.table(level);
    links.resize(table.cap());
    links.resize(table.read(graph_.list_of(slot, level), links.data()));
    for (const Slot other : links) {
      simd::prefetch_lines(table.words(graph_.list_of(other, level)),
                           table.cap() * sizeof(LinkWord));
    }
  }

  void look(Slot slot, unsigned level, Worker& worker) const {
    const LinkTable& table = graph_.table(level);
    for (const Slot other : worker.links) {
      const std::size_t list = graph_.list_of(other, level);
      if (table.contains(list, slot)) continue;
      worker.found[list % kShares].push_back(
          {static_cast<std::uint32_t>(list), slot, static_cast<std::uint8_t>(level)});
    }
  }

  Graph& graph_;
  Team& team_;
  std::vector<Worker> workers_;
};

}  // namespace

void Store::ensure_in_lists() {
  if (has_in_lists) return;
  Team team(0);
  InListMaker(graph, team).make();
  has_in_lists = true;
}

}  // namespace upvec
