// _core.ScalarIndex and what goes with it: convert columns, release the GIL, call the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bitmap.hpp"
#include "scalar_index.hpp"

void bind_scalar_index(pybind11::module_& m);

namespace upvec::python {
namespace {

namespace py = pybind11;

using Words = py::array_t<std::uint64_t, py::array::c_style>;
using Ints = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;
using Rows = py::array_t<std::uint16_t, py::array::c_style>;
using Mask = std::optional<py::array_t<bool, py::array::c_style>>;

std::span<const std::uint64_t> view(const Words& words) {
  return {words.data(), static_cast<std::size_t>(words.size())};
}

Words new_words(std::size_t rows) {
  Words words(static_cast<py::ssize_t>(words_for(rows)));
  std::fill_n(words.mutable_data(), words.size(), std::uint64_t{0});
  return words;
}

std::size_t rows_of(const py::array& values) {
  if (values.ndim() != 1) throw py::value_error("wanted an array of one axis");
  return static_cast<std::size_t>(values.shape(0));
}

// A one-dimensional array whose elements lie one behind the other.
const std::byte* plain_data(const py::array& values) {
  if (rows_of(values) > 1 && values.strides(0) != values.itemsize()) {
    throw py::value_error("wanted an array without gaps");
  }
  return static_cast<const std::byte*>(values.data());
}

// What a conversion of cells reads; nothing of it needs the GIL.
struct RawCells {
  char kind = 'i';  // that of the numpy dtype
  std::size_t size = 0;
  const std::byte* values = nullptr;
  const std::byte* nulls = nullptr;
  std::size_t nulls_size = 0;
  std::span<const std::uint32_t> ends;
};

template <class Value>
Value load(const std::byte* values, std::size_t i) {
  Value value;  // an array that was read from a file need not be aligned
  std::memcpy(&value, values + i * sizeof(Value), sizeof(Value));
  return value;
}

ScalarCells cells_of(const RawCells& raw) {
  ScalarCells cells;
  cells.keys.resize(raw.size);
  cells.ends.assign(raw.ends.begin(), raw.ends.end());
  if (raw.nulls != nullptr) {
    cells.states.resize(raw.nulls_size, CellState::kValue);
    for (std::size_t i = 0; i < raw.nulls_size; ++i) {
      if (load<std::uint8_t>(raw.nulls, i) != 0) cells.states[i] = CellState::kNull;
    }
  }
  for (std::size_t i = 0; i < raw.size; ++i) {
    if (raw.kind == 'f') {
      const auto value = load<double>(raw.values, i);
      if (std::isnan(value)) {
        if (cells.states.empty()) cells.states.resize(raw.size, CellState::kValue);
        if (cells.states[i] == CellState::kValue) cells.states[i] = CellState::kUnordered;
      } else {
        cells.keys[i] = ordered_key(value);
      }
    } else if (raw.kind == 'b') {
      cells.keys[i] = load<std::uint8_t>(raw.values, i) != 0 ? 1 : 0;
    } else {
      cells.keys[i] = load<std::int64_t>(raw.values, i);
    }
  }
  return cells;
}

// (chunk, rows or None, values, null or None, ends or None); the arrays are held by the tuple.
std::pair<ScalarUpdate, RawCells> read_update(const py::tuple& parts) {
  if (parts.size() != 5) throw py::value_error("an update has five parts");
  ScalarUpdate update;
  RawCells raw;
  update.chunk = py::cast<std::size_t>(parts[0]);
  if (!parts[1].is_none()) {
    const auto rows = py::cast<Rows>(parts[1]);
    update.is_whole = false;
    update.rows.assign(rows.data(), rows.data() + rows.size());
  }
  const auto values = py::cast<py::array>(parts[2]);
  raw.kind = values.dtype().kind();
  const py::ssize_t wanted = raw.kind == 'b' ? 1 : 8;
  if (std::string("bifM").find(raw.kind) == std::string::npos || values.itemsize() != wanted) {
    throw py::type_error("values must be bool, int64, float64 or datetime64[us]");
  }
  raw.values = plain_data(values);
  raw.size = rows_of(values);
  if (!parts[3].is_none()) {
    const auto nulls = py::cast<py::array>(parts[3]);
    if (nulls.dtype().kind() != 'b') throw py::type_error("null must be bool");
    raw.nulls = plain_data(nulls);
    raw.nulls_size = rows_of(nulls);
  }
  if (!parts[4].is_none()) {
    const auto ends = py::cast<py::array>(parts[4]);
    if (ends.dtype().kind() != 'u' || ends.itemsize() != 4) {
      throw py::type_error("ends must be uint32");
    }
    raw.ends = {reinterpret_cast<const std::uint32_t*>(plain_data(ends)), rows_of(ends)};
  } else if (raw.nulls != nullptr && raw.nulls_size != raw.size) {
    throw py::value_error("null is as long as the values");
  }
  return {std::move(update), raw};
}

class BoundScalarIndex {
 public:
  explicit BoundScalarIndex(bool lists) : index_(lists) {}
  explicit BoundScalarIndex(ScalarIndex index) : index_(std::move(index)) {}

