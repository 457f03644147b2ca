#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include "team.hpp"

namespace {

using upvec::Team;

TEST_CASE("every item is worked on once, by a worker of the team") {
  for (const unsigned threads : {1U, 2U, 5U}) {
    Team team(threads);
    REQUIRE(team.size() == threads);
    for (const std::size_t items : {0U, 1U, 7U, 1000U}) {
      for (const std::size_t grain : {1U, 4U, 5000U}) {
        std::vector<std::atomic<int>> done(items);
        std::atomic<bool> stranger = false;
        team.run(items, grain, [&](std::size_t item, unsigned worker) {
          done[item].fetch_add(1);
          if (worker >= threads) {
            stranger = true;
          }
        });
        for (const auto& times : done) {
          REQUIRE(times.load() == 1);
        }
        REQUIRE_FALSE(stranger.load());
      }
    }
  }
}

TEST_CASE("run returns only when all is done, and its writes are seen") {
  Team team(4);
  std::vector<std::size_t> squares(257);  // plain memory, for the thread sanitizer
  for (std::size_t round = 1; round <= 200; ++round) {
    team.run(squares.size(), 3, [&](std::size_t i, unsigned) { squares[i] = i * i * round; });
    for (std::size_t i = 0; i < squares.size(); ++i) {
      REQUIRE(squares[i] == i * i * round);
    }
  }
}

TEST_CASE("an exception of a worker reaches the caller, and the team can go on") {
  for (const unsigned threads : {1U, 3U}) {
    Team team(threads);
    for (int round = 0; round < 20; ++round) {
      CHECK_THROWS_AS(team.run(100, 1,
                               [&](std::size_t item, unsigned) {
                                 if (item % 10 == 3) {
                                   throw std::runtime_error("no");
                                 }
                               }),
                      std::runtime_error);
      std::atomic<int> done = 0;
      team.run(100, 1, [&](std::size_t, unsigned) { done.fetch_add(1); });
      CHECK(done.load() == 100);
    }
  }
}

TEST_CASE("no more threads are used than there are items") {
  CHECK(Team::useful_threads(8, 3) == 3);
  CHECK(Team::useful_threads(8, 0) == 1);
  CHECK(Team::useful_threads(1, 1000) == 1);
  CHECK(Team::useful_threads(0, 1000) >= 1);
}

}  // namespace
