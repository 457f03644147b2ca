#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codes.hpp"
#include "random.hpp"
#include "scratch.hpp"
#include "simd/distance.hpp"
#include "space.hpp"

namespace {

using upvec::CodeSpace;
using upvec::Metric;
using upvec::simd::available_kernels;
using upvec::simd::DistanceKernels;
using upvec::simd::find_kernels;

// Records are 8-byte aligned, as in the planes.
struct Record {
  explicit Record(const CodeSpace& space) : words(space.point_bytes() / 8 + 1) {}
  [[nodiscard]] std::byte* data() { return reinterpret_cast<std::byte*>(words.data()); }
  std::vector<std::uint64_t> words;
};

std::vector<float> random_vector(upvec::testing::Random& random, std::size_t dim, float scale) {
  std::normal_distribution<float> normal;
  std::vector<float> vector(dim);
  for (float& x : vector) x = scale * normal(random);
  return vector;
}

double squared_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

std::int32_t plain_dot(const std::int8_t* a, const std::int8_t* b, std::size_t dim) {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < dim; ++i) sum += a[i] * b[i];
  return sum;
}

void check_dots(const DistanceKernels& kernels, std::size_t dim, bool extreme) {
  constexpr std::size_t kRows = 11;
  upvec::testing::Random random(static_cast<std::uint32_t>(dim));
  std::vector<std::uint64_t> storage(kRows * dim / 8);
  auto* const codes = reinterpret_cast<std::int8_t*>(storage.data());
  for (std::size_t i = 0; i < kRows * dim; ++i) {
    const int value = extreme ? (random() % 2 == 0 ? 127 : -127) : static_cast<int>(random() % 255);
    codes[i] = static_cast<std::int8_t>(extreme ? value : value - 127);
  }
  std::vector<const void*> others;
  for (std::size_t r = 1; r < kRows; ++r) others.push_back(codes + r * dim);
  std::vector<std::int32_t> many(others.size() + 1, 77);
  kernels.dot_codes_many(codes, others.data(), others.size(), dim, many.data());
  for (std::size_t r = 1; r < kRows; ++r) {
    const std::int32_t want = plain_dot(codes, codes + r * dim, dim);
    CHECK(kernels.dot_codes(codes, codes + r * dim, dim) == want);
    CHECK(many[r - 1] == want);
  }
  CHECK(kernels.dot_codes(codes, codes, dim) == plain_dot(codes, codes, dim));
  CHECK(many.back() == 77);
}

TEST_CASE("every kernel gives the same products of codes, the largest too") {
  for (const std::string_view name : available_kernels()) {
    CAPTURE(std::string(name));
    for (std::size_t dim = 32; dim <= 1024; dim += 32) {
      CAPTURE(dim);
      check_dots(*find_kernels(name), dim, false);
      check_dots(*find_kernels(name), dim, true);
    }
    check_dots(*find_kernels(name), 65536, true);
  }
}

TEST_CASE("distances by code are those of the vectors, as far as rounding lets them") {
  upvec::testing::Random random(5);
  for (const std::size_t dim : {1U, 7U, 33U, 128U, 384U}) {
    CAPTURE(dim);
    const CodeSpace space(Metric::kL2, dim);
    for (int round = 0; round < 50; ++round) {
      const std::vector<float> a = random_vector(random, dim, 3.0F);
      const std::vector<float> b = random_vector(random, dim, 3.0F);
      Record code_a(space);
      Record code_b(space);
      space.encode(a.data(), code_a.data());
      space.encode(b.data(), code_b.data());
      // No component is off by more than half a step, so lengths are off by this at most.
      const auto worst = [dim](const std::vector<float>& v) {
        float largest = 0;
        for (const float x : v) largest = std::max(largest, std::fabs(x));
        return static_cast<double>(largest) / 254.0 * std::sqrt(static_cast<double>(dim)) + 1e-5;
      };
      const double exact = std::sqrt(squared_distance(a, b));
      const double coded = std::sqrt(
          std::max(0.0, static_cast<double>(space.distance(code_a.data(), code_b.data()))));
      CHECK(std::abs(exact - coded) <= worst(a) + worst(b) + 1e-3 * exact);
      CHECK(space.distance(code_a.data(), code_a.data()) == 0.0F);
      upvec::Point others[] = {code_a.data(), code_b.data(), code_a.data()};
      float distances[3];
      space.distances(code_b.data(), others, 3, distances);
      CHECK(distances[0] == space.distance(code_b.data(), code_a.data()));
      CHECK(distances[1] == 0.0F);
      CHECK(distances[2] == distances[0]);
    }
  }
}

