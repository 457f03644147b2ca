#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "prune.hpp"
#include "random.hpp"

namespace {

using upvec::Metric;
using upvec::Neighbor;
using upvec::Slot;

// Points on a plane; slot i is points[i - 2]; the target, slot 1, is the origin.
class Points {
 public:
  explicit Points(const std::vector<std::array<float, 2>>& points)
      : graph_(2, Metric::kL2, upvec::Codes::kNone, upvec::Keep::kF32, 16), points_(graph_) {
    const auto count = static_cast<Slot>(points.size() + 1);
    graph_.rows.reserve(count);
    graph_.ensure_slots(count + 1);
    for (Slot slot = 1; slot <= count; ++slot) {
      const upvec::Row row = graph_.rows.allocate();
      graph_.row_of[slot].store(row);
      if (slot == 1) continue;
      std::memcpy(graph_.rows.vector(row), points[slot - 2].data(), 2 * sizeof(float));
      candidates_.push_back({distance(1, slot), slot});
    }
    std::sort(candidates_.begin(), candidates_.end());
  }

  std::vector<Slot> prune(std::size_t limit, const std::vector<Slot>& protected_slots = {}) {
    upvec::Scratch scratch;
    upvec::prune(
        points_, candidates_, limit, [&](Slot slot) { return points_.current(slot); },
        [&](Slot slot) {
          return std::find(protected_slots.begin(), protected_slots.end(), slot) !=
                 protected_slots.end();
        },
        scratch);
    std::vector<Slot> slots;
    for (const Neighbor& one : scratch.kept) {
      slots.push_back(one.slot);
    }
    return slots;
  }
  [[nodiscard]] const std::vector<Neighbor>& candidates() const { return candidates_; }
  [[nodiscard]] float distance(Slot a, Slot b) const {
    return points_.distance(points_.current(a), points_.current(b));
  }

 private:
  upvec::Graph graph_;
  upvec::RowPoints points_;
  std::vector<Neighbor> candidates_;
};

TEST_CASE("a candidate behind a nearer one is left out, one in another direction is kept") {
  Points points({{1, 0}, {2, 0}, {0, 3}});  // slots 2, 3, 4
  CHECK(points.prune(10) == std::vector<Slot>{2, 4});
}

TEST_CASE("protected candidates are kept, whatever stands before them and however short the list") {
  Points points({{1, 0}, {2, 0}, {3, 0}, {4, 0}, {0, 1}, {0, -1.5F}});
  CHECK(points.prune(10, {4}) == std::vector<Slot>{2, 6, 7, 4});
  CHECK(points.prune(2, {4, 5}) == std::vector<Slot>{4, 5});
  CHECK(points.prune(3, {4, 5}) == std::vector<Slot>{2, 4, 5});
}

TEST_CASE("what is left out has a kept occluder, what is kept has none") {
  upvec::testing::Random random(4);
  std::normal_distribution<float> normal;
  std::vector<std::array<float, 2>> places(60);
  for (auto& place : places) {
    place = {normal(random), normal(random)};
  }
  Points points(places);
  const std::vector<Slot> kept = points.prune(1000);
  const float alpha = upvec::prune_alpha(Metric::kL2);
  for (const Neighbor& candidate : points.candidates()) {
    bool occluded = false;
    for (const Slot near : kept) {
      if (near == candidate.slot) {
        break;
      }
      occluded |= alpha * points.distance(candidate.slot, near) <= candidate.distance;
    }
    const bool is_kept = std::find(kept.begin(), kept.end(), candidate.slot) != kept.end();
    CHECK(is_kept != occluded);
  }
}

TEST_CASE("the limit is kept") {
  std::vector<std::array<float, 2>> circle;
  for (int i = 0; i < 5; ++i) {
    circle.push_back({std::cos(static_cast<float>(i) * 1.2566F) * 2,
                      std::sin(static_cast<float>(i) * 1.2566F) * 2});
  }
  Points points(circle);
  CHECK(points.prune(10).size() == 5);
  CHECK(points.prune(3).size() == 3);
  CHECK(points.prune(0).empty());
}

}  // namespace
