// _core.KeyIndex and _core.first_occurrence: convert columns, release the GIL, call the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "key_columns.hpp"
#include "key_index.hpp"

void bind_key_index(pybind11::module_& m);

namespace upvec::python {
namespace {

namespace py = pybind11;

std::vector<ColumnType> column_types(const py::sequence& names) {
  if (py::isinstance<py::str>(names) || names.empty()) {
    throw py::value_error("types must be a list of at least one column type");
  }
  std::vector<ColumnType> types;
  for (const py::handle name : names) {
    types.push_back(column_type(py::cast<std::string>(name)));
  }
  return types;
}

std::vector<std::uint32_t> read_values(py::handle column, std::size_t rows) {
  const KeyColumn numbers = int_keys(column, "values");
  if (numbers.size() != rows) {
    throw py::value_error("got " + std::to_string(numbers.size()) + " values for " +
                          std::to_string(rows) + " keys");
  }
  std::vector<std::uint32_t> values(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    const std::int64_t value = numbers.span().int_at(i);
    if (value < 0 || value >= std::int64_t{kNoValue}) {
      throw py::value_error("values, row " + std::to_string(i) + ": " + std::to_string(value) +
                            " is outside [0, 2**32 - 2]");
    }
    values[i] = static_cast<std::uint32_t>(value);
  }
  return values;
}

class BoundKeyIndex {
 public:
  BoundKeyIndex(const py::sequence& types, std::uint64_t seed)
      : types_(column_types(types)), index_(key_type(types_), seed) {}

  [[nodiscard]] py::array_t<std::int64_t> find(const py::sequence& columns) const {
    const KeyColumn keys = encode_keys(types_, columns);
    py::array_t<std::int64_t> result(static_cast<py::ssize_t>(keys.size()));
    const std::span<std::int64_t> out(result.mutable_data(), keys.size());
    {
      const py::gil_scoped_release released;
      std::vector<std::uint32_t> values(keys.size());
      index_.find(keys.span(), values);
      for (std::size_t i = 0; i < values.size(); ++i) {
        out[i] = values[i] == kNoValue ? -1 : std::int64_t{values[i]};
      }
    }
    return result;
  }

  void assign(const py::sequence& columns, const py::object& values) {
    const KeyColumn keys = encode_keys(types_, columns);
    const std::vector<std::uint32_t> numbers = read_values(values, keys.size());
    const py::gil_scoped_release released;
    const std::scoped_lock writer(writer_);
    const KeySpan span = keys.span();
    for (std::size_t i = 0; i < span.size(); ++i) {
      prefetch_ahead(span, i);
      index_.assign(span, i, numbers[i]);
    }
  }

  [[nodiscard]] py::array_t<bool> erase(const py::sequence& columns) {
    const KeyColumn keys = encode_keys(types_, columns);
    py::array_t<bool> result(static_cast<py::ssize_t>(keys.size()));
    const std::span<bool> out(result.mutable_data(), keys.size());
    {
      const py::gil_scoped_release released;
      const std::scoped_lock writer(writer_);
      const KeySpan span = keys.span();
      for (std::size_t i = 0; i < span.size(); ++i) {
        prefetch_ahead(span, i);
        const std::optional<StoredKey> erased = index_.erase(span, i);
        out[i] = erased.has_value();
        if (erased) {
          // Finders look at records under the lock of the stripe alone, and none can reach this
          // one any more.
          index_.release(*erased);
        }
      }
    }
    return result;
  }

  [[nodiscard]] std::size_t size() const { return index_.size(); }
  [[nodiscard]] std::size_t nbytes() const { return index_.bytes(); }

 private:
  void prefetch_ahead(const KeySpan& span, std::size_t i) const {
    constexpr std::size_t kAhead = 8;
    if (i + kAhead < span.size()) {
      index_.prefetch(span, i + kAhead);
    }
  }

