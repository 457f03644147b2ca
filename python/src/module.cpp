// The extension module: registrations only.
#include <pybind11/pybind11.h>

void bind_columns(pybind11::module_& m);
void bind_errors(pybind11::module_& m);
void bind_index(pybind11::module_& m);
void bind_key_index(pybind11::module_& m);
void bind_scalar_index(pybind11::module_& m);

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of upvec. Its names are private; use upvec.Index and upvec.open.";
  bind_columns(m);
  bind_errors(m);
  bind_index(m);
  bind_key_index(m);
  bind_scalar_index(m);
}
