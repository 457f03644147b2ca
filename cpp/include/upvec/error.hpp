// The one exception type of the core. A failed call has changed nothing.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace upvec {

enum class ErrorCode : std::uint8_t {
  kInvalidArgument,  // an option or argument out of its range
  kDimension,        // vectors of another dimension than the index
  kInvalidRow,       // a row that cannot be stored: NaN, infinity, a zero vector under cosine
  kDuplicateKey,     // one key twice in a batch
  kCorruption,       // a file whose contents contradict themselves or their checksum
  kFile,             // the operating system refused a file operation
  kLimit,            // more rows or bytes than the format can address
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::vector<std::uint64_t> rows = {})
      : std::runtime_error(message), code_(code), rows_(std::move(rows)) {}

  static Error dimension(const char* what, std::uint64_t got, std::uint64_t want) {
    Error error(ErrorCode::kDimension, std::string(what) + " have dim " + std::to_string(got) +
                                           "; the index has dim " + std::to_string(want));
    error.got_ = got;
    error.want_ = want;
    return error;
  }

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  // Positions in the batch of the rows at fault, where rows are at fault.
  [[nodiscard]] const std::vector<std::uint64_t>& rows() const noexcept { return rows_; }
  // Of kDimension.
  [[nodiscard]] std::uint64_t got() const noexcept { return got_; }
  [[nodiscard]] std::uint64_t want() const noexcept { return want_; }

 private:
  ErrorCode code_;
  std::uint64_t got_ = 0;
  std::uint64_t want_ = 0;
  std::vector<std::uint64_t> rows_;
};

}  // namespace upvec
