#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "checksum.hpp"
#include "model.hpp"
#include "random.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;
namespace fs = std::filesystem;

using Bytes = std::vector<std::uint8_t>;
constexpr std::size_t kHeaderBytes = 96;
constexpr std::size_t kSectionHeaderBytes = 16;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::random_device random;
    path_ = fs::temp_directory_path() / ("upvec-test-format-" + std::to_string(random()));
    fs::create_directory(path_);
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

Bytes read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Small, with levels, removed keys, a revived one and reused slots.
Index small_index(KeyType type, Metric metric = Metric::kL2, Keep keep = Keep::kF32) {
  IndexOptions options;
  options.keep = keep;
  options.dim = 3;
  options.metric = metric;
  options.key_type = type;
  options.m = 4;
  options.ef_construction = 16;
  Index index(options);
  VectorSource source(3, 31);
  std::vector<int> numbers;
  for (int i = 0; i < 40; ++i) {
    numbers.push_back(i);
  }
  index.upsert(key_column(type, numbers).span(), source.matrix(40).view());
  index.remove(key_column(type, {3, 4, 5, 6, 7}).span());
  index.upsert(key_column(type, {100, 5}).span(), source.matrix(2).view());
  return index;
}

Bytes bytes_of(const Index& index) {
  const TemporaryFolder folder;
  index.save(folder.file("index"));
  return read(folder.file("index"));
}

ErrorCode code_of_loading(const Bytes& bytes) {
  try {
    static_cast<void>(Index::load_bytes(bytes.data(), bytes.size()));
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInvalidArgument;  // which loading never throws
}

void fix_checksums(Bytes& bytes) {
  const auto fix = [&](std::size_t at, std::size_t begin, std::size_t size) {
    const std::uint32_t crc = crc32c(bytes.data() + begin, size);
    std::memcpy(bytes.data() + at, &crc, sizeof crc);
  };
  if (bytes.size() < kHeaderBytes) {
    return;
  }
  const std::uint64_t total = bytes.size();
  std::memcpy(bytes.data() + 16, &total, sizeof total);
  fix(kHeaderBytes - 4, 0, kHeaderBytes - 4);
  for (std::size_t at = kHeaderBytes; at + kSectionHeaderBytes <= bytes.size();) {
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof size);
    if (size > bytes.size() - at - kSectionHeaderBytes) {
      return;
    }
    fix(at + 8, at + kSectionHeaderBytes, size);
    at += kSectionHeaderBytes + size;
  }
}

// Reads and writes it in every way. All that is asked is that it stays an index.
void use(Index& index) {
  REQUIRE(why_not_ok(index.check()) == "");
  const std::size_t dim = index.options().dim;
  const Matrix vectors = VectorSource(dim, 32).matrix(3);
  REQUIRE(index.exact_search(vectors.view(), index.size() + 1).counts[0] ==
          static_cast<std::int64_t>(index.size()));
  REQUIRE(index.search(vectors.view(), index.size() + 1).counts[0] ==
          static_cast<std::int64_t>(index.size()));
  const Keys keys = key_column(index.options().key_type, {1, 5, 2000});
  index.upsert(keys.span(), vectors.view());
  REQUIRE(why_not_ok(index.check()) == "");
  const Keys all = index.keys();
  index.remove(all.span());
  REQUIRE(why_not_ok(index.check()) == "");
  REQUIRE(index.size() == 0);
  index.upsert(keys.span(), vectors.view());
  REQUIRE(why_not_ok(index.check()) == "");
}

