// One search a query, shared out to threads.
#pragma once

#include <cstddef>
#include <vector>

#include "store.hpp"
#include "team.hpp"

namespace upvec {

// Calls search(i, scratch) for every query.
template <typename Search>
void for_each_query(const Store& store, std::size_t queries, unsigned threads,
                    const Search& search) {
  constexpr std::size_t kGrain = 8;
  Team team(Team::useful_threads(threads, queries / kGrain));
  std::vector<ScratchPool::Loan> loans;
  loans.reserve(team.size());
  for (unsigned i = 0; i < team.size(); ++i) loans.push_back(store.scratches.take());
  team.run(queries, kGrain, [&](std::size_t i, unsigned worker) { search(i, *loans[worker]); });
}

}  // namespace upvec
