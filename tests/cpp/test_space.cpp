#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "random.hpp"
#include "scratch.hpp"
#include "space.hpp"
#include "store.hpp"

namespace {

using upvec::CodeSpace;
using upvec::from_bf16;
using upvec::IndexOptions;
using upvec::Keep;
using upvec::Metric;
using upvec::Space;
using upvec::to_bf16;

TEST_CASE("bfloat16 is the nearest, ties to even, and itself again") {
  CHECK(from_bf16(to_bf16(1.0F)) == 1.0F);
  CHECK(from_bf16(to_bf16(-0.0F)) == 0.0F);
  CHECK(std::signbit(from_bf16(to_bf16(-0.0F))));
  CHECK(to_bf16(1.0F + 0x1p-8F) == to_bf16(1.0F));                  // a tie: down to even
  CHECK(from_bf16(to_bf16(1.0F + 3 * 0x1p-8F)) == 1.0F + 0x1p-6F);  // a tie: up to even
  CHECK(from_bf16(to_bf16(1.0F + 0x1.02p-8F)) == 1.0F + 0x1p-7F);
  for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    REQUIRE(to_bf16(from_bf16(half)) == half);
    REQUIRE(to_bf16(-from_bf16(half)) == (half | 0x8000));
  }
  upvec::testing::Random random(1);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 10000; ++i) {
    const float x = normal(random);
    REQUIRE(std::fabs(from_bf16(to_bf16(x)) - x) <= 0x1p-8F * std::fabs(x));
  }
}

struct Rig {
  Rig(Metric metric, Keep keep, std::size_t dim)
      : options{.dim = dim, .metric = metric, .keep = keep},
        space(metric, dim, keep, CodeSpace(metric, dim, keep == Keep::kNone)) {
    room.reserve(space.padded_dim());
  }
  bool prepare(const std::vector<float>& vector, std::vector<std::uint64_t>& row) {
    row.assign(space.row_bytes() / sizeof(std::uint64_t), 0);
    return upvec::prepare_row(options, space, vector.data(), room.data(), bytes(row));
  }
  static std::byte* bytes(std::vector<std::uint64_t>& row) {
    return reinterpret_cast<std::byte*>(row.data());
  }
  IndexOptions options;
  Space space;
  upvec::PaddedVector room;
};

TEST_CASE("what is read from a row is the row when it is put back") {
  upvec::testing::Random random(2);
  std::normal_distribution<float> normal;
  for (const Keep keep : {Keep::kF32, Keep::kBf16, Keep::kNone}) {
    for (const Metric metric : {Metric::kL2, Metric::kInnerProduct, Metric::kCosine}) {
      for (const std::size_t dim : {1U, 2U, 3U, 4U, 50U, 384U}) {
        CAPTURE(static_cast<int>(keep));
        CAPTURE(dim);
        Rig rig(metric, keep, dim);
        std::vector<std::uint64_t> row;
        std::vector<std::uint64_t> again;
        std::vector<float> vector(dim);
        for (int round = 0; round < 1000; ++round) {
          for (float& x : vector) x = normal(random);
          REQUIRE(rig.prepare(vector, row));
          rig.space.decode(row.data(), vector.data());
          REQUIRE(rig.prepare(vector, again));
          REQUIRE(row == again);
          std::vector<std::byte> packed(rig.space.packed_bytes());
          rig.space.pack(row.data(), packed.data());
          rig.space.unpack(packed.data(), Rig::bytes(again));
          REQUIRE(row == again);
        }
      }
    }
  }
}

TEST_CASE("a row whose rounded vector would be too long to be put back is refused") {
  constexpr std::size_t kDim = 64;
  // Half a step is rounded up to a whole one.
  std::vector<float> vector(kDim, 0.501F / 127.0F);
  vector[0] = 1.0F;
  double norm = 0;
  for (const float x : vector) norm += static_cast<double>(x) * static_cast<double>(x);
  for (float& x : vector) x *= static_cast<float>(1e18 / std::sqrt(norm) * (1.0 - 1e-6));
  for (const Keep keep : {Keep::kF32, Keep::kNone}) {
    Rig rig(Metric::kL2, keep, kDim);
    std::vector<std::uint64_t> row;
    CHECK(rig.prepare(vector, row) == (keep == Keep::kF32));
  }
}

}  // namespace
