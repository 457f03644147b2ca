// Python columns turned into columns of keys that the core can read without the GIL.
//
// Thread safety: the conversions need the GIL. What they return owns its memory, refers to no
// Python object and may be used and destroyed without it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "upvec/types.hpp"

namespace upvec::python {

class KeyColumn {
 public:
  explicit KeyColumn(std::vector<std::int64_t> ints)
      : type_(KeyType::kInt64), ints_(std::move(ints)) {}
  // offsets has one entry more than there are strings.
  KeyColumn(std::vector<std::uint64_t> offsets, std::string bytes)
      : type_(KeyType::kString), offsets_(std::move(offsets)), bytes_(std::move(bytes)) {}

  // Valid while the column lives and stays where it is.
  [[nodiscard]] KeySpan span() const noexcept {
    return type_ == KeyType::kInt64 ? KeySpan::ints(ints_)
                                    : KeySpan::strings(offsets_, bytes_.data());
  }
  [[nodiscard]] std::size_t size() const noexcept { return span().size(); }

 private:
  KeyType type_;
  std::vector<std::int64_t> ints_;
  std::vector<std::uint64_t> offsets_;
  std::string bytes_;
};

// `what` names the column in error messages, as in "keys, row 3: got float, want int".
// All throw TypeError for a column or element of the wrong type and ValueError for a value that
// cannot be a key.

// A numpy array (n,) of integers, or a list, tuple or object array of int.
KeyColumn int_keys(pybind11::handle column, const std::string& what);
// A list, tuple, object array or numpy string array (n,) of str.
KeyColumn string_keys(pybind11::handle column, const std::string& what);

enum class ColumnType : std::uint8_t { kInt64, kString, kBytes, kFloat64, kBool, kTimestamp };

ColumnType column_type(const std::string& name);

// The type of the keys that encode_keys makes of columns of these types.
KeyType key_type(const std::vector<ColumnType>& types);

// One key a row from one column a type. A single int64 or timestamp column becomes integers, a
// single string or bytes column its bytes; otherwise the components of a row are laid end to end,
// each after its type and, where lengths vary, its length, so that different rows never give the
// same bytes.
KeyColumn encode_keys(const std::vector<ColumnType>& types, const pybind11::sequence& columns);

}  // namespace upvec::python