TEST_CASE("what is loaded is what was saved, and goes on as that would have") {
  const TemporaryFolder folder;
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    for (const Metric metric : {Metric::kL2, Metric::kInnerProduct, Metric::kCosine}) {
      // The keys have nothing to do with the vectors: each way of keeping them once is enough.
      const Keep keep = type == KeyType::kInt64 ? Keep::kF32
                        : metric == Metric::kL2 ? Keep::kBf16
                                                : Keep::kNone;
      Index saved = small_index(type, metric, keep);
      saved.save(folder.file("index"));
      for (const bool map : {false, true}) {
        Index loaded = Index::load(folder.file("index"), map);
        CHECK(loaded.digest() == saved.digest());
        CHECK(loaded.size() == saved.size());
        CHECK(loaded.options().metric == metric);
        CHECK(loaded.options().keep == keep);
        CHECK(loaded.options().ef_construction == 16);
        CHECK(loaded.stats().seq == saved.stats().seq);
        CHECK(bytes_of(loaded) == read(folder.file("index")));
        use(loaded);
      }
      Index loaded = Index::load(folder.file("index"));
      const Matrix vectors = VectorSource(3, 33).matrix(4);
      for (Index* index : {&saved, &loaded}) {
        index->upsert(key_column(type, {4, 5, 101, 102}).span(), vectors.view());
      }
      CHECK(loaded.digest() == saved.digest());
    }
  }
}

TEST_CASE("an empty index and one that was emptied can be saved") {
  IndexOptions options;
  options.dim = 3;
  Index empty(options);
  CHECK(empty.copy().digest() == empty.digest());
  Index emptied = small_index(KeyType::kString);
  const Keys keys = emptied.keys();
  emptied.remove(keys.span());
  Index copy = emptied.copy();
  CHECK(copy.digest() == emptied.digest());
  use(copy);
}

TEST_CASE("saving replaces the old file whole and leaves nothing beside it") {
  const TemporaryFolder folder;
  const Index first = small_index(KeyType::kInt64);
  first.save(folder.file("index"));
  const Index second = small_index(KeyType::kString);
  second.save(folder.file("index"));
  CHECK(Index::load(folder.file("index")).digest() == second.digest());
  CHECK_FALSE(fs::exists(folder.file("index.tmp")));
  CHECK_THROWS_AS(static_cast<void>(Index::load(fs::path(folder.file("x")).parent_path().string())),
                  Error);
}

TEST_CASE("a file cut short anywhere is refused as corrupt") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    const Bytes whole = bytes_of(small_index(type));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      REQUIRE(code_of_loading(cut) == ErrorCode::kCorruption);
    }
    Bytes longer = whole;
    longer.push_back(0);
    CHECK(code_of_loading(longer) == ErrorCode::kCorruption);
  }
}

TEST_CASE("a file with any bit flipped is refused as corrupt") {
  const TemporaryFolder folder;
  Random random(34);
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    Bytes bytes = bytes_of(small_index(type));
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      CAPTURE(at);
      const auto bit = static_cast<std::uint8_t>(1U << (random() % 8));
      bytes[at] ^= bit;
      REQUIRE(code_of_loading(bytes) == ErrorCode::kCorruption);
      bytes[at] ^= bit;
    }
    CHECK(Index::load_bytes(bytes.data(), bytes.size()).check().ok());
  }
}

TEST_CASE("garbage is refused as corrupt") {
  Random random(35);
  for (int round = 0; round < 300; ++round) {
    Bytes bytes(random() % 600);
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(random());
    }
    REQUIRE(code_of_loading(bytes) == ErrorCode::kCorruption);
    if (bytes.size() >= 12) {  // now with the right beginning
      std::memcpy(bytes.data(), "UPVECIX\n\1\0\0", 12);
      fix_checksums(bytes);
      REQUIRE(code_of_loading(bytes) == ErrorCode::kCorruption);
    }
  }
}

