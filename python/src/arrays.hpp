// numpy arrays from what the core returns, and views of numpy arrays for the core.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "key_columns.hpp"
#include "upvec/index.hpp"

namespace upvec::python {

using FloatMatrix = pybind11::array_t<float, pybind11::array::c_style>;

// Hands a vector's memory to numpy without a copy.
template <typename T>
pybind11::array_t<T> to_array(std::vector<T>&& values, std::vector<pybind11::ssize_t> shape) {
  auto owner = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owner->data();
  const pybind11::capsule free(owner.get(),
                               [](void* memory) { delete static_cast<std::vector<T>*>(memory); });
  owner.release();
  return pybind11::array_t<T>(std::move(shape), data, free);
}

inline MatrixView matrix_view(const FloatMatrix& array, const char* what) {
  if (array.ndim() != 2) {
    throw pybind11::value_error(std::string(what) + " have " + std::to_string(array.ndim()) +
                                " axes; want 2: (rows, dim)");
  }
  return {array.data(), static_cast<std::size_t>(array.shape(0)),
          static_cast<std::size_t>(array.shape(1))};
}

// An array of nothing in particular, of one or two axes.
template <typename T, typename... Sizes>
pybind11::array new_array(Sizes... sizes) {
  const std::array<pybind11::ssize_t, sizeof...(Sizes)> shape{sizes...};
  auto& numpy = pybind11::detail::npy_api::get();
  PyObject* const made =
      numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, pybind11::dtype::of<T>().release().ptr(),
                                  sizeof...(Sizes), shape.data(), nullptr, nullptr, 0, nullptr);
  if (made == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::array>(made);
}

template <typename T>
T* data_of(const pybind11::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

// Whether this is an array of float32, (q, dim) or (dim,), that can be read as it is: then `view`
// shows it. No subclass, as that may mean something else by it (a mask, for example).
bool plain_queries(pybind11::handle queries, MatrixView& view);

// int64 array, or object array of str.
pybind11::array to_array(Keys&& keys, std::vector<pybind11::ssize_t> shape);

inline KeyColumn key_column(KeyType type, pybind11::handle keys) {
  return type == KeyType::kInt64 ? int_keys(keys, "keys") : string_keys(keys, "keys");
}

}  // namespace upvec::python