TEST_CASE("one against many gives the bits of one against one, of however many") {
  upvec::testing::Random random(6);
  constexpr std::size_t kDim = 100;
  for (const Metric metric : {Metric::kL2, Metric::kCosine, Metric::kInnerProduct}) {
    const CodeSpace space(metric, kDim);
    std::vector<Record> records;
    std::vector<upvec::Point> points;
    for (std::size_t i = 0; i < upvec::kMostTogether; ++i) {
      const float scale = i % 3 == 0 ? 0.01F : 3.0F;
      space.encode(random_vector(random, kDim, scale).data(), records.emplace_back(space).data());
    }
    for (Record& record : records) points.push_back(record.data());
    std::vector<float> distances(points.size());
    for (std::size_t n = 1; n <= points.size(); ++n) {
      space.distances(points[n - 1], points.data(), n, distances.data());
      for (std::size_t i = 0; i < n; ++i) {
        REQUIRE(distances[i] == space.distance(points[n - 1], points[i]));
      }
    }
  }
}

TEST_CASE("the codes of zero, tiny and huge vectors are what they can be") {
  constexpr std::size_t kDim = 5;
  const CodeSpace space(Metric::kL2, kDim);
  for (const float x : {0.0F, 1e-45F, 1e-38F, 1e18F}) {
    CAPTURE(x);
    const std::vector<float> vector(kDim, x);
    Record code(space);
    Record zero(space);
    space.encode(vector.data(), code.data());
    space.encode(std::vector<float>(kDim, 0.0F).data(), zero.data());
    const float distance = space.distance(code.data(), zero.data());
    CHECK(std::isfinite(distance));
    CHECK(static_cast<double>(distance) ==
          doctest::Approx(static_cast<double>(x) * static_cast<double>(x) * kDim).epsilon(0.02));
  }
}

TEST_CASE("a code that is all there is of a vector is the code of what it decodes to") {
  upvec::testing::Random random(8);
  std::uniform_real_distribution<float> exponent(-38.0F, 18.0F);
  for (const Metric metric : {Metric::kL2, Metric::kInnerProduct, Metric::kCosine}) {
    for (const std::size_t dim : {1U, 2U, 7U, 33U, 384U}) {
      CAPTURE(dim);
      const CodeSpace space(metric, dim, true);
      for (int round = 0; round < 2000; ++round) {
        const float size = metric == Metric::kCosine ? 1.0F : std::pow(10.0F, exponent(random));
        const std::vector<float> vector = random_vector(random, dim, size);
        Record code(space);
        Record again(space);
        std::vector<float> decoded(dim);
        space.encode(vector.data(), code.data());
        space.decode(code.data(), decoded.data());
        space.encode(decoded.data(), again.data());
        REQUIRE(std::memcmp(code.data(), again.data(), space.point_bytes()) == 0);

        std::vector<std::byte> packed(CodeSpace::packed_bytes(dim));
        space.pack(code.data(), packed.data());
        space.unpack(packed.data(), again.data());
        REQUIRE(std::memcmp(code.data(), again.data(), space.point_bytes()) == 0);
      }
    }
  }
}

