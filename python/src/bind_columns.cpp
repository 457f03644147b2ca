// _core.gather: cells of a column that lies in chunks, by row id.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

void bind_columns(pybind11::module_& m);

namespace upvec::python {
namespace {

namespace py = pybind11;

using Rids = py::array_t<std::int64_t, py::array::c_style>;

// Arrays of one dtype, each of `1 << bits` rows; None for one that has nothing.
class Chunks {
 public:
  Chunks(const py::tuple& chunks, int bits, const py::dtype& dtype)
      : chunks_(chunks),
        array_type_(py::detail::npy_api::get().PyArray_Type_),
        bits_(bits),
        is_object_(dtype.kind() == 'O'),
        cell_bytes_(dtype.itemsize()) {}

  // The cell of a row; nullptr in a chunk that has nothing.
  [[nodiscard]] const std::byte* cell(std::int64_t rid) {
    const std::int64_t chunk = rid >> bits_;
    if (chunk != chunk_) enter(chunk, rid);
    if (data_ == nullptr) return nullptr;
    const std::int64_t offset = rid - (chunk << bits_);
    if (offset >= rows_) refuse(rid);
    return data_ + offset * cell_bytes_;
  }

 private:
  // Arrays are checked as they are met: a look at all of them would cost more than a few rows.
  void enter(std::int64_t chunk, std::int64_t rid) {
    if (chunk < 0 || chunk >= static_cast<std::int64_t>(chunks_.size())) refuse(rid);
    chunk_ = chunk;
    data_ = nullptr;
    PyObject* const found = PyTuple_GET_ITEM(chunks_.ptr(), chunk);
    if (found == Py_None) return;
    if (Py_TYPE(found) != array_type_) throw py::type_error("a chunk is no array");
    const auto* const array = py::detail::array_proxy(found);
    const bool has_rows = array->nd > 0 && array->dimensions[0] > 0;
    if (!has_rows || (array->flags & py::array::c_style) == 0 ||
        cell_bytes_of(found) != cell_bytes_ ||
        (py::detail::array_descriptor_proxy(array->descr)->kind == 'O') != is_object_) {
      throw py::type_error("a chunk has another dtype, or gaps");
    }
    data_ = reinterpret_cast<const std::byte*>(array->data);
    rows_ = array->dimensions[0];
  }

  static py::ssize_t cell_bytes_of(PyObject* found) {
    const auto array = py::reinterpret_borrow<py::array>(found);
    return array.nbytes() / array.shape(0);
  }

  [[noreturn]] void refuse(std::int64_t rid) const {
    throw py::index_error("there is no row " + std::to_string(rid) + " in " +
                          std::to_string(chunks_.size()) + " chunks");
  }

  const py::tuple& chunks_;
  PyTypeObject* array_type_;
  int bits_;
  bool is_object_;
  py::ssize_t cell_bytes_;
  // The chunk that was met last.
  std::int64_t chunk_ = std::numeric_limits<std::int64_t>::min();  // that no row is in
  const std::byte* data_ = nullptr;
  std::int64_t rows_ = 0;
};

// `bytes` is the size of a cell, as a constant where it is a usual one.
template <typename Bytes>
void copy_cells(Chunks& chunks, const Rids& rids, Bytes bytes, std::byte* to) {
  for (py::ssize_t row = 0; row < rids.size(); ++row, to += bytes) {
    const std::byte* const cell = chunks.cell(rids.data()[row]);
    if (cell == nullptr) throw py::type_error("a chunk is None");
    std::memcpy(to, cell, bytes);
  }
}

// `to` holds nothing yet.
void copy_objects(Chunks& chunks, const Rids& rids, PyObject** to) {
  for (py::ssize_t row = 0; row < rids.size(); ++row) {
    const std::byte* const cell = chunks.cell(rids.data()[row]);
    if (cell == nullptr) throw py::type_error("a chunk is None");
    PyObject* object = nullptr;
    std::memcpy(&object, cell, sizeof(object));
    to[row] = object == nullptr ? Py_None : object;
    Py_INCREF(to[row]);
  }
}

// Looked at as a whole only where that is less than to look for each row.
bool is_all_none(const py::tuple& nulls, const Rids& rids) {
  if (static_cast<py::ssize_t>(nulls.size()) > rids.size()) return false;
  return std::all_of(nulls.begin(), nulls.end(), [](py::handle mask) { return mask.is_none(); });
}

std::optional<py::array_t<bool>> gather_nulls(const py::tuple& nulls, int bits, const Rids& rids) {
  if (is_all_none(nulls, rids)) return std::nullopt;
  Chunks chunks(nulls, bits, py::dtype::of<bool>());
  std::optional<py::array_t<bool>> mask;
  for (py::ssize_t row = 0; row < rids.size(); ++row) {
    const std::byte* const cell = chunks.cell(rids.data()[row]);
    if (cell == nullptr || *cell == std::byte{0}) continue;
    if (!mask) {
      mask.emplace(rids.size());
      std::memset(mask->mutable_data(), 0, static_cast<std::size_t>(rids.size()));
    }
    mask->mutable_data()[row] = true;
  }
  return mask;
}

py::tuple gather(const py::dtype& dtype, const py::tuple& chunks, const py::tuple& nulls, int bits,
                 const Rids& rids) {
  if (rids.ndim() != 1) throw py::value_error("wanted row ids of one axis");
  py::array values(dtype, rids.size());
  Chunks cells(chunks, bits, dtype);
  auto* const to = static_cast<std::byte*>(values.mutable_data());
  if (dtype.kind() == 'O') {
    copy_objects(cells, rids, reinterpret_cast<PyObject**>(to));
  } else if (dtype.itemsize() == 8) {
    copy_cells(cells, rids, std::integral_constant<std::size_t, 8>{}, to);
  } else {
    copy_cells(cells, rids, static_cast<std::size_t>(dtype.itemsize()), to);
  }
  return py::make_tuple(values, gather_nulls(nulls, bits, rids));
}

}  // namespace
}  // namespace upvec::python

void bind_columns(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("gather", &upvec::python::gather, py::arg("dtype"), py::arg("chunks"), py::arg("nulls"),
        py::arg("bits"), py::arg("rids"),
        "The cells of some rows of a column in chunks of `1 << bits` rows, and which of them are\n"
        "null; no mask if none is.");
}
