// What readers beside writers found wrong, if anything. Thread safety: any thread.
#pragma once

#include <atomic>
#include <string>

namespace upvec::testing {

class Complaints {
 public:
  // `what` must live as long as this: a literal.
  void demand(bool holds, const char* what) {
    const char* none = nullptr;
    if (!holds) first_.compare_exchange_strong(none, what);
  }
  [[nodiscard]] bool any() const { return first_.load() != nullptr; }
  [[nodiscard]] std::string first() const {
    const char* what = first_.load();
    return what == nullptr ? "" : what;
  }

 private:
  std::atomic<const char*> first_ = nullptr;
};

}  // namespace upvec::testing
