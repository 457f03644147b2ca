#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checksum.hpp"

namespace {

using upvec::crc32c;

TEST_CASE("crc32c agrees with the published check values") {
  CHECK(crc32c("123456789", 9) == 0xe3069283);
  CHECK(crc32c("", 0) == 0);
  // RFC 3720, appendix B.4.
  CHECK(crc32c(std::string(32, '\0').data(), 32) == 0x8a9136aa);
  CHECK(crc32c(std::string(32, '\xff').data(), 32) == 0x62a8ab43);
  std::vector<std::uint8_t> ascending(32);
  for (std::size_t i = 0; i < 32; ++i) {
    ascending[i] = static_cast<std::uint8_t>(i);
  }
  CHECK(crc32c(ascending.data(), 32) == 0x46dd794e);
}

TEST_CASE("a checksum made in pieces is that of the whole") {
  std::string text;
  for (int i = 0; i < 100; ++i) {
    text.push_back(static_cast<char>(i * 37));
  }
  const std::uint32_t whole = crc32c(text.data(), text.size());
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const std::uint32_t first = crc32c(text.data(), cut);
    REQUIRE(crc32c(text.data() + cut, text.size() - cut, first) == whole);
  }
}

TEST_CASE("the instruction and the tables agree, at every length and place") {
  std::string text;
  for (int i = 0; i < 300; ++i) text.push_back(static_cast<char>(i * 151 + i / 7));
  for (std::size_t begin = 0; begin < 9; ++begin) {
    for (std::size_t size = 0; begin + size <= text.size(); ++size) {
      const char* const at = text.data() + begin;
      REQUIRE(crc32c(at, size, 77) == upvec::crc32c_by_tables(at, size, 77));
    }
  }
}

TEST_CASE("every flipped bit changes the checksum") {
  std::string text(64, 'x');
  const std::uint32_t before = crc32c(text.data(), text.size());
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    REQUIRE(crc32c(text.data(), text.size()) != before);
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
  }
}

}  // namespace