TEST_CASE("a decoded vector is off by no more than half a step, or of unit length under cosine") {
  upvec::testing::Random random(9);
  constexpr std::size_t kDim = 100;
  const CodeSpace l2(Metric::kL2, kDim, true);
  const CodeSpace cosine(Metric::kCosine, kDim, true);
  std::vector<float> decoded(kDim);
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> vector = random_vector(random, kDim, 3.0F);
    float largest = 0;
    for (const float x : vector) largest = std::max(largest, std::fabs(x));
    Record code(l2);
    l2.encode(vector.data(), code.data());
    l2.decode(code.data(), decoded.data());
    for (std::size_t i = 0; i < kDim; ++i) {
      CHECK(std::fabs(decoded[i] - vector[i]) <= largest / 254.0F * 1.0001F);
    }
    cosine.encode(vector.data(), code.data());
    cosine.decode(code.data(), decoded.data());
    double square = 0;
    for (const float x : decoded) square += static_cast<double>(x) * static_cast<double>(x);
    CHECK(std::abs(square - 1.0) <= 1e-6);
  }
  // Too short for a step that is a normal number.
  Record code(l2);
  l2.encode(std::vector<float>(kDim, 1e-37F).data(), code.data());
  l2.decode(code.data(), decoded.data());
  CHECK(decoded == std::vector<float>(kDim, 0.0F));
}

TEST_CASE("a query is measured to what a code decodes to") {
  upvec::testing::Random random(10);
  for (const Metric metric : {Metric::kL2, Metric::kInnerProduct, Metric::kCosine}) {
    for (const std::size_t dim : {3U, 40U, 384U}) {
      CAPTURE(dim);
      const CodeSpace space(metric, dim, true);
      const std::vector<float> vector = random_vector(random, dim, 1.0F);
      const std::vector<float> other = random_vector(random, dim, 1.0F);
      upvec::PaddedVector query;
      std::fill_n(query.reserve(upvec::pad_dim(dim)), upvec::pad_dim(dim), 0.0F);
      std::copy(other.begin(), other.end(), query.data());
      Record code(space);
      std::vector<float> decoded(dim);
      space.encode(vector.data(), code.data());
      space.decode(code.data(), decoded.data());
      const upvec::Point point = code.data();
      float distance = 0;
      space.distances_to(query.data(), &point, 1, &distance);
      double want = metric == Metric::kL2 ? squared_distance(decoded, other) : 1.0;
      if (metric != Metric::kL2) {
        for (std::size_t i = 0; i < dim; ++i) {
          want -= static_cast<double>(decoded[i]) * static_cast<double>(other[i]);
        }
      }
      CHECK(static_cast<double>(distance) == doctest::Approx(want).epsilon(1e-4));
      if (metric != Metric::kL2) continue;
      std::copy(decoded.begin(), decoded.end(), query.data());
      space.distances_to(query.data(), &point, 1, &distance);
      CHECK(distance == 0.0F);
    }
  }
}

TEST_CASE("a copied record is the record") {
  upvec::testing::Random random(6);
  const CodeSpace space(Metric::kCosine, 100);
  const std::vector<float> vector = random_vector(random, 100, 1.0F);
  Record code(space);
  Record copy(space);
  space.encode(vector.data(), code.data());
  space.copy(code.data(), copy.data());
  CHECK(std::memcmp(code.data(), copy.data(), space.point_bytes()) == 0);
}

TEST_CASE("equal vectors in different roundings lie within the blur, others beyond it") {
  upvec::testing::Random random(7);
  const CodeSpace space(Metric::kL2, 384);
  const std::vector<float> vector = random_vector(random, 384, 1.0F);
  std::vector<float> near = vector;
  std::vector<float> far = vector;
  const std::vector<float> noise = random_vector(random, 384, 1.0F);
  for (std::size_t i = 0; i < near.size(); ++i) {
    near[i] += 0.002F * noise[i];
    far[i] += 0.2F * noise[i];
  }
  Record code(space);
  Record near_code(space);
  Record far_code(space);
  space.encode(vector.data(), code.data());
  space.encode(near.data(), near_code.data());
  space.encode(far.data(), far_code.data());
  CHECK(space.distance(code.data(), near_code.data()) < space.blur(code.data()));
  CHECK(space.distance(code.data(), far_code.data()) > space.blur(code.data()));
}

}  // namespace
