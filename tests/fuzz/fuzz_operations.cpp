// Any sequence of writes: the index answers as a plain map does, and every invariant holds after.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "upvec/index.hpp"

namespace {

constexpr std::size_t kDim = 4;
using Vector = std::array<float, kDim>;

void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
  }
}

// Reads zeros past the end, so every input is a program.
class Program {
 public:
  Program(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
  [[nodiscard]] bool at_end() const { return next_ >= size_; }
  std::uint8_t byte() { return at_end() ? std::uint8_t{0} : bytes_[next_++]; }
  // Few keys, so that they recur; few vectors, so that they coincide. Two bytes make a row.
  std::int64_t key() { return byte() % 64; }
  Vector vector() {
    Vector vector{};
    std::uint32_t state = byte();
    for (float& value : vector) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state >> 28U);
    }
    return vector;
  }

 private:
  const std::uint8_t* bytes_;
  std::size_t size_;
  std::size_t next_ = 0;
};

class Checked {
 public:
  explicit Checked(const upvec::IndexOptions& options) : index_(options) {}

  void upsert(Program& program) {
    std::vector<std::int64_t> keys(1 + program.byte() % 32U);
    std::vector<float> vectors;
    for (std::int64_t& key : keys) {
      key = program.key();
      const Vector vector = program.vector();
      vectors.insert(vectors.end(), vector.begin(), vector.end());
      model_[key] = vector;
    }
    upvec::UpsertOptions options;
    options.threads = 1;
    options.duplicates = upvec::Duplicates::kLast;
    index_.upsert(upvec::KeySpan::ints(keys), {vectors.data(), keys.size(), kDim}, options);
  }

  void remove(Program& program) {
    const std::vector<std::int64_t> keys = {program.key()};
    upvec::WriteOptions options;
    options.threads = 1;
    const bool removed = index_.remove(upvec::KeySpan::ints(keys), options).at(0) != 0;
    require(removed == (model_.erase(keys[0]) == 1), "remove says whether there was something");
  }

  void search(Program& program) const {
    const Vector query = program.vector();
    const upvec::SearchResult found = index_.search({query.data(), 1, kDim}, 5);
    const auto count = static_cast<std::size_t>(found.counts.at(0));
    require(count <= model_.size(), "no more hits than rows");
    for (std::size_t i = 0; i < count; ++i) {
      require(model_.contains(found.keys.ints.at(i)), "a hit is a stored key");
      require(i == 0 || found.distances[i - 1] <= found.distances[i], "nearest first");
    }
  }

  void compare() const {
    require(index_.size() == model_.size(), "as many rows as the map");
    const upvec::CheckReport report = index_.check();
    require(report.ok(), "the graph's invariants");
    std::vector<std::int64_t> keys;
    for (const auto& [key, vector] : model_) {
      keys.push_back(key);
    }
    std::vector<float> vectors(keys.size() * kDim);
    std::vector<std::uint8_t> found(keys.size());
    index_.get(upvec::KeySpan::ints(keys), vectors.data(), found.data());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      require(found[i] != 0, "every key is found");
      const Vector& stored = model_.at(keys[i]);
      for (std::size_t j = 0; j < kDim; ++j) {
        require(vectors[i * kDim + j] == stored[j], "vectors are as written");
      }
    }
  }

 private:
  upvec::Index index_;
  std::map<std::int64_t, Vector> model_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  Program program(bytes, size);
  upvec::IndexOptions options;
  options.dim = kDim;
  options.m = 4;  // small, so that lists fill up and are pruned
  options.ef_construction = 16;
  Checked checked(options);
  while (!program.at_end()) {
    switch (program.byte() % 4) {
      case 0:
      case 1:
        checked.upsert(program);
        break;
      case 2:
        checked.remove(program);
        break;
      default:
        checked.search(program);
    }
  }
  checked.compare();
  return 0;
}