TEST_CASE("a forged file with right checksums is refused or is an index like any other") {
  Random random(36);
  int loaded = 0;
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
      const Keep keep = type == KeyType::kInt64 ? Keep::kF32 : Keep::kNone;
      const Bytes real = bytes_of(small_index(type, metric, keep));
      for (int round = 0; round < 500; ++round) {
        CAPTURE(round);
        Bytes bytes = real;
        const unsigned changes = 1 + random() % 3;
        for (unsigned i = 0; i < changes; ++i) {
          const std::size_t at = random() % bytes.size();
          switch (random() % 4) {
            case 0:
              bytes[at] = static_cast<std::uint8_t>(random());
              break;
            case 1:
              bytes[at] = static_cast<std::uint8_t>(random() % 8);
              break;
            case 2:
              bytes[at] = 0xff;
              break;
            default:
              bytes[at] = bytes[random() % bytes.size()];
          }
        }
        if (random() % 16 == 0) {
          bytes.resize(random() % bytes.size());
        }
        fix_checksums(bytes);
        try {
          Index index = Index::load_bytes(bytes.data(), bytes.size());
          ++loaded;
          use(index);
        } catch (const Error& error) {
          REQUIRE(error.code() == ErrorCode::kCorruption);
        }
      }
    }
  }
  CHECK(loaded > 30);  // else this test has looked at nothing
}

// What sections hold is changed where it is known to matter.
class Forgery {
 public:
  explicit Forgery(Bytes bytes) : bytes_(std::move(bytes)) {}
  [[nodiscard]] std::size_t section(int number) const {
    std::size_t at = kHeaderBytes;
    for (int i = 1; i < number; ++i) {
      std::uint64_t size = 0;
      std::memcpy(&size, bytes_.data() + at, sizeof size);
      at += kSectionHeaderBytes + size;
    }
    return at + kSectionHeaderBytes;
  }
  template <class Value>
  Forgery& put(std::size_t at, Value value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
    return *this;
  }
  [[nodiscard]] ErrorCode code() {
    fix_checksums(bytes_);
    return code_of_loading(bytes_);
  }

 private:
  Bytes bytes_;
};

TEST_CASE("a forged file cannot bring in vectors that upsert would refuse") {
  const auto with_vector = [](Metric metric, float x) {
    Forgery forgery(bytes_of(small_index(KeyType::kInt64, metric)));
    const std::size_t at = forgery.section(3);
    for (std::size_t i = 0; i < 3; ++i) {
      forgery.put(at + i * sizeof(float), x);
    }
    return forgery.code();
  };
  CHECK(with_vector(Metric::kL2, std::numeric_limits<float>::quiet_NaN()) ==
        ErrorCode::kCorruption);
  CHECK(with_vector(Metric::kL2, std::numeric_limits<float>::infinity()) == ErrorCode::kCorruption);
  // Their distances would be infinite or NaN.
  CHECK(with_vector(Metric::kL2, 3e38F) == ErrorCode::kCorruption);
  CHECK(with_vector(Metric::kInnerProduct, -3e38F) == ErrorCode::kCorruption);
  CHECK(with_vector(Metric::kCosine, 0.0F) == ErrorCode::kCorruption);
  CHECK(with_vector(Metric::kCosine, 2.0F) == ErrorCode::kCorruption);
}

TEST_CASE("a forged file cannot bring in what no vector is rounded to") {
  const auto with = [](Metric metric, Keep keep, std::size_t at, auto value) {
    Forgery forgery(bytes_of(small_index(KeyType::kInt64, metric, keep)));
    return forgery.put(forgery.section(3) + at, value).code();
  };
  constexpr std::uint16_t kBf16Infinity = 0x7f80;
  CHECK(with(Metric::kL2, Keep::kBf16, 0, kBf16Infinity) == ErrorCode::kCorruption);
  constexpr std::uint16_t kBf16Two = 0x4000;
  CHECK(with(Metric::kCosine, Keep::kBf16, 0, kBf16Two) == ErrorCode::kCorruption);
  // Three values, then the scale.
  for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
    CHECK(with(metric, Keep::kNone, 0, std::int8_t{-128}) == ErrorCode::kCorruption);
    for (const float scale : {-1.0F, 0.1F, 1e38F, std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::infinity()}) {
      CAPTURE(scale);
      CHECK(with(metric, Keep::kNone, 3, scale) == ErrorCode::kCorruption);
    }
  }
}

