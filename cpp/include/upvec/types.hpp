// Vocabulary types shared by the public interface: views of keys and vectors, options, results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace upvec {

enum class Metric : std::uint8_t {
  kL2,            // squared Euclidean distance
  kInnerProduct,  // 1 - dot
  kCosine,        // 1 - dot of the normalised vectors
};

enum class KeyType : std::uint8_t { kInt64, kString };

// By what the graph is built and walked; answers are always measured by what is kept of vectors.
enum class Codes : std::uint8_t {
  kNone,  // what is kept of vectors
  kInt8,  // a byte a dimension
};

// What is kept of vectors. The numbers are part of the file format.
enum class Keep : std::uint8_t {
  kF32 = 0,
  kBf16 = 1,  // every component rounded to bfloat16: off by at most 2^-8 of itself
  kNone = 2,  // their codes alone: off by at most half of the vector's largest magnitude / 127
};

enum class Mode : std::uint8_t { kUpsert, kInsertOnly, kUpdateOnly };

// What to do with a key that occurs more than once in a batch.
enum class Duplicates : std::uint8_t { kError, kFirst, kLast };

// What became of one row of a batch. The numbers are part of the Python interface.
enum class Outcome : std::uint8_t {
  kInserted = 0,
  kUpdated = 1,
  kUnchanged = 2,
  kSkipped = 3,
  kStale = 4,
  kConflict = 5,
  kRejected = 6,
  kDeleted = 7,
};

// A borrowed column of keys: 64-bit integers, or UTF-8 strings laid end to end.
// String i is bytes[offsets[i] .. offsets[i + 1]).
class KeySpan {
 public:
  KeySpan() = default;
  static KeySpan ints(std::span<const std::int64_t> keys) {
    KeySpan span;
    span.type_ = KeyType::kInt64;
    span.size_ = keys.size();
    span.ints_ = keys.data();
    return span;
  }
  // offsets has one entry more than there are strings.
  static KeySpan strings(std::span<const std::uint64_t> offsets, const char* bytes) {
    KeySpan span;
    span.type_ = KeyType::kString;
    span.size_ = offsets.empty() ? 0 : offsets.size() - 1;
    span.offsets_ = offsets.data();
    span.bytes_ = bytes;
    return span;
  }

  [[nodiscard]] KeyType type() const noexcept { return type_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::int64_t int_at(std::size_t i) const noexcept { return ints_[i]; }
  [[nodiscard]] std::string_view string_at(std::size_t i) const noexcept {
    return {bytes_ + offsets_[i], static_cast<std::size_t>(offsets_[i + 1] - offsets_[i])};
  }

 private:
  KeyType type_ = KeyType::kInt64;
  std::size_t size_ = 0;
  const std::int64_t* ints_ = nullptr;
  const std::uint64_t* offsets_ = nullptr;
  const char* bytes_ = nullptr;
};

// A borrowed row-major matrix of float32.
struct MatrixView {
  const float* data = nullptr;
  std::size_t rows = 0;
  std::size_t dim = 0;

  [[nodiscard]] const float* row(std::size_t i) const noexcept { return data + i * dim; }
};

}  // namespace upvec
