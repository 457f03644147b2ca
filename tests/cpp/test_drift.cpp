#include <doctest/doctest.h>

#include <vector>

#include "drift.hpp"
#include "model.hpp"

namespace {

using upvec::Index;
using upvec::IndexOptions;
using upvec::Keys;
using upvec::KeyType;
using upvec::Metric;
using upvec::Neighbor;
using upvec::Outcome;
using upvec::testing::key_column;
using upvec::testing::Matrix;
using upvec::testing::Vector;
using upvec::testing::VectorSource;
using upvec::testing::why_not_ok;

constexpr std::size_t kDim = 16;
constexpr int kRows = 500;

struct Filled {
  explicit Filled(Metric metric)
      : index(options(metric)), vectors(VectorSource(kDim, 3).matrix(kRows)) {
    std::vector<int> numbers(kRows);
    for (int i = 0; i < kRows; ++i) numbers[static_cast<std::size_t>(i)] = i;
    index.upsert(key_column(KeyType::kInt64, numbers).span(), vectors.view());
  }
  static IndexOptions options(Metric metric) {
    IndexOptions options;
    options.dim = kDim;
    options.metric = metric;
    options.ef_construction = 40;
    return options;
  }
  // Moves key 7 by so much along the first axis. Returns whether its links were chosen anew.
  bool move(float by) {
    Vector vector = vectors.row(7);
    vector[0] += by;
    vectors.floats[7 * kDim] = vector[0];
    const std::uint64_t hops = index.stats().hops;
    const Keys key = key_column(KeyType::kInt64, {7});
    REQUIRE(index.upsert(key.span(), {vector.data(), 1, kDim}) ==
            std::vector<Outcome>{Outcome::kUpdated});
    const bool planned = index.stats().hops > hops;
    REQUIRE(why_not_ok(index.check()) == "");
    const auto got = upvec::testing::get(index, {7});
    if (index.options().metric != Metric::kCosine) REQUIRE(got.vectors.row(0) == vector);
    const auto hit = index.search({vector.data(), 1, kDim}, 1);
    if (index.options().metric == Metric::kL2) REQUIRE(hit.distances[0] == 0.0F);
    return planned;
  }

  Index index;
  Matrix vectors;
};

TEST_CASE("a small move keeps the links, and small moves add up until it does not") {
  for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
    CAPTURE(metric);
    Filled filled(metric);
    CHECK_FALSE(filled.move(1e-3F));
    int moves = 1;
    while (!filled.move(0.02F)) {
      REQUIRE(++moves < 500);
    }
    CHECK(moves > 2);
    CHECK_FALSE(filled.move(1e-3F));  // with the new links there is slack again
  }
}

TEST_CASE("a far move is no small one, however the slack stands") {
  Filled filled(Metric::kL2);
  CHECK(filled.move(30.0F));
}

TEST_CASE("raw inner products have no slack") {
  Filled filled(Metric::kInnerProduct);
  CHECK(filled.move(1e-3F));
}

TEST_CASE("slack goes by the nearest neighbour that is not as good as equal") {
  const std::vector<Neighbor> links = {{0.0F, 1}, {0.5F, 2}, {4.0F, 3}, {9.0F, 4}};
  CHECK(upvec::slack_of(Metric::kL2, links, 1.0F) == upvec::kSlackShare * 2.0F);
  CHECK(upvec::slack_of(Metric::kCosine, links, 0.1F) == upvec::kSlackShare * 1.0F);
  CHECK(upvec::slack_of(Metric::kL2, links, 10.0F) == 0.0F);
  CHECK(upvec::slack_of(Metric::kInnerProduct, links, 0.0F) == 0.0F);
}

TEST_CASE("slack is kept with a saved index") {
  Filled filled(Metric::kL2);
  filled.move(1e-3F);
  Filled other(Metric::kL2);
  other.index = filled.index.copy();
  other.vectors = filled.vectors;
  CHECK(other.index.digest() == filled.index.digest());
  for (int i = 0; i < 40; ++i) CHECK(other.move(0.02F) == filled.move(0.02F));
  CHECK(other.index.digest() == filled.index.digest());
}

}  // namespace
