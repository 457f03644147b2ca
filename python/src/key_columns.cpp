#include "key_columns.hpp"

#include <pybind11/numpy.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

namespace upvec::python {
namespace {

namespace py = pybind11;

struct NamedType {
  const char* name;
  ColumnType type;
};

constexpr NamedType kTypes[] = {
    {"int64", ColumnType::kInt64}, {"string", ColumnType::kString},
    {"bytes", ColumnType::kBytes}, {"float64", ColumnType::kFloat64},
    {"bool", ColumnType::kBool},   {"timestamp", ColumnType::kTimestamp},
};

std::string row(const std::string& what, std::size_t i) {
  return what + ", row " + std::to_string(i) + ": ";
}

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

[[noreturn]] void throw_element_type(const std::string& what, std::size_t i, py::handle got,
                                     const char* want) {
  throw py::type_error(row(what, i) + "got " + type_name(got) + ", want " + want);
}

bool is_array(py::handle column) { return py::isinstance<py::array>(column); }

py::array one_dimensional(py::handle column, const std::string& what) {
  auto array = py::reinterpret_borrow<py::array>(column);
  if (array.ndim() != 1) {
    throw py::value_error(what + ": got an array of " + std::to_string(array.ndim()) +
                          " dimensions, want 1");
  }
  return array;
}

std::string dtype_name(const py::array& array) { return py::str(array.dtype()); }

// The Python objects of a list, tuple, object array or array of numpy strings; `kinds` are the
// kinds of numpy dtype taken. A tuple, as a list could change under our feet.
py::tuple objects(py::handle column, const char* kinds, const std::string& what, const char* want) {
  if (is_array(column)) {
    const py::array array = one_dimensional(column, what);
    if (std::strchr(kinds, array.dtype().kind()) == nullptr) {
      throw py::type_error(what + ": got an array of " + dtype_name(array) + ", want " + want);
    }
    return py::tuple(array.attr("tolist")());
  }
  if (!py::isinstance<py::list>(column) && !py::isinstance<py::tuple>(column)) {
    throw py::type_error(what + ": got " + type_name(column) + ", want an array or list of " +
                         want);
  }
  return py::tuple(py::reinterpret_borrow<py::object>(column));
}

// Elements of an array whose dtype has been checked, converted to T. A copy, so that another
// thread that writes to the array cannot change a key between its hash and its use.
template <class T>
std::vector<T> elements(const py::array& array) {
  const py::array_t<T, py::array::c_style | py::array::forcecast> typed(array);
  return std::vector<T>(typed.data(), typed.data() + typed.size());
}

std::int64_t to_int(py::handle item, const std::string& what, std::size_t i) {
  if (PyBool_Check(item.ptr()) || !PyIndex_Check(item.ptr())) {
    throw_element_type(what, i, item, "int");
  }
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(item.ptr()));
  if (!number) {
    throw py::error_already_set();
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0) {
    throw py::value_error(row(what, i) + py::str(number).cast<std::string>() +
                          " does not fit into int64");
  }
  return value;
}

std::vector<std::int64_t> read_ints(py::handle column, const std::string& what) {
  if (is_array(column)) {
    const py::array array = one_dimensional(column, what);
    const char kind = array.dtype().kind();
    if (kind == 'i' || (kind == 'u' && array.itemsize() < 8)) {
      return elements<std::int64_t>(array);
    }
  }
  const py::tuple items = objects(column, "O", what, "int");
  std::vector<std::int64_t> ints(items.size());
  for (std::size_t i = 0; i < ints.size(); ++i) {
    ints[i] = to_int(items[i], what, i);
  }
  return ints;
}

std::vector<std::int64_t> read_timestamps(py::handle column, const std::string& what) {
  if (!is_array(column)) {
    throw py::type_error(what + ": got " + type_name(column) + ", want an array of datetime64[us]");
  }
  const py::array array = one_dimensional(column, what);
  if (dtype_name(array) != "datetime64[us]") {
    throw py::type_error(what + ": got an array of " + dtype_name(array) + ", want datetime64[us]");
  }
  // view() would reinterpret the bytes of the other byte order; astype() converts.
  std::vector<std::int64_t> ints = elements<std::int64_t>(array.attr("astype")("int64"));
  for (std::size_t i = 0; i < ints.size(); ++i) {
    if (ints[i] == std::numeric_limits<std::int64_t>::min()) {
      throw py::value_error(row(what, i) + "NaT cannot be a key");
    }
  }
  return ints;
}

std::int64_t to_float_bits(double value, const std::string& what, std::size_t i) {
  if (std::isnan(value)) {
    throw py::value_error(row(what, i) + "NaN cannot be a key");
  }
  return std::bit_cast<std::int64_t>(value == 0.0 ? 0.0 : value);  // one key for both zeros
}

std::vector<std::int64_t> read_floats(py::handle column, const std::string& what) {
  std::vector<std::int64_t> bits;
  if (is_array(column) && py::reinterpret_borrow<py::array>(column).dtype().kind() == 'f') {
    const std::vector<double> floats = elements<double>(one_dimensional(column, what));
    bits.resize(floats.size());
    for (std::size_t i = 0; i < bits.size(); ++i) {
      bits[i] = to_float_bits(floats[i], what, i);
    }
    return bits;
  }
  const py::tuple items = objects(column, "O", what, "float");
  bits.resize(items.size());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const py::object item = items[i];
    if (!PyFloat_Check(item.ptr())) {
      throw_element_type(what, i, item, "float");
    }
    bits[i] = to_float_bits(PyFloat_AS_DOUBLE(item.ptr()), what, i);
  }
  return bits;
}

