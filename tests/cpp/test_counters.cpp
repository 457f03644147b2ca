#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "counters.hpp"
#include "model.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

constexpr std::size_t kLine = simd::kCacheLineBytes;

struct alignas(kLine) Lines {
  std::array<char, 8 * kLine> bytes;
  [[nodiscard]] const char* at(std::size_t offset) const { return &bytes[offset]; }
};

TEST_CASE("a record that straddles lines touches all of them") {
  const Lines lines{};
  CHECK(lines_touched(lines.at(0), kLine) == 1);
  CHECK(lines_touched(lines.at(8), kLine) == 2);
  CHECK(lines_touched(lines.at(56), 136) == 3);
  CHECK(lines_touched(lines.at(60), 4) == 1);
}

TEST_CASE("lines of a record count once a walk, and in vain only until they are read") {
  const Lines lines{};
  LineCounter counter;
  counter.sent_for(lines.at(0), 2 * kLine);
  counter.sent_for(lines.at(0), 2 * kLine);
  counter.sent_for(lines.at(4 * kLine), kLine);
  CHECK(counter.lines_unread() == 3);
  counter.read(lines.at(0), 2 * kLine);
  counter.read(lines.at(0), 2 * kLine);
  counter.sent_for(lines.at(0), 2 * kLine);
  CHECK(counter.lines_read() == 2);
  CHECK(counter.lines_unread() == 1);
  counter.begin();
  counter.read(lines.at(4 * kLine), kLine);
  CHECK(counter.lines_read() == 3);
  CHECK(counter.lines_unread() == 1);
}

#ifdef UPVEC_COUNTERS

TEST_CASE("counters of searches add up") {
  constexpr std::size_t kRows = 400;
  constexpr std::size_t kQueries = 20;
  constexpr std::size_t kK = 10;
  IndexOptions options;
  options.dim = 128;
  options.m = 16;
  Index index(options);
  VectorSource source(options.dim, 1);
  std::vector<int> numbers(kRows);
  std::iota(numbers.begin(), numbers.end(), 0);
  index.upsert(key_column(KeyType::kInt64, numbers).span(), source.matrix(kRows).view());
  const auto counts = [&] {
    const Stats stats = index.stats();
    std::map<std::string, std::uint64_t> named(stats.counters.begin(), stats.counters.end());
    named["distances"] = stats.distances;
    named["hops"] = stats.hops;
    return named;
  };
  auto before = counts();
  CHECK(index.search(source.matrix(kQueries).view(), kK).counts.size() == kQueries);
  auto after = counts();
  const auto counted = [&](const char* name) { return after[name] - before[name]; };
  const std::uint64_t reranks = counted("exact_distances");
  CHECK(reranks >= kQueries * kK);
  CHECK(counted("headers_lines") >= reranks);
  CHECK(counted("row_of_lines") == reranks);
  CHECK(counted("vectors_lines") == 8 * reranks);
  // Records of 136 bytes lie on three lines each. What was measured on a level above is often met
  // again, and then counts as a distance but not as lines.
  const std::uint64_t by_code = counted("distances") - reranks;
  CHECK(counted("codes_lines") <= 3 * by_code);
  CHECK(counted("codes_lines") >= 3 * by_code * 9 / 10);
  // Lists of 32 on level 0, of 16 above.
  CHECK(counted("links_lines") <= 2 * counted("hops"));
  CHECK(counted("links_lines") >= counted("hops"));
  CHECK(counted("neighbours") <= 32 * counted("hops"));
  CHECK(counted("neighbours") >= by_code);
  CHECK(counted("pool_inserts") <= by_code);
  CHECK(counted("pool_inserts") >= kQueries * kK / 2);
}

#else

TEST_CASE("nothing is counted that was not asked for") {
  IndexOptions options;
  options.dim = 4;
  CHECK(Index(options).stats().counters.empty());
}

#endif

}  // namespace
