#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "planes.hpp"

namespace {

using upvec::BytePlane;
using upvec::Plane;

TEST_CASE("a new plane has no room; ensure makes at least as much as was asked") {
  Plane<std::uint64_t> plane;
  CHECK(plane.allocated_bytes() == 0);
  plane.ensure(1);
  CHECK(plane.allocated_bytes() >= sizeof(std::uint64_t));
  plane[0] = 7;
  CHECK(plane[0] == 7);
}

TEST_CASE("new records read as zero") {
  BytePlane plane(24);
  plane.ensure(100'000);
  for (std::size_t i = 0; i < 100'000; i += 997) {
    for (std::size_t byte = 0; byte < 24; ++byte) {
      REQUIRE(plane.at(i)[byte] == std::byte{0});
    }
  }
}

TEST_CASE("growing moves no record and keeps what is in them") {
  Plane<std::uint64_t> plane;
  plane.ensure(1);
  std::vector<std::uint64_t*> places;
  std::size_t filled = 0;
  for (const std::size_t count : {1U, 1000U, 262'144U, 262'145U, 600'000U}) {
    plane.ensure(count);
    for (; filled < count; ++filled) {
      plane[filled] = filled * 3 + 1;
      places.push_back(&plane[filled]);
    }
    for (std::size_t i = 0; i < filled; ++i) {
      REQUIRE(&plane[i] == places[i]);
      REQUIRE(*places[i] == i * 3 + 1);
    }
  }
}

TEST_CASE("records of any size neither overlap nor leave their chunk") {
  for (const std::size_t stride : {1U, 12U, 64U, 100U, 4096U, 262'144U}) {
    CAPTURE(stride);
    BytePlane plane(stride);
    plane.ensure(1);
    const std::size_t a_chunk = plane.capacity();
    plane.ensure(a_chunk + 1);
    CHECK(plane.capacity() == 2 * a_chunk);
    for (const std::size_t i : {std::size_t{0}, a_chunk - 1, a_chunk, 2 * a_chunk - 1}) {
      plane.at(i)[0] = std::byte{1};
      plane.at(i)[stride - 1] = std::byte{1};
    }
    if (a_chunk > 1) {
      CHECK(plane.at(1) == plane.at(0) + stride);
    }
  }
}

TEST_CASE("what a plane counts are whole chunks, and the pages of the last that may be in use") {
  BytePlane plane(64);
  plane.ensure(1);
  CHECK(plane.allocated_bytes() == 4096);
  plane.ensure(65);
  CHECK(plane.allocated_bytes() == 2 * 4096);
  const std::size_t a_chunk = plane.capacity();
  plane.ensure(a_chunk);
  CHECK(plane.allocated_bytes() == a_chunk * 64);
  plane.ensure(a_chunk + 1);
  CHECK(plane.allocated_bytes() == a_chunk * 64 + 4096);
  plane.at(a_chunk)[0] = std::byte{7};
  plane.ensure(2 * a_chunk);  // asks for huge pages under what is there
  CHECK(plane.at(a_chunk)[0] == std::byte{7});
  plane.ensure(10 * a_chunk + 10);
  CHECK(plane.allocated_bytes() == 10 * a_chunk * 64 + 4096);
}

TEST_CASE("vectors start on cache lines") {
  BytePlane plane(64 * 3);
  plane.ensure(50'000);
  for (std::size_t i = 0; i < 50'000; i += 991) {
    REQUIRE(reinterpret_cast<std::uintptr_t>(plane.at(i)) % 64 == 0);
  }
}

}  // namespace