std::vector<std::int64_t> read_bools(py::handle column, const std::string& what) {
  if (is_array(column) && py::reinterpret_borrow<py::array>(column).dtype().kind() == 'b') {
    return elements<std::int64_t>(one_dimensional(column, what));
  }
  const py::tuple items = objects(column, "O", what, "bool");
  std::vector<std::int64_t> bools(items.size());
  for (std::size_t i = 0; i < bools.size(); ++i) {
    const py::object item = items[i];
    if (!PyBool_Check(item.ptr())) {
      throw_element_type(what, i, item, "bool");
    }
    bools[i] = item.ptr() == Py_True ? 1 : 0;
  }
  return bools;
}

// Views into the Python objects of `owner`, which keeps them alive.
struct Texts {
  py::object owner;
  std::vector<std::string_view> views;
};

std::string_view utf8(py::handle item, const std::string& what, std::size_t i) {
  if (!PyUnicode_Check(item.ptr())) {
    throw_element_type(what, i, item, "str");
  }
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(item.ptr(), &length);
  if (text == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
      throw py::error_already_set();
    }
    PyErr_Clear();
    throw py::value_error(row(what, i) + "the string holds a lone surrogate, which has no UTF-8");
  }
  return {text, static_cast<std::size_t>(length)};
}

Texts read_strings(py::handle column, const std::string& what) {
  const py::tuple items = objects(column, "OU", what, "str");
  Texts texts{items, std::vector<std::string_view>(items.size())};
  for (std::size_t i = 0; i < texts.views.size(); ++i) {
    texts.views[i] = utf8(PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)), what, i);
  }
  return texts;
}

Texts read_bytes(py::handle column, const std::string& what) {
  const py::tuple items = objects(column, "OS", what, "bytes");
  Texts texts{items, std::vector<std::string_view>(items.size())};
  for (std::size_t i = 0; i < texts.views.size(); ++i) {
    PyObject* const item = PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i));
    if (!PyBytes_Check(item)) {
      throw_element_type(what, i, item, "bytes");
    }
    texts.views[i] = {PyBytes_AS_STRING(item), static_cast<std::size_t>(PyBytes_GET_SIZE(item))};
  }
  return texts;
}

KeyColumn laid_end_to_end(const Texts& texts) {
  std::vector<std::uint64_t> offsets(texts.views.size() + 1);
  for (std::size_t i = 0; i < texts.views.size(); ++i) {
    offsets[i + 1] = offsets[i] + texts.views[i].size();
  }
  std::string bytes;
  bytes.reserve(offsets.back());
  for (const std::string_view view : texts.views) {
    bytes += view;
  }
  return {std::move(offsets), std::move(bytes)};
}

bool has_texts(ColumnType type) {
  return type == ColumnType::kString || type == ColumnType::kBytes;
}

