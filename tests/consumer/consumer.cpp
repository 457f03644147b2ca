// What a program outside the project does first: create an index, upsert, move a vector, search.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "upvec/index.hpp"

int main() {
  const std::size_t dim = 4;
  upvec::IndexOptions options;
  options.dim = dim;
  upvec::Index index(options);

  const std::vector<std::int64_t> keys = {1, 2, 3};
  const std::vector<float> vectors = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  index.upsert(upvec::KeySpan::ints(keys), {vectors.data(), keys.size(), dim});
  // Key 1 moves to where the query will be.
  const std::vector<float> query = {0, 0, 0, 1};
  const std::vector<std::int64_t> moved = {1};
  index.upsert(upvec::KeySpan::ints(moved), {query.data(), 1, dim});

  const upvec::SearchResult found = index.search({query.data(), 1, dim}, 1);
  std::printf("nearest: %lld %g\n", static_cast<long long>(found.keys.ints.at(0)),
              static_cast<double>(found.distances.at(0)));
  return index.size() == keys.size() ? 0 : 1;
}
