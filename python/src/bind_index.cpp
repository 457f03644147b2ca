// _core.Index, _core.Snapshot, _core.Filter: convert arguments, release the GIL, make one core
// call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "upvec/index.hpp"

void bind_index(pybind11::module_& m);

namespace upvec::python {
namespace {

namespace py = pybind11;

template <typename E, std::size_t N>
E parse(const std::string& name, const char* argument,
        const std::pair<const char*, E> (&choices)[N]) {
  std::string wanted;
  for (const auto& [text, value] : choices) {
    if (name == text) return value;
    wanted += std::string(wanted.empty() ? "" : ", ") + "\"" + text + "\"";
  }
  throw py::value_error(std::string(argument) + " = \"" + name + "\"; want one of " + wanted);
}

constexpr std::pair<const char*, Codes> kCodes[] = {{"none", Codes::kNone}, {"int8", Codes::kInt8}};
constexpr std::pair<const char*, FilterWay> kWays[] = {
    {"auto", FilterWay::kAuto},
    {"scan", FilterWay::kScan},
    {"walk_allowed", FilterWay::kWalkAllowed},
    {"walk_all", FilterWay::kWalkAll},
};
constexpr std::pair<const char*, Keep> kKeeps[] = {
    {"f32", Keep::kF32}, {"bf16", Keep::kBf16}, {"none", Keep::kNone}};
constexpr std::pair<const char*, Metric> kMetrics[] = {
    {"l2", Metric::kL2}, {"ip", Metric::kInnerProduct}, {"cosine", Metric::kCosine}};
constexpr std::pair<const char*, KeyType> kKeyTypes[] = {{"int64", KeyType::kInt64},
                                                         {"str", KeyType::kString}};
constexpr std::pair<const char*, Mode> kModes[] = {{"upsert", Mode::kUpsert},
                                                   {"insert_only", Mode::kInsertOnly},
                                                   {"update_only", Mode::kUpdateOnly}};
constexpr std::pair<const char*, Duplicates> kDuplicates[] = {
    {"error", Duplicates::kError}, {"first", Duplicates::kFirst}, {"last", Duplicates::kLast}};

template <typename E, std::size_t N>
const char* name_of(E value, const std::pair<const char*, E> (&choices)[N]) {
  for (const auto& [text, choice] : choices) {
    if (choice == value) return text;
  }
  return "";
}

class BoundSnapshot {
 public:
  explicit BoundSnapshot(Snapshot snapshot)
      : seq_(snapshot.seq()), snapshot_(std::move(snapshot)) {}
  [[nodiscard]] std::uint64_t seq() const noexcept { return seq_; }
  void release() { snapshot_.reset(); }
  [[nodiscard]] const Snapshot* get() const {
    if (!snapshot_) throw py::value_error("the snapshot has been released");
    return &*snapshot_;
  }

 private:
  std::uint64_t seq_;
  std::optional<Snapshot> snapshot_;
};

// An image that was not written to its end waits for a writer to finish before it lets go: others
// may run meanwhile.
class BoundImage {
 public:
  explicit BoundImage(Image image) : image_(std::move(image)) {}
  ~BoundImage() {
    const py::gil_scoped_release release;
    image_.reset();
  }
  BoundImage(const BoundImage&) = delete;
  BoundImage& operator=(const BoundImage&) = delete;
  bool next(Image::Piece& piece) { return image_->next(piece); }

 private:
  std::optional<Image> image_;
};

// The options that reads share. A copy of the snapshot keeps it alive without the GIL.
struct ReadArguments {
  std::optional<Snapshot> snapshot;
  std::optional<Filter> filter;
  SearchOptions options;

