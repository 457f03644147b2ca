// Drift: how far a slot may move before its links are chosen anew.
//
// When links are chosen, the slot gets a slack: a share of its link radius, the distance to its
// nearest neighbour. A move within the slack costs its length and leaves the links alone. By the
// triangle inequality the slot is then never farther from where its links were chosen than the
// share says, however many small moves it made. Lengths are Euclidean; under cosine, of unit
// vectors. Raw inner products have no triangle inequality: every move is a real one there.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "graph.hpp"

namespace upvec {

// Recall@10 at ef 16 / 32 / 64 less a fresh build's, in points, and turnovers/s in units of
// inserting into an empty index; ten turnovers of 10,000 texts by noise of 3 % of the distance to
// the nearest neighbour, and one in a single batch by 25 %:
//   .20   +.1 / +.2 / 0     5.4      -.1 /   0 / 0     0.8
//   .25   +.1 / +.2 / -.1   6.3      -.3 / -.1 / -.1   1.6
//   .30   -.2 /   0 / -.1   12       0   / -.1 / -.1   5.2
inline constexpr float kSlackShare = 0.25F;

// The Euclidean length of a distance of the metric.
inline float length_of(Metric metric, float distance) noexcept {
  const float square = metric == Metric::kCosine ? 2.0F * distance : distance;
  return std::sqrt(std::max(0.0F, square));
}

// links: as chosen, nearest first. Neighbours that can't be told from the slot itself say nothing
// of how far apart things are here.
inline float slack_of(Metric metric, std::span<const Neighbor> links, float blur) noexcept {
  if (metric == Metric::kInnerProduct) return 0.0F;
  for (const Neighbor& link : links) {
    if (link.distance > blur) return kSlackShare * length_of(metric, link.distance);
  }
  return 0.0F;
}

}  // namespace upvec
