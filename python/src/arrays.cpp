#include "arrays.hpp"

#include <bit>

namespace upvec::python {

namespace py = pybind11;

namespace {

// Most arrays share one dtype; one that was unpickled, say by another process, has a dtype of its
// own.
bool is_native_float32(PyObject* descr) {
  static PyObject* const shared = py::dtype::of<float>().release().ptr();
  if (descr == shared) return true;
  const auto dtype = py::reinterpret_borrow<py::dtype>(descr);
  constexpr char kNative = std::endian::native == std::endian::little ? '<' : '>';
  const char order = dtype.byteorder();
  static const int float32 = py::dtype::of<float>().num();
  return dtype.num() == float32 && (order == '=' || order == kNative);
}

}  // namespace

bool plain_queries(py::handle queries, MatrixView& view) {
  const auto& numpy = py::detail::npy_api::get();
  if (reinterpret_cast<PyTypeObject*>(Py_TYPE(queries.ptr())) != numpy.PyArray_Type_) return false;
  const auto* const array = py::detail::array_proxy(queries.ptr());
  constexpr int kReadable =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array->flags & kReadable) != kReadable) return false;
  if (!is_native_float32(array->descr)) return false;
  if (array->nd != 1 && array->nd != 2) return false;
  view.data = reinterpret_cast<const float*>(array->data);
  view.rows = array->nd == 1 ? 1 : static_cast<std::size_t>(array->dimensions[0]);
  view.dim = static_cast<std::size_t>(array->dimensions[array->nd - 1]);
  return true;
}

py::array to_array(Keys&& keys, std::vector<py::ssize_t> shape) {
  if (keys.type == KeyType::kInt64) return to_array(std::move(keys.ints), std::move(shape));
  py::array result(py::dtype("O"), std::move(shape));
  // A new object array holds null pointers, which numpy reads as None.
  auto** const objects = static_cast<PyObject**>(result.mutable_data());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string_view text = keys.span().string_at(i);
    PyObject* const string =
        PyUnicode_FromStringAndSize(text.data(), static_cast<py::ssize_t>(text.size()));
    if (string == nullptr) throw py::error_already_set();
    Py_XSETREF(objects[i], string);
  }
  return result;
}

}  // namespace upvec::python
