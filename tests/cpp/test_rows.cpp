#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>

#include "rows.hpp"
#include "space.hpp"
#include "upvec/error.hpp"

namespace {

using upvec::Row;
using upvec::Rows;

TEST_CASE("dimensions are padded to whole cache lines") {
  CHECK(upvec::pad_dim(1) == 16);
  CHECK(upvec::pad_dim(16) == 16);
  CHECK(upvec::pad_dim(17) == 32);
  CHECK(upvec::pad_dim(100) == 112);
}

TEST_CASE("rows are numbered from 1 and given out once until released") {
  Rows rows(4);
  rows.reserve(1000);
  std::set<Row> given;
  for (int i = 0; i < 1000; ++i) {
    const Row row = rows.allocate();
    REQUIRE(row != upvec::kNoRow);
    REQUIRE(given.insert(row).second);
  }
  CHECK(rows.in_use() == 1000);
  for (int i = 0; i < 300; ++i) {
    rows.release(*given.begin());
    given.erase(given.begin());
  }
  CHECK(rows.in_use() == 700);
  const std::size_t bytes = rows.vector_bytes();
  rows.reserve(300);
  for (int i = 0; i < 300; ++i) {
    REQUIRE(given.insert(rows.allocate()).second);
  }
  CHECK(*given.rbegin() == 1000);
  CHECK(rows.vector_bytes() == bytes);
}

TEST_CASE("vectors and headers of rows lie apart") {
  constexpr std::size_t kBytes = 12;
  Rows rows(kBytes);
  rows.reserve(100);
  for (int i = 0; i < 100; ++i) {
    const Row row = rows.allocate();
    std::fill_n(rows.vector(row), kBytes, static_cast<std::byte>(row));
    rows.header(row).set(row * 2ULL, row * 3ULL, row - 1, false);
  }
  for (Row row = 1; row <= 100; ++row) {
    REQUIRE(rows.vector(row)[0] == static_cast<std::byte>(row));
    REQUIRE(rows.vector(row)[kBytes - 1] == static_cast<std::byte>(row));
    REQUIRE(rows.header(row).key == row * 3ULL);
    REQUIRE(rows.header(row).previous == row - 1);
  }
}

TEST_CASE("more rows than can be numbered are refused before memory is taken") {
  Rows rows(4);
  CHECK_THROWS_AS(rows.reserve(std::size_t{1} << 31), upvec::Error);
  CHECK(rows.vector_bytes() == 0);
}

}  // namespace