  std::vector<ColumnType> types_;
  KeyIndex index_;
  std::mutex writer_;  // the core takes one writer at a time; Python threads might bring two
};

// The batch is the caller's, perhaps an attacker's, so its hash is seeded anew in every process.
std::uint64_t process_seed() {
  static const std::uint64_t seed = [] {
    std::random_device device;
    return std::uint64_t{device()} << 32 | device();
  }();
  return seed;
}

py::array_t<std::int64_t> first_occurrence_of(const py::sequence& types,
                                              const py::sequence& columns) {
  const KeyColumn keys = encode_keys(column_types(types), columns);
  py::array_t<std::int64_t> result(static_cast<py::ssize_t>(keys.size()));
  const std::span<std::int64_t> out(result.mutable_data(), keys.size());
  {
    const py::gil_scoped_release released;
    std::vector<std::uint32_t> first(keys.size());
    first_occurrence(keys.span(), process_seed(), first);
    std::copy(first.begin(), first.end(), out.begin());
  }
  return result;
}

constexpr const char* kClassDoc = R"(Hash index from rows of key columns to numbers.

``find`` may be called from any thread at any time, also while another thread changes the index.

Parameters
----------
types : sequence of str
    The type of each key column: ``int64``, ``string``, ``bytes``, ``float64``, ``bool`` or
    ``timestamp``.
seed : int, default 0
    Seed of the hash, in [0, 2**64). Keep it secret where keys come from strangers.

Raises
------
ValueError
    If a type is unknown or there is none.

Examples
--------
>>> from upvec._core import KeyIndex
>>> index = KeyIndex(["string", "int64"])
>>> index.assign([["a", "b"], [1, 1]], [10, 11])
>>> index.find([["b", "b"], [1, 2]]).tolist()
[11, -1]
>>> len(index)
2
)";

constexpr const char* kFindDoc = R"(Look up the numbers of rows of keys.

Parameters
----------
columns : sequence
    One column a type, of equal lengths n: numpy arrays (n,) of int64, float64, bool or
    datetime64[us]; lists or object arrays of str or bytes. No nulls.

Returns
-------
ndarray of int64, shape (n,)
    The number of each row, or -1 where the key is absent.

Raises
------
TypeError
    If a column or an element has the wrong type.
ValueError
    If the columns are not as many as the types or not equally long, or hold NaN or NaT.
)";

constexpr const char* kAssignDoc = R"(Insert rows of keys, or overwrite their numbers.

Parameters
----------
columns : sequence
    As for `find`. If a key occurs twice, its last number stays.
values : array_like of int64, shape (n,)
    Numbers in [0, 2**32 - 2].

Raises
------
TypeError, ValueError
    As `find`, and for values out of range. Then nothing has changed.
)";

constexpr const char* kEraseDoc = R"(Take out rows of keys.

Parameters
----------
columns : sequence
    As for `find`.

Returns
-------
ndarray of bool, shape (n,)
    Whether the key was there. If a key occurs twice, the second time it is not.

Raises
------
TypeError, ValueError
    As `find`. Then nothing has changed.
)";

constexpr const char* kFirstOccurrenceDoc = R"(Find the repeated rows of a batch of keys.

Parameters
----------
types : sequence of str
    As for `KeyIndex`.
columns : sequence
    As for `KeyIndex.find`.

Returns
-------
ndarray of int64, shape (n,)
    The position of the first row with an equal key: its own where the key is new.

Raises
------
TypeError, ValueError
    As `KeyIndex.find`.

Examples
--------
>>> from upvec._core import first_occurrence
>>> first_occurrence(["string"], [["a", "b", "a"]]).tolist()
[0, 1, 0]
)";

void bind(py::module_& m) {
  py::class_<BoundKeyIndex>(m, "KeyIndex", kClassDoc)
      .def(py::init<const py::sequence&, std::uint64_t>(), py::arg("types"), py::kw_only(),
           py::arg("seed") = 0)
      .def("find", &BoundKeyIndex::find, py::arg("columns"), kFindDoc)
      .def("assign", &BoundKeyIndex::assign, py::arg("columns"), py::arg("values"), kAssignDoc)
      .def("erase", &BoundKeyIndex::erase, py::arg("columns"), kEraseDoc)
      .def("__len__", &BoundKeyIndex::size)
      .def("nbytes", &BoundKeyIndex::nbytes, "Memory held, in bytes.");
  m.def("first_occurrence", first_occurrence_of, py::arg("types"), py::arg("columns"),
        kFirstOccurrenceDoc);
}

}  // namespace
}  // namespace upvec::python

void bind_key_index(pybind11::module_& m) { upvec::python::bind(m); }
