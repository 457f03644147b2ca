// numpy arrays from what the core returns, and views of numpy arrays for the core.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

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

// int64 array, or object array of str.
pybind11::array to_array(Keys&& keys, std::vector<pybind11::ssize_t> shape);

inline KeyColumn key_column(KeyType type, pybind11::handle keys) {
  return type == KeyType::kInt64 ? int_keys(keys, "keys") : string_keys(keys, "keys");
}

}  // namespace upvec::python
