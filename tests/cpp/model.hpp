// What tests of the index share: keys by number, vectors, and a plain map as the oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "random.hpp"
#include "upvec/index.hpp"

namespace upvec::testing {

using Vector = std::vector<float>;

// Key number n in either type: 0 is the int64 0 and the empty string, odd ones are negative or
// long.
inline void add_key(Keys& keys, int n) {
  if (keys.type == KeyType::kInt64) {
    keys.add(std::int64_t{n} * (n % 2 == 0 ? 1 : -1'000'000'007));
  } else if (n == 0) {
    keys.add(std::string_view{});
  } else {
    keys.add(std::string_view(std::to_string(n) + (n % 2 == 0 ? "" : std::string(40, 'x'))));
  }
}

inline int number_of(const Keys& keys, std::size_t i) {
  if (keys.type == KeyType::kInt64) {
    const std::int64_t key = keys.ints[i];
    return static_cast<int>(key % 1'000'000'007 == 0 ? key / -1'000'000'007 : key);
  }
  const std::string_view text = keys.span().string_at(i);
  return text.empty() ? 0 : std::stoi(std::string(text));
}

inline Keys key_column(KeyType type, const std::vector<int>& numbers) {
  Keys keys;
  keys.type = type;
  for (const int n : numbers) {
    add_key(keys, n);
  }
  return keys;
}

inline std::vector<int> numbers_of(const Keys& keys) {
  std::vector<int> numbers;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    numbers.push_back(number_of(keys, i));
  }
  return numbers;
}

struct Matrix {
  std::size_t dim;
  std::vector<float> floats;

  void add(const Vector& vector) { floats.insert(floats.end(), vector.begin(), vector.end()); }
  [[nodiscard]] std::size_t rows() const { return floats.size() / dim; }
  [[nodiscard]] MatrixView view() const { return {floats.data(), rows(), dim}; }
  [[nodiscard]] Vector row(std::size_t i) const {
    return {floats.begin() + static_cast<std::ptrdiff_t>(i * dim),
            floats.begin() + static_cast<std::ptrdiff_t>((i + 1) * dim)};
  }
};

inline Vector unit(const Vector& vector) {
  double sum = 0;
  for (const float x : vector) {
    sum += static_cast<double>(x) * x;
  }
  Vector result;
  for (const float x : vector) {
    result.push_back(static_cast<float>(x / std::sqrt(sum)));
  }
  return result;
}

// rounded: b is what an index keeps, which under cosine may be not quite of unit length.
inline double distance(Metric metric, const Vector& a, const Vector& b, bool rounded = false) {
  if (rounded && metric == Metric::kCosine) return distance(Metric::kL2, unit(a), b) / 2;
  const Vector left = metric == Metric::kCosine ? unit(a) : a;
  const Vector right = metric == Metric::kCosine ? unit(b) : b;
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = left[i];
    const double y = right[i];
    sum += metric == Metric::kL2 ? (x - y) * (x - y) : x * y;
  }
  return metric == Metric::kL2 ? sum : 1 - sum;
}

inline bool close(double a, double b) { return std::abs(a - b) <= 1e-4 * (1 + std::abs(b)); }

// Vectors of which some coincide, some are near each other, none is zero.
class VectorSource {
 public:
  VectorSource(std::size_t dim, std::uint32_t seed) : dim_(dim), random_(seed) {}
  Vector next() {
    Vector vector(dim_);
    const bool coarse = random_() % 4 == 0;
    for (float& x : vector) {
      x = coarse ? static_cast<float>(random_() % 3) : normal_(random_);
    }
    vector[0] += vector[0] < 0 ? -0.5F : 0.5F;
    return vector;
  }
  Matrix matrix(std::size_t rows) {
    Matrix matrix{dim_, {}};
    for (std::size_t i = 0; i < rows; ++i) {
      matrix.add(next());
    }
    return matrix;
  }