  [[nodiscard]] BoundScalarIndex advanced(std::size_t rows, const py::list& updates) const {
    std::vector<ScalarUpdate> read;
    std::vector<RawCells> raw;
    for (const py::handle update : updates) {
      auto [made, cells] = read_update(py::cast<py::tuple>(update));
      read.push_back(std::move(made));
      raw.push_back(cells);
    }
    const py::gil_scoped_release released;
    for (std::size_t i = 0; i < read.size(); ++i) read[i].cells = cells_of(raw[i]);
    return BoundScalarIndex(index_.advanced(rows, read));
  }

  [[nodiscard]] Words match(std::int64_t low, std::int64_t high) const {
    return answer([&](std::span<std::uint64_t> bits) { index_.match({low, high}, bits); });
  }
  [[nodiscard]] Words match_any(const Ints& keys) const {
    std::vector<std::int64_t> sorted(keys.data(), keys.data() + keys.size());
    return answer([&](std::span<std::uint64_t> bits) {
      std::sort(sorted.begin(), sorted.end());
      index_.match_any(sorted, bits);
    });
  }
  [[nodiscard]] Words match_marked(const Words& marks) const {
    const std::span<const std::uint64_t> chosen = view(marks);
    return answer([&](std::span<std::uint64_t> bits) { index_.match_marked(chosen, bits); });
  }
  [[nodiscard]] std::optional<Words> match_null() const {
    if (!index_.has_nulls()) return std::nullopt;
    return answer([&](std::span<std::uint64_t> bits) { index_.match_null(bits); });
  }
  [[nodiscard]] std::size_t count_keys(std::size_t below) const {
    const py::gil_scoped_release released;
    std::vector<std::uint64_t> marks(words_for(below));
    index_.mark_keys(marks);
    return count_bits(marks);
  }

  [[nodiscard]] std::size_t rows() const { return index_.rows(); }
  [[nodiscard]] std::size_t nbytes() const { return index_.bytes(); }

 private:
  template <class Match>
  [[nodiscard]] Words answer(Match&& matches) const {
    Words words = new_words(index_.rows());
    const std::span<std::uint64_t> bits(words.mutable_data(),
                                        static_cast<std::size_t>(words.size()));
    const py::gil_scoped_release released;
    matches(bits);
    return words;
  }

