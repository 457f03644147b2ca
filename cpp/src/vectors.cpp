#include <algorithm>
#include <cmath>
#include <cstring>

#include "store.hpp"

namespace upvec {
namespace {

// Squares and dot products of anything shorter stay far from the largest float.
constexpr double kMaxSquaredNorm = 1e36;

double squared_norm(const float* vector, std::size_t dim) noexcept {
  double sums[4] = {0, 0, 0, 0};
  std::size_t i = 0;
  for (; i + 4 <= dim; i += 4) {
    for (std::size_t lane = 0; lane < 4; ++lane) {
      const double x = vector[i + lane];
      sums[lane] += x * x;
    }
  }
  for (; i < dim; ++i) sums[0] += static_cast<double>(vector[i]) * vector[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

const char* what_is_wrong(const IndexOptions& options, const float* vector) {
  for (std::size_t i = 0; i < options.dim; ++i) {
    if (!std::isfinite(vector[i])) return "NaN or infinity";
  }
  if (options.metric == Metric::kCosine && squared_norm(vector, options.dim) < 1e-30) {
    return "a zero vector, which has no direction for metric cosine";
  }
  return "a length above 1e18";
}

// Rounding leaves a unit vector with a length that is off by up to 2^-8. Made one of unit length
// once more, it might be rounded to another.
bool is_unit_in_bf16(const IndexOptions& options, const float* vector) noexcept {
  if (options.keep != Keep::kBf16 || options.metric != Metric::kCosine) return false;
  if (std::abs(squared_norm(vector, options.dim) - 1.0) > 0x1p-6) return false;
  return std::all_of(vector, vector + options.dim,
                     [](float x) { return from_bf16(to_bf16(x)) == x; });
}

}  // namespace

bool prepare_vector(const IndexOptions& options, const float* from, float* to,
                    std::size_t padded_dim) noexcept {
  const double norm = squared_norm(from, options.dim);
  if (!(norm <= kMaxSquaredNorm)) return false;  // also NaN
  std::memcpy(to, from, options.dim * sizeof(float));
  std::memset(to + options.dim, 0, (padded_dim - options.dim) * sizeof(float));
  if (options.metric != Metric::kCosine) return true;
  if (norm < 1e-30) return false;
  if (std::abs(norm - 1.0) <= 1e-6) return true;
  const double scale = 1.0 / std::sqrt(norm);
  for (std::size_t i = 0; i < options.dim; ++i) {
    to[i] = static_cast<float>(static_cast<double>(to[i]) * scale);
  }
  return true;
}

const float* prepare_queries(const IndexOptions& options, const MatrixView& queries,
                             PaddedVector& storage) {
  const std::size_t stride = pad_dim(options.dim);
  float* const first = storage.reserve(std::max<std::size_t>(1, queries.rows * stride));
  std::vector<std::uint64_t> bad;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    if (!prepare_vector(options, queries.row(i), first + i * stride, stride)) bad.push_back(i);
  }
  if (!bad.empty()) throw_bad_vectors(options, queries, std::move(bad), "queries");
  return first;
}

bool prepare_row(const IndexOptions& options, const Space& space, const float* from, float* room,
                 std::byte* row) noexcept {
  if (options.keep == Keep::kF32) {
    return prepare_vector(options, from, reinterpret_cast<float*>(row), space.padded_dim());
  }
  if (!prepare_vector(options, from, room, space.padded_dim())) return false;
  if (is_unit_in_bf16(options, from)) std::memcpy(room, from, options.dim * sizeof(float));
  space.encode(room, row);
  // Rounding may have made it longer, and too long to be put back.
  space.decode(row, room);
  return squared_norm(room, options.dim) <= kMaxSquaredNorm;
}

void throw_bad_vectors(const IndexOptions& options, const MatrixView& vectors,
                       std::vector<std::uint64_t> rows, const char* what) {
  std::sort(rows.begin(), rows.end());
  const std::string others =
      rows.size() > 1 ? " (and " + std::to_string(rows.size() - 1) + " more rows)" : "";
  const std::string message = std::string(what) + " row " + std::to_string(rows.front()) + others +
                              ": got " + what_is_wrong(options, vectors.row(rows.front())) +
                              ", want finite numbers";
  throw Error(ErrorCode::kInvalidRow, message, std::move(rows));
}

void require_key_type(const Store& store, const KeySpan& keys) {
  if (keys.type() == store.options.key_type) return;
  throw Error(ErrorCode::kInvalidArgument, store.options.key_type == KeyType::kInt64
                                               ? "got string keys; the index has int64 keys"
                                               : "got int64 keys; the index has string keys");
}

void require_dim(const IndexOptions& options, const MatrixView& vectors, const char* what) {
  if (vectors.dim == options.dim) return;
  throw Error::dimension(what, vectors.dim, options.dim);
}

}  // namespace upvec
