#include "team.hpp"

#include <algorithm>

#include "stopwatch.hpp"

namespace upvec {

unsigned Team::useful_threads(unsigned requested, std::size_t items) {
  // Asked once: it is a system call or more, and a single search takes microseconds.
  static const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
  const unsigned wanted = requested == 0 ? processors : requested;
  return static_cast<unsigned>(std::clamp<std::size_t>(items, 1, wanted));
}

Team::Team(unsigned threads) {
  const unsigned others = useful_threads(threads, SIZE_MAX) - 1;
  workers_.reserve(others);
  for (unsigned worker = 1; worker <= others; ++worker) {
    workers_.emplace_back([this, worker] { serve(worker); });
  }
}

Team::~Team() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Team::run(std::size_t items, std::size_t grain,
               const std::function<void(std::size_t, unsigned)>& work) {
  Stopwatch watch;
  if (workers_.empty() || items <= grain) {
    for (std::size_t item = 0; item < items; ++item) work(item, 0);
  } else {
    share_out(items, grain, work);
    ++sections_;
  }
  run_ns_ += watch.lap_ns();
}

void Team::share_out(std::size_t items, std::size_t grain,
                     const std::function<void(std::size_t, unsigned)>& work) {
  {
    const std::scoped_lock lock(mutex_);
    work_ = &work;
    items_ = items;
    grain_ = grain;
    next_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    busy_ = static_cast<unsigned>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  share(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  work_ = nullptr;
  if (error_) std::rethrow_exception(error_);
}

void Team::serve(unsigned worker) {
  std::size_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
    }
    share(worker);
    const std::scoped_lock lock(mutex_);
    if (--busy_ == 0) done_.notify_one();
  }
}

void Team::share(unsigned worker) {
  try {
    for (;;) {
      const std::size_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= items_) return;
      const std::size_t end = std::min(begin + grain_, items_);
      for (std::size_t item = begin; item < end; ++item) (*work_)(item, worker);
    }
  } catch (...) {
    next_.store(items_, std::memory_order_relaxed);
    const std::scoped_lock lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

}  // namespace upvec
