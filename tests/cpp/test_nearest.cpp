#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "nearest.hpp"
#include "random.hpp"

namespace {

using namespace upvec;

void require_nearest(Nearest& nearest, std::vector<Neighbor> all, std::size_t k) {
  std::sort(all.begin(), all.end());
  const auto sorted = nearest.sorted();
  REQUIRE(sorted.size() == std::min(k, all.size()));
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    REQUIRE(PackedNeighbor::slot(sorted[i]) == all[i].slot);
    REQUIRE(PackedNeighbor::distance(sorted[i]) == all[i].distance);
  }
}

TEST_CASE("the k nearest of a stream remain, ties by slot, whatever comes in one piece") {
  testing::Random random(4);
  Nearest nearest;
  for (const std::size_t k : {1U, 2U, 10U, 100U, 3000U}) {
    for (const unsigned values : {3U, 1'000'000U}) {
      std::vector<Neighbor> all;
      nearest.begin(k);
      for (int piece = 0; piece < 200; ++piece) {
        std::vector<float> distances;
        std::vector<Slot> slots;
        for (std::size_t n = random() % 70; n > 0; --n) {
          distances.push_back(static_cast<float>(random() % values) - 1.0F);
          slots.push_back(static_cast<Slot>(all.size() + 1));
          all.push_back({distances.back(), slots.back()});
        }
        nearest.add(distances.data(), slots.data(), slots.size());
      }
      require_nearest(nearest, all, k);
    }
  }
}

TEST_CASE("what several have found can be put together") {
  testing::Random random(5);
  std::vector<Nearest> parts(3);
  std::vector<Neighbor> all;
  for (Nearest& part : parts) part.begin(50);
  for (Slot slot = 1; slot <= 2000; ++slot) {
    const Neighbor one{static_cast<float>(random() % 500), slot};
    parts[slot % 3].add(&one.distance, &one.slot, 1);
    all.push_back(one);
  }
  parts[0].add(parts[1]);
  parts[0].add(parts[2]);
  require_nearest(parts[0], all, 50);
}

}  // namespace
