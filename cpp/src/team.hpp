// Team: a few threads that live as long as one call and share its loops.
//
// Threads are not kept between calls: an idle index owns none, and a forked child misses none.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace upvec {

class Team {
 public:
  // threads = 0 asks for one per processor.
  explicit Team(unsigned threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] unsigned size() const noexcept {
    return static_cast<unsigned>(workers_.size()) + 1;
  }

  // Calls work(item, worker) for every item in [0, items), worker in [0, size()); blocks of `grain`
  // items are handed out as workers become free. Returns when all are done; rethrows the first
  // exception. The caller's thread is worker 0.
  void run(std::size_t items, std::size_t grain,
           const std::function<void(std::size_t item, unsigned worker)>& work);

  // Nanoseconds that calls of run() took, and how many of them were shared out.
  [[nodiscard]] std::uint64_t run_ns() const noexcept { return run_ns_; }
  [[nodiscard]] std::uint64_t sections() const noexcept { return sections_; }

  // How many threads a request means on this machine, for a job of so many parallel items.
  static unsigned useful_threads(unsigned requested, std::size_t items);

 private:
  void share_out(std::size_t items, std::size_t grain,
                 const std::function<void(std::size_t, unsigned)>& work);
  void serve(unsigned worker);
  void share(unsigned worker);

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  std::size_t generation_ = 0;
  unsigned busy_ = 0;
  bool stop_ = false;

  const std::function<void(std::size_t, unsigned)>* work_ = nullptr;
  std::size_t items_ = 0;
  std::size_t grain_ = 1;
  std::atomic<std::size_t> next_{0};
  std::exception_ptr error_;
  std::uint64_t run_ns_ = 0;
  std::uint64_t sections_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace upvec
