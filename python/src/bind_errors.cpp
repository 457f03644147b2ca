// Errors of the core become the exceptions of upvec.errors, with their fields.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>

#include "upvec/error.hpp"

namespace {

namespace py = pybind11;

const char* class_name(upvec::ErrorCode code) {
  switch (code) {
    case upvec::ErrorCode::kDimension:
      return "DimensionError";
    case upvec::ErrorCode::kInvalidRow:
      return "InvalidRowError";
    case upvec::ErrorCode::kDuplicateKey:
      return "DuplicateKeyError";
    case upvec::ErrorCode::kCorruption:
      return "CorruptionError";
    case upvec::ErrorCode::kLimit:
      return "LimitError";
    case upvec::ErrorCode::kInvalidArgument:
    case upvec::ErrorCode::kFile:
      break;
  }
  return nullptr;
}

void raise(const upvec::Error& error) {
  if (error.code() == upvec::ErrorCode::kInvalidArgument) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return;
  }
  if (error.code() == upvec::ErrorCode::kFile) {
    PyErr_SetString(PyExc_OSError, error.what());
    return;
  }
  const py::object type = py::module_::import("upvec.errors").attr(class_name(error.code()));
  py::dict fields;
  if (error.code() == upvec::ErrorCode::kDimension) {
    fields["got"] = error.got();
    fields["want"] = error.want();
  } else if (!error.rows().empty()) {
    fields["rows"] = error.rows();
  }
  const py::object exception = type(error.what(), **fields);
  PyErr_SetObject(type.ptr(), exception.ptr());
}

}  // namespace

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const upvec::Error& error) {
      raise(error);
    }
  });
}