 private:
  std::size_t dim_;
  Random random_;
  std::normal_distribution<float> normal_;
};

// What an index with these options keeps of a vector: that, once more, it keeps whole.
class Keeper {
 public:
  explicit Keeper(const IndexOptions& options) : index_(options) {}
  Vector operator()(const Vector& vector) {
    if (index_.options().keep == Keep::kF32) return vector;
    const Keys key = [&] {
      Keys keys;
      keys.type = index_.options().key_type;
      add_key(keys, 1);
      return keys;
    }();
    index_.upsert(key.span(), {vector.data(), 1, vector.size()});
    Vector kept(vector.size());
    std::uint8_t found = 0;
    index_.get(key.span(), kept.data(), &found);
    return kept;
  }

 private:
  Index index_;
};

using Model = std::map<int, Vector>;  // by number of the key

inline std::vector<int> numbers_of(const Model& model) {
  std::vector<int> numbers;
  for (const auto& [number, vector] : model) {
    numbers.push_back(number);
  }
  return numbers;
}

struct Got {
  Matrix vectors;
  std::vector<std::uint8_t> found;
};

inline Got get(const Index& index, const std::vector<int>& numbers,
               const Snapshot* snapshot = nullptr) {
  const std::size_t dim = index.options().dim;
  Got got{{dim, std::vector<float>(numbers.size() * dim, 99.0F)},
          std::vector<std::uint8_t>(numbers.size(), 9)};
  const Keys keys = key_column(index.options().key_type, numbers);
  ReadOptions options;
  options.snapshot = snapshot;
  index.get(keys.span(), got.vectors.floats.data(), got.found.data(), options);
  return got;
}

// Throws with a reason unless the answer is one that the model allows: known keys, each once, in
// order, with their true distances.
inline void require_true(const SearchResult& result, std::size_t query, std::size_t k,
                         const Model& model, Metric metric, const Vector& vector,
                         bool rounded = false) {
  const auto demand = [](bool holds, const char* what) {
    if (!holds) {
      throw std::logic_error(what);
    }
  };
  const auto count = static_cast<std::size_t>(result.counts[query]);
  demand(count <= k, "more hits than asked for");
  std::vector<int> met;
  for (std::size_t i = query * k; i < query * k + k; ++i) {
    const int number = number_of(result.keys, i);
    if (i >= query * k + count) {
      demand(number == 0 && std::isinf(result.distances[i]), "an unfilled place is not empty");
      continue;
    }
    demand(model.contains(number), "a hit that is no key");
    demand(close(result.distances[i], distance(metric, vector, model.at(number), rounded)),
           "a distance that is not that of the key's vector");
    demand(i == query * k || result.distances[i - 1] <= result.distances[i], "not nearest first");
    met.push_back(number);
  }
  std::sort(met.begin(), met.end());
  demand(std::adjacent_find(met.begin(), met.end()) == met.end(), "a key twice in an answer");
}

// The distances of the k nearest of the model.
inline std::vector<double> true_distances(const Model& model, std::size_t k, Metric metric,
                                          const Vector& query, bool rounded = false) {
  std::vector<double> all;
  for (const auto& [number, vector] : model) {
    all.push_back(distance(metric, query, vector, rounded));
  }
  std::sort(all.begin(), all.end());
  all.resize(std::min(k, all.size()));
  return all;
}

// Asserts inside doctest need its header; this needs none, so that helpers can be used anywhere.
inline std::string why_not_ok(const CheckReport& report) {
  if (report.ok()) {
    return "";
  }
  return "live " + std::to_string(report.live) + ", reachable " + std::to_string(report.reachable) +
         ", dangling " + std::to_string(report.dangling) + ", doubled " +
         std::to_string(report.doubled) + ", self " + std::to_string(report.self_links) +
         ", in-lists " + std::to_string(report.in_list_errors) + ", anchors " +
         std::to_string(report.anchor_errors) + ", keys " + std::to_string(report.key_errors) +
         ", pending " + std::to_string(report.pending);
}

}  // namespace upvec::testing
