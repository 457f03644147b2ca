#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <vector>

#include "random.hpp"
#include "scratch.hpp"

namespace {

using upvec::CandidatePool;
using upvec::kNoSlot;
using upvec::Neighbor;
using upvec::Slot;
using upvec::VisitedSet;

TEST_CASE("a pool holds the nearest candidates in order, ties by slot") {
  upvec::testing::Random random(3);
  CandidatePool pool;
  for (int round = 0; round < 200; ++round) {
    const std::size_t capacity = 1 + random() % 80;
    pool.begin(capacity);
    std::vector<Neighbor> all;
    for (Slot slot = 1; slot <= random() % 100; ++slot) {
      const Neighbor candidate{static_cast<float>(random() % 8), slot};
      all.push_back(candidate);
      std::sort(all.begin(), all.end());
      const auto place = std::find_if(all.begin(), all.end(),
                                      [slot](const Neighbor& one) { return one.slot == slot; });
      REQUIRE((pool.insert(candidate) != CandidatePool::kNotKept) ==
              (static_cast<std::size_t>(place - all.begin()) < capacity));
      if (random() % 3 == 0) {
        pool.pop();
      }
    }
    REQUIRE(pool.size() == std::min(capacity, all.size()));
    for (std::size_t i = 0; i < pool.size(); ++i) {
      REQUIRE(pool[i].slot == all[i].slot);
      REQUIRE(pool[i].distance == all[i].distance);
    }
  }
}

// What a pool should be, slowly.
struct SlowPool {
  std::size_t capacity;
  std::vector<Neighbor> sorted;
  std::set<Slot> popped;

  bool insert(Neighbor candidate) {
    sorted.push_back(candidate);
    std::sort(sorted.begin(), sorted.end());
    if (sorted.size() <= capacity) return true;
    const bool stays = sorted.back().slot != candidate.slot;
    sorted.pop_back();
    return stays;
  }
  Slot pop() {
    for (const Neighbor& one : sorted) {
      if (popped.insert(one.slot).second) return one.slot;
    }
    return kNoSlot;
  }
};

TEST_CASE("a pool of many does what a pool of few does") {
  upvec::testing::Random random(7);
  CandidatePool pool;
  for (const std::size_t capacity : {std::size_t{767}, std::size_t{769}, std::size_t{1500}}) {
    pool.begin(capacity);
    SlowPool slow{capacity, {}, {}};
    for (Slot slot = 1; slot <= 4000; ++slot) {
      // Nearer and nearer, as in a search.
      const Neighbor candidate{static_cast<float>(random() % (8000 - slot)), slot};
      REQUIRE((pool.insert(candidate) != CandidatePool::kNotKept) == slow.insert(candidate));
      while (random() % 3 == 0) REQUIRE(pool.pop() == slow.pop());
      if (random() % 100 != 0) continue;
      REQUIRE(pool.size() == slow.sorted.size());
      for (std::size_t i = 0; i < pool.size(); ++i) REQUIRE(pool[i].slot == slow.sorted[i].slot);
    }
    for (Slot slot = kNoSlot + 1; slot != kNoSlot;) {
      slot = slow.pop();
      REQUIRE(pool.pop() == slot);
    }
    REQUIRE(pool.is_full());
  }
}

TEST_CASE("a pool that is widened expands what it only remembered") {
  CandidatePool pool;
  pool.begin(4, 2);
  for (const Slot slot : {1U, 2U, 3U, 4U}) pool.insert({static_cast<float>(slot), slot});
  CHECK(pool.pop() == 1);
  CHECK(pool.pop() == 2);
  CHECK(pool.pop() == kNoSlot);
  pool.widen();
  CHECK(pool.pop() == 3);
  CHECK(pool.pop() == 4);
  CHECK(pool.pop() == kNoSlot);
}

TEST_CASE("a pool pops every candidate once, nearest first, also those that came after a pop") {
  CandidatePool pool;
  pool.begin(4);
  pool.insert({5.0F, 5});
  pool.insert({7.0F, 7});
  CHECK(pool.pop() == 5);
  pool.insert({3.0F, 3});
  pool.insert({9.0F, 9});
  CHECK(pool.pop() == 3);
  CHECK(pool.pop() == 7);
  pool.insert({8.0F, 8});  // drops 9
  CHECK(pool.pop() == 8);
  CHECK(pool.pop() == kNoSlot);
}

TEST_CASE("a pool pops only what is among its nearest `width`, and remembers the others") {
  CandidatePool pool;
  pool.begin(4, 2);
  for (const Slot slot : {9U, 3U, 7U, 5U}) pool.insert({static_cast<float>(slot), slot});
  CHECK(pool.pop() == 3);
  CHECK(pool.pop() == 5);
  CHECK(pool.pop() == kNoSlot);
  CHECK(pool.size() == 4);
  pool.insert({1.0F, 1});  // now 3 is the second, and was popped
  CHECK(pool.pop() == 1);
  CHECK(pool.pop() == kNoSlot);
  CHECK(pool[3].slot == 7);
}

TEST_CASE("every search meets every slot anew, also after the marks have wrapped") {
  VisitedSet visited;
  for (int round = 0; round < 600; ++round) {
    visited.begin(50 + static_cast<std::size_t>(round) / 10);
    REQUIRE(visited.insert(7));
    REQUIRE_FALSE(visited.insert(7));
    REQUIRE(visited.insert(static_cast<Slot>(round % 40) + 8));
  }
}

TEST_CASE("slots newer than the search count as met") {
  VisitedSet visited;
  visited.begin(100);
  visited.begin(10);
  CHECK(visited.insert(9));
  CHECK_FALSE(visited.insert(10));
  CHECK_FALSE(visited.insert(1000));
}

}  // namespace