// Empty for columns of texts.
std::vector<std::int64_t> read_words(ColumnType type, py::handle column, const std::string& what) {
  switch (type) {
    case ColumnType::kInt64:
      return read_ints(column, what);
    case ColumnType::kTimestamp:
      return read_timestamps(column, what);
    case ColumnType::kFloat64:
      return read_floats(column, what);
    case ColumnType::kBool:
      return read_bools(column, what);
    case ColumnType::kString:
    case ColumnType::kBytes:
      break;
  }
  return {};
}

// Empty for columns of words.
Texts read_texts(ColumnType type, py::handle column, const std::string& what) {
  if (type == ColumnType::kString) {
    return read_strings(column, what);
  }
  return type == ColumnType::kBytes ? read_bytes(column, what) : Texts{};
}

// One column of a composite key: words or texts, as its type says.
struct Component {
  Component(ColumnType of, py::handle column, const std::string& what)
      : type(of), words(read_words(of, column, what)), texts(read_texts(of, column, what)) {}

  [[nodiscard]] std::size_t size() const {
    return has_texts(type) ? texts.views.size() : words.size();
  }
  [[nodiscard]] std::size_t encoded_bytes(std::size_t i) const {
    return 1 + sizeof(std::uint64_t) + (has_texts(type) ? texts.views[i].size() : 0);
  }
  void encode(std::size_t i, std::string& out) const {
    out += static_cast<char>(type);
    if (has_texts(type)) {
      append_word(texts.views[i].size(), out);
      out += texts.views[i];
    } else {
      append_word(static_cast<std::uint64_t>(words[i]), out);
    }
  }

  ColumnType type;
  std::vector<std::int64_t> words;
  Texts texts;

 private:
  static void append_word(std::uint64_t word, std::string& out) {
    char bytes[sizeof word];
    std::memcpy(bytes, &word, sizeof word);
    out.append(bytes, sizeof word);
  }
};

std::vector<Component> read_components(const std::vector<ColumnType>& types,
                                       const py::sequence& columns) {
  if (columns.size() != types.size()) {
    throw py::value_error("got " + std::to_string(columns.size()) + " columns, want " +
                          std::to_string(types.size()));
  }
  std::vector<Component> components;
  components.reserve(types.size());
  for (std::size_t c = 0; c < types.size(); ++c) {
    const py::object column = columns[c];
    components.emplace_back(types[c], column, "column " + std::to_string(c));
    if (components[c].size() != components[0].size()) {
      throw py::value_error("column " + std::to_string(c) + " has " +
                            std::to_string(components[c].size()) + " rows, column 0 has " +
                            std::to_string(components[0].size()));
    }
  }
  return components;
}

KeyColumn interleave(const std::vector<Component>& components) {
  const std::size_t rows = components[0].size();
  std::vector<std::uint64_t> offsets(rows + 1);
  for (std::size_t i = 0; i < rows; ++i) {
    offsets[i + 1] = offsets[i];
    for (const Component& component : components) {
      offsets[i + 1] += component.encoded_bytes(i);
    }
  }
  std::string bytes;
  bytes.reserve(offsets.back());
  for (std::size_t i = 0; i < rows; ++i) {
    for (const Component& component : components) {
      component.encode(i, bytes);
    }
  }
  return {std::move(offsets), std::move(bytes)};
}

}  // namespace

KeyColumn int_keys(py::handle column, const std::string& what) {
  return KeyColumn(read_ints(column, what));
}

KeyColumn string_keys(py::handle column, const std::string& what) {
  return laid_end_to_end(read_strings(column, what));
}

ColumnType column_type(const std::string& name) {
  std::string known;
  for (const NamedType& named : kTypes) {
    if (name == named.name) {
      return named.type;
    }
    known.append(known.empty() ? "" : ", ").append(named.name);
  }
  throw py::value_error("unknown column type \"" + name + "\"; known: " + known);
}

KeyType key_type(const std::vector<ColumnType>& types) {
  const bool integer =
      types.size() == 1 && (types[0] == ColumnType::kInt64 || types[0] == ColumnType::kTimestamp);
  return integer ? KeyType::kInt64 : KeyType::kString;
}

KeyColumn encode_keys(const std::vector<ColumnType>& types, const py::sequence& columns) {
  std::vector<Component> components = read_components(types, columns);
  if (key_type(types) == KeyType::kInt64) {
    return KeyColumn(std::move(components[0].words));
  }
  if (types.size() == 1 && has_texts(types[0])) {
    return laid_end_to_end(components[0].texts);
  }
  return interleave(components);
}

}  // namespace upvec::python