  ScalarIndex index_;
};

// --- Objects ------------------------------------------------------------------------------------

std::span<PyObject* const> objects_of(const py::array& values) {
  if (values.dtype().kind() != 'O') throw py::type_error("wanted an array of objects");
  return {reinterpret_cast<PyObject* const*>(plain_data(values)), rows_of(values)};
}

bool is_null(const Mask& null, std::size_t row) { return null && null->data()[row]; }

void check_masks(const Mask& null, std::size_t rows) {
  if (null && rows_of(*null) < rows) throw py::value_error("null is shorter than the values");
}

Rows changed_objects(const py::array& old, const Mask& old_null, const py::array& now,
                     const Mask& null, std::size_t old_rows, std::size_t rows) {
  const std::span<PyObject* const> before = objects_of(old);
  const std::span<PyObject* const> after = objects_of(now);
  old_rows = std::min(old_rows, rows);
  if (before.size() < old_rows || after.size() < rows || rows > kScalarChunkRows) {
    throw py::value_error("there are fewer objects, or more rows than a chunk has");
  }
  check_masks(old_null, old_rows);
  check_masks(null, rows);
  std::vector<std::uint16_t> changed;
  for (std::size_t row = 0; row < rows; ++row) {
    if (row >= old_rows || before[row] != after[row] ||
        is_null(old_null, row) != is_null(null, row)) {
      changed.push_back(static_cast<std::uint16_t>(row));
    }
  }
  return Rows(static_cast<py::ssize_t>(changed.size()), changed.data());
}

// Where there is nothing, or None; no mask if that is nowhere.
std::optional<py::array_t<bool>> none_mask(const py::array& values) {
  const std::span<PyObject* const> cells = objects_of(values);
  const auto is_none = [](PyObject* cell) { return cell == nullptr || cell == Py_None; };
  if (std::none_of(cells.begin(), cells.end(), is_none)) return std::nullopt;
  py::array_t<bool> mask(static_cast<py::ssize_t>(cells.size()));
  std::transform(cells.begin(), cells.end(), mask.mutable_data(), is_none);
  return mask;
}

// The code of a value: its place in `values`, to which a new one is added.
std::int64_t code_of(PyObject* value, PyObject* codes, PyObject* values) {
  PyObject* const known = PyDict_GetItemWithError(codes, value);
  if (known != nullptr) return PyLong_AsLongLong(known);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  const Py_ssize_t next = PyList_GET_SIZE(values);
  const auto code = py::reinterpret_steal<py::object>(PyLong_FromSsize_t(next));
  // The value first: a code that has none yet would be worse than a value without a code.
  if (!code || PyList_Append(values, value) != 0 || PyDict_SetItem(codes, value, code.ptr()) != 0) {
    throw py::error_already_set();
  }
  return next;
}

// Some rows of an array of objects, or its first `count`.
class ChosenCells {
 public:
  ChosenCells(const py::array& values, const Mask& null, const std::optional<Rows>& rows,
              std::size_t count)
      : cells_(objects_of(values)), null_(null), rows_(rows), size_(rows ? rows_of(*rows) : count) {
    if (!rows && count > cells_.size()) throw py::value_error("there are fewer objects");
    check_masks(null, rows ? cells_.size() : count);
  }

  [[nodiscard]] std::size_t size() const { return size_; }
  // nullptr where there is nothing, or None, or null.
  [[nodiscard]] PyObject* cell(std::size_t i) const {
    const std::size_t row = rows_ ? rows_->data()[i] : i;
    if (row >= cells_.size()) throw py::value_error("a row beyond the objects");
    return cells_[row] == Py_None || is_null(null_, row) ? nullptr : cells_[row];
  }