  ReadArguments(const Index& index, const py::object& allowed, const py::object& pinned,
                std::size_t ef = 0, unsigned threads = 0) {
    options.ef = ef;
    options.threads = threads;
    if (!pinned.is_none()) {
      snapshot = *py::cast<const BoundSnapshot&>(pinned).get();
      options.snapshot = &*snapshot;
    }
    if (allowed.is_none()) return;
    if (py::isinstance<Filter>(allowed)) {
      filter = py::cast<Filter>(allowed);
    } else {
      const KeyColumn keys = key_column(index.options().key_type, allowed);
      const py::gil_scoped_release release;
      filter = index.filter(keys.span(), options);
    }
    options.filter = &*filter;
  }
  ReadArguments(const ReadArguments&) = delete;
  ReadArguments& operator=(const ReadArguments&) = delete;
};

Index make_index(std::size_t dim, const std::string& metric, const std::string& key,
                 const std::string& codes, const std::string& keep, std::size_t m,
                 std::size_t ef_construction, std::uint64_t seed) {
  return Index(IndexOptions{dim, parse(metric, "metric", kMetrics), parse(key, "key", kKeyTypes),
                            parse(codes, "codes", kCodes), parse(keep, "keep", kKeeps), m,
                            ef_construction, seed});
}

py::array_t<std::uint8_t> upsert(Index& index, const py::object& keys, const FloatMatrix& vectors,
                                 const std::string& mode, const std::string& duplicates,
                                 unsigned threads, bool publish) {
  UpsertOptions options;
  options.mode = parse(mode, "mode", kModes);
  options.duplicates = parse(duplicates, "duplicates", kDuplicates);
  options.threads = threads;
  options.publish = publish;
  const KeyColumn column = key_column(index.options().key_type, keys);
  const MatrixView view = matrix_view(vectors, "vectors");
  py::array_t<std::uint8_t> result(static_cast<py::ssize_t>(column.size()));
  std::uint8_t* const out = result.mutable_data();
  const py::gil_scoped_release release;
  const std::vector<Outcome> outcomes = index.upsert(column.span(), view, options);
  for (std::size_t i = 0; i < outcomes.size(); ++i) out[i] = static_cast<std::uint8_t>(outcomes[i]);
  return result;
}

py::array_t<bool> remove(Index& index, const py::object& keys, unsigned threads, bool publish) {
  const KeyColumn column = key_column(index.options().key_type, keys);
  py::array_t<bool> result(static_cast<py::ssize_t>(column.size()));
  bool* const out = result.mutable_data();
  const py::gil_scoped_release release;
  const auto removed = index.remove(column.span(), {threads, publish});
  for (std::size_t i = 0; i < removed.size(); ++i) out[i] = removed[i] != 0;
  return result;
}

py::tuple get(const Index& index, const py::object& keys, const py::object& snapshot) {
  const ReadArguments arguments(index, py::none(), snapshot);
  const KeyColumn column = key_column(index.options().key_type, keys);
  const auto n = static_cast<py::ssize_t>(column.size());
  py::array_t<float> vectors({n, static_cast<py::ssize_t>(index.options().dim)});
  py::array_t<bool> found(n);
  float* const vector_out = vectors.mutable_data();
  static_assert(sizeof(bool) == sizeof(std::uint8_t));
  auto* const found_out = reinterpret_cast<std::uint8_t*>(found.mutable_data());
  {
    const py::gil_scoped_release release;
    index.get(column.span(), vector_out, found_out, arguments.options);
  }
  return py::make_tuple(std::move(vectors), std::move(found));
}

enum class How : std::uint8_t { kGraph, kExact };

// Searches with the answer going straight to where numpy will find it. String keys become objects,
// which takes the GIL: those go through a result of the core.
py::tuple run_search(const Index& index, How how, const MatrixView& queries, std::size_t k,
                     const SearchOptions& options) {
  Index::require_places(queries.rows, k);
  const auto rows = static_cast<py::ssize_t>(queries.rows);
  const auto columns = static_cast<py::ssize_t>(k);
  if (index.options().key_type == KeyType::kInt64) {
    const py::array keys = new_array<std::int64_t>(rows, columns);
    const py::array distances = new_array<float>(rows, columns);
    const py::array counts = new_array<std::int64_t>(rows);
    const SearchRoom room{data_of<std::int64_t>(keys), data_of<float>(distances),
                          data_of<std::int64_t>(counts)};
    {
      const py::gil_scoped_release release;
      if (how == How::kGraph) {
        index.search_into(queries, k, room, options);
      } else {
        index.exact_search_into(queries, k, room, options);
      }
    }
    return py::make_tuple(keys, distances, counts);
  }
  SearchResult result;
  {
    const py::gil_scoped_release release;
    result = how == How::kGraph ? index.search(queries, k, options)
                                : index.exact_search(queries, k, options);
  }
  return py::make_tuple(to_array(std::move(result.keys), {rows, columns}),
                        to_array(std::move(result.distances), {rows, columns}),
                        to_array(std::move(result.counts), {rows}));
}

py::tuple search(const Index& index, const FloatMatrix& queries, std::size_t k, std::size_t ef,
                 const py::object& allowed, unsigned threads, const py::object& snapshot,
                 const std::string& way) {
  ReadArguments arguments(index, allowed, snapshot, ef, threads);
  arguments.options.way = parse(way, "way", kWays);
  return run_search(index, How::kGraph, matrix_view(queries, "queries"), k, arguments.options);
}

py::tuple exact_search(const Index& index, const FloatMatrix& queries, std::size_t k,
                       const py::object& allowed, unsigned threads, const py::object& snapshot) {
  const ReadArguments arguments(index, allowed, snapshot, 0, threads);
  return run_search(index, How::kExact, matrix_view(queries, "queries"), k, arguments.options);
}

// An int, and no bool or other thing that can be made one, within bounds.
bool plain_int(const py::object& object, long low, long high, long& value) {
  if (!PyLong_CheckExact(object.ptr())) return false;
  int overflow = 0;
  value = PyLong_AsLongAndOverflow(object.ptr(), &overflow);
  return overflow == 0 && low <= value && value <= high;
}

// search() for arguments as most calls have them: queries are an array that can be read as it is,
// numbers are int and within bounds. None if they are not: then it is for the caller to convert
// them, or to say what is wrong. What a call costs beside the search itself is a good part of a
// search for one query.
std::optional<py::tuple> search_plain(const Index& index, const py::object& queries,
                                      const py::object& k, const py::object& ef,
                                      const py::object& where, const py::object& threads,
                                      const py::object& snapshot) {
  constexpr long kMost = 2'147'483'647;
  constexpr long kMostThreads = 4096;
  MatrixView view;
  long places = 0;
  long candidates = 0;
  long workers = 0;
  const bool plain =
      plain_int(k, 1, kMost, places) && plain_int(threads, 0, kMostThreads, workers) &&
      (ef.is_none() || plain_int(ef, 1, kMost, candidates)) && plain_queries(queries, view) &&
      (where.is_none() || py::isinstance<Filter>(where));
  if (!plain) return std::nullopt;
  const ReadArguments arguments(index, where, snapshot, static_cast<std::size_t>(candidates),
                                static_cast<unsigned>(workers));
  return run_search(index, How::kGraph, view, static_cast<std::size_t>(places), arguments.options);
}

py::tuple range_search(const Index& index, const FloatMatrix& queries, float radius, std::size_t ef,
                       const py::object& allowed, unsigned threads, const py::object& snapshot) {
  const ReadArguments arguments(index, allowed, snapshot, ef, threads);
  const MatrixView view = matrix_view(queries, "queries");
  RangeResult result;
  {
    const py::gil_scoped_release release;
    result = index.range_search(view, radius, arguments.options);
  }
  const auto hits = static_cast<py::ssize_t>(result.distances.size());
  const auto offsets = static_cast<py::ssize_t>(result.offsets.size());
  return py::make_tuple(to_array(std::move(result.offsets), {offsets}),
                        to_array(std::move(result.keys), {hits}),
                        to_array(std::move(result.distances), {hits}));
}

py::array keys(const Index& index, const py::object& snapshot) {
  const ReadArguments arguments(index, py::none(), snapshot);
  Keys result;
  {
    const py::gil_scoped_release release;
    result = index.keys(arguments.options);
  }
  const auto n = static_cast<py::ssize_t>(result.size());
  return to_array(std::move(result), {n});
}

py::dict check(const Index& index) {
  CheckReport report;
  {
    const py::gil_scoped_release release;
    report = index.check();
  }
  py::dict result;
  result["live"] = report.live;
  result["reachable"] = report.reachable;
  result["dangling"] = report.dangling;
  result["doubled"] = report.doubled;
  result["self_links"] = report.self_links;
  result["in_list_errors"] = report.in_list_errors;
  result["anchor_errors"] = report.anchor_errors;
  result["key_errors"] = report.key_errors;
  result["pending"] = report.pending;
  result["below_floor"] = report.below_floor;
  result["degrees"] = report.degrees;
  result["in_degrees"] = report.in_degrees;
  result["ok"] = report.ok();
  return result;
}

py::dict phases(const WritePhases& phases) {
  py::dict result;
  result["check_ns"] = phases.check_ns;
  result["threads_ns"] = phases.threads_ns;
  result["rows_ns"] = phases.rows_ns;
  result["plan_ns"] = phases.plan_ns;
  result["anchors_ns"] = phases.anchors_ns;
  result["gather_ns"] = phases.gather_ns;
  result["lists_ns"] = phases.lists_ns;
  result["settle_ns"] = phases.settle_ns;
  result["sections"] = phases.sections;
  return result;
}

py::dict stats(const Index& index) {
  Stats stats;
  {
    const py::gil_scoped_release release;
    stats = index.stats();
  }
  py::dict result;
  result["live"] = stats.live;
  result["slots"] = stats.slots;
  result["rows"] = stats.rows;
  result["seq"] = stats.seq;
  result["max_level"] = stats.max_level;
  result["degrees"] = stats.degrees;
  result["vector_bytes"] = stats.vector_bytes;
  result["code_bytes"] = stats.code_bytes;
  result["link_bytes"] = stats.link_bytes;
  result["key_bytes"] = stats.key_bytes;
  result["other_bytes"] = stats.other_bytes;
  result["queries"] = stats.queries;
  result["distances"] = stats.distances;
  result["hops"] = stats.hops;
  result["phases"] = phases(stats.phases);
  if (!stats.counters.empty()) {
    py::dict counters;
    for (const auto& [name, count] : stats.counters) counters[name.c_str()] = count;
    result["counters"] = counters;
  }
  return result;
}

BoundSnapshot snapshot(const Index& index, bool head) {
  const py::gil_scoped_release release;
  return BoundSnapshot(head ? index.head_snapshot() : index.snapshot());
}

std::unique_ptr<BoundImage> image(const Index& index) {
  std::optional<Image> made;
  {
    const py::gil_scoped_release release;
    made = index.image();
  }
  return std::make_unique<BoundImage>(*std::move(made));
}

py::tuple next_piece(BoundImage& image) {
  Image::Piece piece;
  bool more = false;
  {
    const py::gil_scoped_release release;
    more = image.next(piece);
  }
  if (!more) throw py::stop_iteration();
  const auto bytes = static_cast<py::ssize_t>(piece.bytes.size());
  // std::byte is no type of numpy's, and unsigned char may look at any.
  auto owner = std::make_unique<std::vector<std::byte>>(std::move(piece.bytes));
  auto* const data = reinterpret_cast<std::uint8_t*>(owner->data());
  const py::capsule free(owner.get(),
                         [](void* memory) { delete static_cast<std::vector<std::byte>*>(memory); });
  owner.release();
  return py::make_tuple(piece.offset, py::array_t<std::uint8_t>({bytes}, data, free));
}

Filter make_filter(const Index& index, const py::object& keys, const py::object& snapshot) {
  return *ReadArguments(index, keys, snapshot).filter;
}

using Words = py::array_t<std::uint64_t, py::array::c_style>;

Filter make_filter_of_bits(const Index& index, const Words& bits, const py::object& snapshot) {
  const ReadArguments arguments(index, py::none(), snapshot);
  const std::span<const std::uint64_t> words(bits.data(), static_cast<std::size_t>(bits.size()));
  const py::gil_scoped_release release;
  return index.filter_of_bits(words, arguments.options);
}

py::dict filter_costs(const Index& index, const Filter& filter, std::size_t k, std::size_t ef) {
  const FilterCosts costs = index.filter_costs(filter, k, ef);
  py::dict result;
  result["scan"] = costs.scan;
  result["walk_allowed"] = costs.walk_allowed;
  result["walk_all"] = costs.walk_all;
  result["best"] = name_of(costs.best, kWays);
  return result;
}

}  // namespace
}  // namespace upvec::python

