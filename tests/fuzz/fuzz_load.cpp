// A file that says anything at all: it is refused, or it is an index like any other.
//
// Random bytes rarely get past the first checksum, so an input is a list of changes (position,
// byte) to the file of a real index, whose checksums are then put right again.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "checksum.hpp"
#include "upvec/index.hpp"

namespace {

constexpr std::size_t kDim = 3;
constexpr std::size_t kHeaderBytes = 96;
constexpr std::size_t kSectionHeaderBytes = 16;

using Bytes = std::vector<std::uint8_t>;

template <class Number>
Number number_at(const Bytes& bytes, std::size_t position) {
  Number number{};
  std::memcpy(&number, bytes.data() + position, sizeof number);
  return number;
}

void add_key(upvec::Keys& keys, std::int64_t key) {
  if (keys.type == upvec::KeyType::kInt64) {
    keys.add(key);
  } else {
    keys.add(std::string_view(std::to_string(key)));
  }
}

// Small enough that a random position often means something; some slots are free.
Bytes file_of_real_index(upvec::KeyType key_type, upvec::Metric metric,
                         upvec::Keep keep = upvec::Keep::kF32) {
  upvec::IndexOptions options;
  options.keep = keep;
  options.dim = kDim;
  options.m = 4;
  options.key_type = key_type;
  options.metric = metric;
  upvec::Index index(options);
  upvec::Keys keys;
  keys.type = key_type;
  std::vector<float> vectors;
  for (std::int64_t key = 0; key < 40; ++key) {
    add_key(keys, key);
    for (std::int64_t j = 0; j < static_cast<std::int64_t>(kDim); ++j) {
      vectors.push_back(static_cast<float>((key * 7 + j * 13) % 17 + 1));
    }
  }
  index.upsert(keys.span(), {vectors.data(), keys.size(), kDim});
  upvec::Keys gone;
  gone.type = key_type;
  for (const std::int64_t key : {3, 4, 5, 6}) {
    add_key(gone, key);
  }
  index.remove(gone.span());

  const std::string path = std::filesystem::temp_directory_path() / "upvec-fuzz-load.XXXXXX";
  std::string folder = path;
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror("mkdtemp");
    std::abort();
  }
  index.save(folder + "/index");
  std::ifstream file(folder + "/index", std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  file.close();
  std::filesystem::remove_all(folder);
  return bytes;
}

void seal(Bytes& bytes, std::size_t crc_position, std::size_t begin, std::size_t size) {
  const std::uint32_t crc = upvec::crc32c(bytes.data() + begin, size);
  std::memcpy(bytes.data() + crc_position, &crc, sizeof crc);
}

// Follows the sections as the changed file states them, as far as that is possible.
void seal_all(Bytes& bytes) {
  seal(bytes, kHeaderBytes - 4, 0, kHeaderBytes - 4);
  std::size_t at = kHeaderBytes;
  while (at + kSectionHeaderBytes <= bytes.size()) {
    const auto size = number_at<std::uint64_t>(bytes, at);
    const std::size_t payload = at + kSectionHeaderBytes;
    if (size > bytes.size() - payload) {
      return;
    }
    seal(bytes, at + 8, payload, size);
    at = payload + size;
  }
}

void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
  }
}

void use(upvec::Index& index) {
  require(index.check().ok(), "what is loaded keeps the invariants");
  const std::vector<float> vector(index.options().dim, 1.0F);
  const upvec::MatrixView one{vector.data(), 1, vector.size()};
  const auto all = index.exact_search(one, index.size() + 1).counts.at(0);
  require(static_cast<std::size_t>(all) == index.size(), "every row can be found");
  require(index.search(one, 5).counts.at(0) <= all, "no more hits than rows");
  require(
      static_cast<std::size_t>(index.search(one, index.size() + 1).counts.at(0)) == index.size(),
      "every row can be reached");
  upvec::Keys keys;
  keys.type = index.options().key_type;
  add_key(keys, 7);
  upvec::UpsertOptions options;
  options.threads = 1;
  index.upsert(keys.span(), one, options);
  require(index.check().ok(), "an upsert into what is loaded keeps the invariants");
  const upvec::Keys all_keys = index.keys();
  index.remove(all_keys.span(), options);
  require(index.size() == 0 && index.check().ok(), "what is loaded can be emptied");
  index.upsert(keys.span(), one, options);
  require(index.check().ok(), "and filled again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* changes, std::size_t size) {
  static const std::array<Bytes, 7> real = {
      file_of_real_index(upvec::KeyType::kInt64, upvec::Metric::kL2),
      file_of_real_index(upvec::KeyType::kInt64, upvec::Metric::kCosine),
      file_of_real_index(upvec::KeyType::kString, upvec::Metric::kL2),
      file_of_real_index(upvec::KeyType::kString, upvec::Metric::kInnerProduct),
      file_of_real_index(upvec::KeyType::kInt64, upvec::Metric::kCosine, upvec::Keep::kBf16),
      file_of_real_index(upvec::KeyType::kInt64, upvec::Metric::kCosine, upvec::Keep::kNone),
      file_of_real_index(upvec::KeyType::kInt64, upvec::Metric::kL2, upvec::Keep::kNone)};
  if (size == 0) {
    return 0;
  }
  Bytes bytes = real[changes[0] % real.size()];
  ++changes;
  --size;
  for (; size >= 3; size -= 3, changes += 3) {
    bytes[(changes[0] | std::size_t{changes[1]} << 8) % bytes.size()] = changes[2];
  }
  if (size == 2) {  // two bytes left over: cut the file short, and let the header say so
    bytes.resize(
        std::max(kHeaderBytes, (changes[0] | std::size_t{changes[1]} << 8) % bytes.size()));
    const std::uint64_t total = bytes.size();
    std::memcpy(bytes.data() + 16, &total, sizeof total);
  }
  seal_all(bytes);
  try {
    upvec::Index index = upvec::Index::load_bytes(bytes.data(), bytes.size());
    use(index);
  } catch (const upvec::Error&) {
  }
  return 0;
}