 private:
  std::span<PyObject* const> cells_;
  const Mask& null_;
  const std::optional<Rows>& rows_;
  std::size_t size_;
};

py::tuple encode_objects(const py::array& values, const Mask& null, const std::optional<Rows>& rows,
                         std::size_t count, const py::dict& codes, const py::list& names) {
  const ChosenCells cells(values, null, rows, count);
  py::array_t<std::int64_t> keys(static_cast<py::ssize_t>(cells.size()));
  py::array_t<bool> is_none(static_cast<py::ssize_t>(cells.size()));
  for (std::size_t i = 0; i < cells.size(); ++i) {
    PyObject* const cell = cells.cell(i);
    is_none.mutable_data()[i] = cell == nullptr;
    keys.mutable_data()[i] = cell == nullptr ? 0 : code_of(cell, codes.ptr(), names.ptr());
  }
  return py::make_tuple(keys, is_none);
}

std::optional<std::int64_t> element_key(PyObject* element, const std::string& kind,
                                        const py::dict& codes, const py::list& names) {
  if (kind == "int64") {
    const long long value = PyLong_AsLongLong(element);
    if (value == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return value;
  }
  if (kind == "float64") {
    const double value = PyFloat_AsDouble(element);
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    if (std::isnan(value)) return std::nullopt;
    return ordered_key(value);
  }
  return code_of(element, codes.ptr(), names.ptr());
}

py::tuple encode_lists(const py::array& values, const Mask& null, const std::optional<Rows>& rows,
                       std::size_t count, const std::string& kind, const py::dict& codes,
                       const py::list& names) {
  const ChosenCells cells(values, null, rows, count);
  std::vector<std::int64_t> keys;
  std::vector<std::uint32_t> ends(cells.size());
  py::array_t<bool> is_none(static_cast<py::ssize_t>(cells.size()));
  for (std::size_t i = 0; i < cells.size(); ++i) {
    PyObject* const cell = cells.cell(i);
    is_none.mutable_data()[i] = cell == nullptr;
    if (cell != nullptr) {
      const auto list = py::reinterpret_steal<py::object>(PySequence_Fast(cell, "wanted a list"));
      if (!list) throw py::error_already_set();
      for (Py_ssize_t at = 0; at < PySequence_Fast_GET_SIZE(list.ptr()); ++at) {
        const auto key = element_key(PySequence_Fast_GET_ITEM(list.ptr(), at), kind, codes, names);
        if (key) keys.push_back(*key);
      }
    }
    if (keys.size() > 0xffffffffU) throw py::value_error("too many elements in a chunk");
    ends[i] = static_cast<std::uint32_t>(keys.size());
  }
  const auto elements = static_cast<py::ssize_t>(keys.size());
  return py::make_tuple(to_array(std::move(keys), {elements}),
                        to_array(std::move(ends), {is_none.size()}), is_none);
}

// --- Bitmaps ------------------------------------------------------------------------------------

std::size_t count_of(const Words& words) {
  const std::span<const std::uint64_t> bits = view(words);
  const py::gil_scoped_release released;
  return count_bits(bits);
}

py::array_t<std::int64_t> rids_of(const Words& words) {
  const std::span<const std::uint64_t> bits = view(words);
  std::vector<std::int64_t> rows;
  {
    const py::gil_scoped_release released;
    rows = rows_of_bits(bits);
  }
  const auto count = static_cast<py::ssize_t>(rows.size());
  return to_array(std::move(rows), {count});
}

Words bits_of_rids(const Ints& rids, std::size_t rows) {
  Words words = new_words(rows);
  const std::span<std::uint64_t> bits(words.mutable_data(), words_for(rows));
  const std::int64_t* const first = rids.data();
  const std::span<const std::int64_t> given(first, static_cast<std::size_t>(rids.size()));
  bool fit = false;
  {
    const py::gil_scoped_release released;
    fit = set_bits(given, bits);
  }
  if (!fit) throw py::value_error("a row id is beyond the bits");
  return words;
}

constexpr const char* kScalarIndexDoc =
    R"(Index from the values of a column to its rows; never changes.

Values are int64 keys: integers and points in time as they are, bool as 0 and 1, floats
by :func:`ordered_key`, strings by codes that the caller gives them. Answers are bits of
rows: uint64 (words,), in which row r is bit r % 64 of word r // 64. Every call releases
the GIL.

Parameters
----------
lists : bool, default False
    A row has a list of values, and is found by any of them.

Examples
--------
>>> import numpy as np
>>> from upvec._core import ScalarIndex
>>> index = ScalarIndex().advanced(4, [(0, None, np.array([7, 5, 7, 1]), None, None)])
>>> index.match(7, 7).tolist(), index.match(1, 6).tolist()
([5], [10])
>>> index = index.advanced(4, [(0, np.array([0], np.uint16), np.array([5]), None, None)])
>>> index.match(7, 7).tolist()
[4]
)";

constexpr const char* kScalarAdvancedDoc = R"(Return the index of other contents.

Parameters
----------
rows : int
    How many rows there are.
updates : list of tuple
    One for each chunk of 2,048 rows that differs: its number; the rows in it that
    differ, uint16 and ascending, or None for all of them; the values of these rows,
    bool, int64, float64 or datetime64[us], of lists the elements of all rows, one
    after another; where they are null, bool, or None; and of lists where the elements
    of each row end, uint32, else None.

Raises
------
TypeError, ValueError
    An update that does not fit.
)";

void bind_scalars(py::module_& m) {
  py::class_<BoundScalarIndex>(m, "ScalarIndex", kScalarIndexDoc)
      .def(py::init<bool>(), py::kw_only(), py::arg("lists") = false)
      .def("advanced", &BoundScalarIndex::advanced, py::arg("rows"), py::arg("updates"),
           kScalarAdvancedDoc)
      .def("match", &BoundScalarIndex::match, py::arg("low"), py::arg("high"),
           "Rows with a key from low to high, both among them.")
      .def("match_any", &BoundScalarIndex::match_any, py::arg("keys"), "Rows with one of the keys.")
      .def("match_marked", &BoundScalarIndex::match_marked, py::arg("marks"),
           "Rows with a key whose bit is set in marks.")
      .def("match_null", &BoundScalarIndex::match_null, "Rows that are null; None: there are none.")
      .def("count_keys", &BoundScalarIndex::count_keys, py::arg("below"),
           "How many of the keys from 0 to below have rows.")
      .def("nbytes", &BoundScalarIndex::nbytes, "Memory held, in bytes.")
      .def("__len__", &BoundScalarIndex::rows);
  m.def("ordered_key", &ordered_key, py::arg("value"),
        "The key of a float, in the order of floats. Not for NaN.");
  m.def("changed_objects", &changed_objects, py::arg("old"), py::arg("old_null").none(true),
        py::arg("new"), py::arg("null").none(true), py::arg("old_rows"), py::arg("rows"),
        "The first rows of two chunks that do not have the very same object; uint16.");
  m.def("none_mask", &none_mask, py::arg("values"),
        "Where an array of objects has None; no array if that is nowhere.");
  m.def("encode_objects", &encode_objects, py::arg("values"), py::arg("null").none(true),
        py::arg("rows").none(true), py::arg("count"), py::arg("codes"), py::arg("names"),
        "Codes of some rows, or of the first count, and which are null. New values are added to\n"
        "names, in which they have their codes, and codes.");
  m.def("encode_lists", &encode_lists, py::arg("values"), py::arg("null").none(true),
        py::arg("rows").none(true), py::arg("count"), py::arg("kind"), py::arg("codes"),
        py::arg("names"),
        "Keys of the elements, where those of each row end, and which rows are null; else as\n"
        "`encode_objects`. NaN, which no condition finds, is left out.");
  m.def("count_bits", &count_of, py::arg("words"), "How many bits are set.");
  m.def("rids_of_bits", &rids_of, py::arg("words"),
        "The rows whose bits are set; int64, in order.");
  m.def("bits_of_rids", &bits_of_rids, py::arg("rids"), py::arg("rows"),
        "Bits of as many rows, in which these are set.");
}

}  // namespace
}  // namespace upvec::python

void bind_scalar_index(pybind11::module_& m) { upvec::python::bind_scalars(m); }