TEST_CASE("a file of version 2, which knows one way to keep vectors, is read") {
  Bytes bytes = bytes_of(small_index(KeyType::kInt64));
  const std::uint32_t version = 2;
  std::memcpy(bytes.data() + 8, &version, sizeof version);
  fix_checksums(bytes);
  Index index = Index::load_bytes(bytes.data(), bytes.size());
  CHECK(index.options().keep == Keep::kF32);
  CHECK(index.digest() == small_index(KeyType::kInt64).digest());
  bytes[31] = 1;
  fix_checksums(bytes);
  CHECK(code_of_loading(bytes) == ErrorCode::kCorruption);
}

TEST_CASE("a forged file cannot claim ways of keeping vectors that there are not") {
  const Bytes real = bytes_of(small_index(KeyType::kInt64));
  CHECK(Forgery(real).put(31, std::uint8_t{3}).code() == ErrorCode::kCorruption);
  CHECK(Forgery(real).put(31, std::uint8_t{1}).code() == ErrorCode::kCorruption);  // another size
  Forgery nothing(bytes_of(small_index(KeyType::kInt64, Metric::kL2, Keep::kNone)));
  CHECK(nothing.put(30, std::uint8_t{0}).code() == ErrorCode::kCorruption);  // and no codes
}

TEST_CASE("a forged file cannot bring in a slack that no move leaves") {
  for (const float slack :
       {-1.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Forgery forgery(bytes_of(small_index(KeyType::kInt64, Metric::kL2)));
    CHECK(forgery.put(forgery.section(7), slack).code() == ErrorCode::kCorruption);
  }
}

TEST_CASE("a file of version 1, without codes and slack, is read") {
  Bytes bytes = bytes_of(small_index(KeyType::kInt64, Metric::kL2));
  const std::size_t end = Forgery(bytes).section(7) - kSectionHeaderBytes;
  bytes.resize(end);
  const std::uint32_t version = 1;
  const std::uint64_t size = end;
  std::memcpy(bytes.data() + 8, &version, sizeof version);
  std::memcpy(bytes.data() + 16, &size, sizeof size);
  bytes[30] = 0;
  fix_checksums(bytes);
  Index index = Index::load_bytes(bytes.data(), bytes.size());
  CHECK(index.options().codes == upvec::Codes::kNone);
  use(index);
}

TEST_CASE("a forged file cannot claim a commit number that leaves none to follow") {
  Forgery forgery(bytes_of(small_index(KeyType::kInt64)));
  CHECK(forgery.put(48, ~std::uint64_t{0}).code() == ErrorCode::kCorruption);
  CHECK(forgery.put(48, ~std::uint64_t{0} - 1).code() == ErrorCode::kCorruption);
}

TEST_CASE("a forged file cannot claim sizes that it does not have") {
  const Bytes real = bytes_of(small_index(KeyType::kInt64));
  for (const std::size_t at : {24U, 56U, 64U}) {  // dim, end of the slots, live slots
    for (const std::uint32_t value : {0U, 1U, 7U, 0x7fffffffU, 0x80000000U, 0xffffffffU}) {
      CAPTURE(at);
      CAPTURE(value);
      CHECK(Forgery(real).put(at, value).code() == ErrorCode::kCorruption);
    }
  }
  CHECK(Forgery(real).put(32, std::uint32_t{3}).code() == ErrorCode::kCorruption);
  CHECK(Forgery(real).put(32, std::uint32_t{1} << 31).code() == ErrorCode::kCorruption);
  CHECK(Forgery(real).put(36, std::uint32_t{0}).code() == ErrorCode::kCorruption);
}

}  // namespace