void bind_index(pybind11::module_& m) {
  namespace py = pybind11;
  using namespace py::literals;
  using namespace upvec::python;
  using upvec::Index;
  using Unlocked = py::call_guard<py::gil_scoped_release>;

  py::class_<BoundSnapshot>(m, "Snapshot", "Pins one version of an index.")
      .def_property_readonly("seq", &BoundSnapshot::seq)
      .def("release", &BoundSnapshot::release);
  py::class_<upvec::Filter>(m, "Filter", "A compiled set of allowed keys.")
      .def("__len__", &upvec::Filter::size);

  py::class_<BoundImage>(
      m, "Image",
      "Yields the file of an index in pieces: (offset in the file, bytes). See image().")
      .def("__iter__", [](BoundImage& self) -> BoundImage& { return self; })
      .def("__next__", &next_piece);

  py::class_<Index>(m, "Index", "Keys and vectors in memory.")
      .def(py::init(&make_index), "dim"_a, py::kw_only(), "metric"_a = "l2", "key"_a = "int64",
           "codes"_a = "int8", "keep"_a = "f32", "M"_a = 16, "ef_construction"_a = 200,
           "seed"_a = 0)
      .def_property_readonly("dim", [](const Index& self) { return self.options().dim; })
      .def_property_readonly(
          "metric", [](const Index& self) { return name_of(self.options().metric, kMetrics); })
      .def_property_readonly(
          "key_type", [](const Index& self) { return name_of(self.options().key_type, kKeyTypes); })
      .def_property_readonly(
          "codes", [](const Index& self) { return name_of(self.options().codes, kCodes); })
      .def_property_readonly("keep",
                             [](const Index& self) { return name_of(self.options().keep, kKeeps); })
      .def_property_readonly("M", [](const Index& self) { return self.options().m; })
      .def_property_readonly("ef_construction",
                             [](const Index& self) { return self.options().ef_construction; })
      .def_property_readonly("seed", [](const Index& self) { return self.options().seed; })
      .def_property_readonly("simd", [](const Index&) { return std::string(Index::simd()); })
      .def("upsert", &upsert, "keys"_a, "vectors"_a, py::kw_only(), "mode"_a = "upsert",
           "duplicates"_a = "error", "threads"_a = 0, "publish"_a = true)
      .def("remove", &upvec::python::remove, "keys"_a, py::kw_only(), "threads"_a = 0,
           "publish"_a = true)
      .def("publish", &Index::publish, Unlocked())
      .def("reserve", &Index::reserve, "n"_a, Unlocked())
      .def("snapshot", &snapshot, py::kw_only(), "head"_a = false)
      .def("filter", &make_filter, "keys"_a, py::kw_only(), "snapshot"_a = py::none())
      .def("filter_of_bits", &make_filter_of_bits, "bits"_a, py::kw_only(),
           "snapshot"_a = py::none())
      .def("filter_costs", &filter_costs, "allowed"_a, "k"_a, "ef"_a = 0)
      .def("get", &get, "keys"_a, py::kw_only(), "snapshot"_a = py::none())
      .def("search", &search, "queries"_a, "k"_a, py::kw_only(), "ef"_a = 0,
           "allowed"_a = py::none(), "threads"_a = 0, "snapshot"_a = py::none(), "way"_a = "auto")
      .def("search_plain", &search_plain, "queries"_a, "k"_a, "ef"_a, "where"_a, "threads"_a,
           "snapshot"_a)
      .def("exact_search", &exact_search, "queries"_a, "k"_a, py::kw_only(),
           "allowed"_a = py::none(), "threads"_a = 0, "snapshot"_a = py::none())
      .def("range_search", &range_search, "queries"_a, "radius"_a, py::kw_only(), "ef"_a = 0,
           "allowed"_a = py::none(), "threads"_a = 0, "snapshot"_a = py::none())
      .def("keys", &keys, py::kw_only(), "snapshot"_a = py::none())
      .def("__len__", &Index::size)
      .def("save", &Index::save, "path"_a, Unlocked())
      .def("image", &image)
      .def_static("load", &Index::load, "path"_a, py::kw_only(), "mmap"_a = true, Unlocked())
      .def("copy", &Index::copy, Unlocked())
      .def("check", &check)
      .def("digest", &Index::digest, Unlocked())
      .def("stats", &stats);
}
