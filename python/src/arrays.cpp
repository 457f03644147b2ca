#include "arrays.hpp"

namespace upvec::python {

namespace py = pybind11;

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
