// Points: the ways of measuring slots, by what rows hold and by codes beside them.
//
// Plans, commits and searches are templates over these, so that all ways have the same logic and
// none pays for another. `current` is what readers see; `planned` what the batch under way
// will make of it; `linked` where its links will be right once the sub-batch under way is
// committed.
#pragma once

#include <cstddef>

#include "graph.hpp"

namespace upvec {

template <typename Own>
class PointsBase {
 public:
  explicit PointsBase(const Graph& graph) : graph_(graph) {}

  [[nodiscard]] Point linked(Slot slot) const noexcept {
    const Own& own = static_cast<const Own&>(*this);
    return (graph_.flags[slot] & kInFlight) != 0 ? own.planned(slot) : own.current(slot);
  }
  [[nodiscard]] const Graph& graph() const noexcept { return graph_; }
  [[nodiscard]] Metric metric() const noexcept { return graph_.space.metric(); }

 protected:
  const Graph& graph_;
};

// By what rows hold. Where that is their codes, these are the points to walk by.
class RowPoints : public PointsBase<RowPoints> {
 public:
  static constexpr bool kExact = true;  // measures what rows hold
  using PointsBase::PointsBase;
  [[nodiscard]] Point current(Slot slot) const noexcept {
    return graph_.rows.vector(graph_.row_of[slot].load(std::memory_order_acquire));
  }
  [[nodiscard]] Point planned(Slot slot) const noexcept { return graph_.planned_vector(slot); }
  [[nodiscard]] float distance(Point a, Point b) const noexcept {
    return graph_.space.distance(a, b);
  }
  void distances(Point a, const Point* others, std::size_t n, float* out) const noexcept {
    graph_.space.distances(a, others, n, out);
  }
  [[nodiscard]] std::size_t point_bytes() const noexcept { return graph_.space.row_bytes(); }
  // Distances from a point up to this are not to be trusted.
  [[nodiscard]] float blur(Point /*a*/) const noexcept { return 0.0F; }
};

// By what rows hold, from a query: padded floats, of which nothing is lost.
class QueryPoints : public PointsBase<QueryPoints> {
 public:
  static constexpr bool kExact = true;
  using PointsBase::PointsBase;
  [[nodiscard]] Point current(Slot slot) const noexcept {
    return graph_.rows.vector(graph_.row_of[slot].load(std::memory_order_acquire));
  }
  [[nodiscard]] float distance(Point query, Point row) const noexcept {
    return graph_.space.distance_to(static_cast<const float*>(query), row);
  }
  void distances(Point query, const Point* rows, std::size_t n, float* out) const noexcept {
    graph_.space.distances_to(static_cast<const float*>(query), rows, n, out);
  }
  [[nodiscard]] std::size_t point_bytes() const noexcept { return graph_.space.row_bytes(); }
};

// By the codes beside the rows.
class CodePoints : public PointsBase<CodePoints> {
 public:
  static constexpr bool kExact = false;
  using PointsBase::PointsBase;
  [[nodiscard]] Point current(Slot slot) const noexcept { return graph_.codes.at(slot); }
  [[nodiscard]] Point planned(Slot slot) const noexcept {
    const std::uint32_t place = graph_.pending_of[slot];
    return place != 0 ? graph_.pending.code(place) : graph_.codes.at(slot);
  }
  [[nodiscard]] float distance(Point a, Point b) const noexcept {
    return graph_.code_space.distance(a, b);
  }
  void distances(Point a, const Point* others, std::size_t n, float* out) const noexcept {
    graph_.code_space.distances(a, others, n, out);
  }
  [[nodiscard]] std::size_t point_bytes() const noexcept { return graph_.code_space.point_bytes(); }
  [[nodiscard]] float blur(Point a) const noexcept { return graph_.code_space.blur(a); }
};

// Calls work(points) with the kind by which this graph is built and walked.
template <typename Work>
decltype(auto) with_points(const Graph& graph, const Work& work) {
  return graph.has_codes ? work(CodePoints(graph)) : work(RowPoints(graph));
}

}  // namespace upvec
