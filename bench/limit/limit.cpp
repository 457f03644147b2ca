// upvec_limit DIM METRIC M SLOTS THREADS...: what memory and kernels give an index of that shape on
// this machine, as JSON. bench.limit runs it.
//
// By plane of the index, each as a buffer of that size on huge pages:
//   rates    random records/s, the best of several lookaheads, by where prefetches go to
//   latency  nanoseconds of a load whose address the one before it gave
// By kernel: nanoseconds a distance when all that is measured lies in the first-level cache.
// Every figure is the best of several runs: the limit is what the machine can do undisturbed.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "codes.hpp"
#include "counters.hpp"
#include "links.hpp"
#include "planes.hpp"
#include "rows.hpp"
#include "simd/prefetch.hpp"
#include "space.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

using namespace upvec;

constexpr std::size_t kHugePageBytes = std::size_t{1} << 21;
constexpr int kRuns = 7;

using Clock = double (*)();  // seconds

double wall_clock() {
  using std::chrono::duration;
  return duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The thread's own time: that other work took its processor does not count.
double own_clock() {
#ifdef CLOCK_THREAD_CPUTIME_ID
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
  return wall_clock();
#endif
}

// Has to be worked out, but is not used.
template <typename T>
[[gnu::always_inline]] inline void keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

class Buffer {
 public:
  explicit Buffer(std::size_t bytes)
      : bytes_((bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes),
        data_(static_cast<char*>(::operator new(bytes_, kAlign))) {
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
    std::memset(data_, 1, bytes_);
  }
  ~Buffer() { ::operator delete(data_, kAlign); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] char* data() const noexcept { return data_; }

 private:
  static constexpr std::align_val_t kAlign{kHugePageBytes};
  std::size_t bytes_;
  char* data_;
};

// Where prefetches bring a line to.
enum class Level { kNowhere, kSecond, kFirst };
constexpr std::array kLevels = {Level::kNowhere, Level::kSecond, Level::kFirst};

const char* name_of(Level level) {
  return level == Level::kNowhere ? "none" : level == Level::kSecond ? "L2" : "L1";
}

template <Level level>
[[gnu::always_inline]] inline void fetch(const char* record, std::size_t bytes) noexcept {
  if constexpr (level == Level::kSecond) simd::prefetch_lines(record, bytes);  // as searches do
  if constexpr (level == Level::kFirst) {
    for (std::size_t offset = 0; offset < bytes; offset += simd::kCacheLineBytes) {
#if defined(__x86_64__) || defined(__i386__)
      asm volatile("prefetcht0 (%0)" : : "r"(record + offset));
#elif defined(__aarch64__)
      asm volatile("prfm pldl1keep, [%0]" : : "r"(record + offset));
#else
      __builtin_prefetch(record + offset, 0, 3);
#endif
    }
  }
}

[[gnu::always_inline]] inline std::uint32_t word_at(const char* place) noexcept {
  std::uint32_t word = 0;
  std::memcpy(&word, place, sizeof word);
  return word;
}

// Something of every line of a record.
[[gnu::always_inline]] inline std::uint32_t read_record(const char* record,
                                                        std::size_t bytes) noexcept {
  std::uint32_t sum = word_at(record + bytes - sizeof sum);
  for (std::size_t offset = 0; offset < bytes; offset += simd::kCacheLineBytes) {
    sum += word_at(record + offset);
  }
  return sum;
}

struct BufferShape {
  const char* name;
  std::size_t record_bytes;
  std::size_t records;

  [[nodiscard]] std::size_t bytes() const noexcept { return record_bytes * records; }
  // On average: where a record begins within its line differs from one to the next.
  [[nodiscard]] double lines_per_record(const char* data) const {
    const std::size_t n = std::min<std::size_t>(records, 1024);
    std::size_t lines = 0;
    for (std::size_t i = 0; i < n; ++i) {
      lines += lines_touched(data + i * record_bytes, record_bytes);
    }
    return static_cast<double>(lines) / static_cast<double>(n);
  }
};

constexpr std::size_t kMostAhead = 128;

// Seconds of reading `count` random records, each sent for when `ahead` others are still to be read
// before it.
template <Level level>
double read_randomly(const char* data, const BufferShape& plane, std::size_t ahead,
                     std::size_t count, std::uint64_t seed, Clock clock) {
  std::array<const char*, 2 * kMostAhead> records{};
  const std::size_t bytes = plane.record_bytes;
  // No step of it waits for the one before, as a generator's would.
  auto pick = [&, state = seed]() mutable {
    state += 0x9E3779B97F4A7C15U;
    const std::uint64_t mixed = (state ^ state >> 32) * 0xD6E8FEB86659FD93U;
    return data + ((mixed >> 32) * plane.records >> 32) * bytes;
  };
  const double began = clock();
  for (std::size_t i = 0; i < ahead; ++i) {
    records[i] = pick();
    fetch<level>(records[i], bytes);
  }
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const char* const later = pick();
    records[(i + ahead) % records.size()] = later;
    fetch<level>(later, bytes);
    sum += read_record(records[i % records.size()], bytes);
  }
  keep(sum);
  return clock() - began;
}

double read_randomly(Level level, const char* data, const BufferShape& plane, std::size_t ahead,
                     std::size_t count, std::uint64_t seed, Clock clock) {
  switch (level) {
    case Level::kSecond:
      return read_randomly<Level::kSecond>(data, plane, ahead, count, seed, clock);
    case Level::kFirst:
      return read_randomly<Level::kFirst>(data, plane, ahead, count, seed, clock);
    default:
      return read_randomly<Level::kNowhere>(data, plane, ahead, count, seed, clock);
  }
}

struct Rate {
  std::size_t ahead = 0;
  double records_per_s = 0;
};

// About as many lines as take two milliseconds: less is disturbed by nothing but itself.
std::size_t records_a_run(double lines_per_record) {
  return static_cast<std::size_t>(1e6 / lines_per_record);
}

Rate best_rate(Level level, const char* data, const BufferShape& plane, double lines_per_record) {
  const std::size_t count = records_a_run(lines_per_record);
  Rate best;
  for (std::size_t ahead = 1; ahead <= kMostAhead; ahead *= 2) {
    for (int run = 0; run < kRuns; ++run) {
      const auto seed = static_cast<std::uint64_t>(run) << 40 | ahead;
      const double seconds = read_randomly(level, data, plane, ahead, count, seed, own_clock);
      const double rate = static_cast<double>(count) / seconds;
      if (rate > best.records_per_s) best = {ahead, rate};
    }
    if (level == Level::kNowhere) break;  // nothing to look ahead with
  }
  return best;
}

// Of all threads together, with the lookahead that is best for one.
double rate_of_many(Level level, const char* data, const BufferShape& plane, std::size_t ahead,
                    double lines_per_record, unsigned threads) {
  const std::size_t count = records_a_run(lines_per_record);
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> begins(threads);
    std::vector<double> ends(threads);
    std::atomic<unsigned> waiting{0};
    std::vector<std::thread> team;
    for (unsigned t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        ++waiting;
        while (waiting.load() < threads) std::this_thread::yield();
        const auto seed = static_cast<std::uint64_t>(run) << 40 | std::uint64_t{t} << 20;
        begins[t] = wall_clock();
        read_randomly(level, data, plane, ahead, count, seed, wall_clock);
        ends[t] = wall_clock();
      });
    }
    for (std::thread& thread : team) thread.join();
    const double seconds = *std::max_element(ends.begin(), ends.end()) -
                           *std::min_element(begins.begin(), begins.end());
    best = std::max(best, static_cast<double>(count * threads) / seconds);
  }
  return best;
}

// Writes into every line where the next one is, in one random cycle.
double latency_ns(char* data, std::size_t bytes) {
  const std::size_t lines = std::max<std::size_t>(2, bytes / simd::kCacheLineBytes);
  std::vector<std::uint32_t> next(lines);
  std::iota(next.begin(), next.end(), 0U);
  std::mt19937_64 random(1);
  for (std::size_t i = lines - 1; i > 0; --i) std::swap(next[i], next[random() % i]);
  for (std::size_t i = 0; i < lines; ++i) {
    std::memcpy(data + i * simd::kCacheLineBytes, &next[i], sizeof next[i]);
  }
  constexpr std::size_t kSteps = 50'000;
  std::uint32_t line = 0;
  double best = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    const double began = own_clock();
    for (std::size_t i = 0; i < kSteps; ++i) {
      line = word_at(data + std::size_t{line} * simd::kCacheLineBytes);
    }
    keep(line);
    best = std::min(best, (own_clock() - began) * 1e9 / kSteps);
  }
  return best;
}

void print_plane(const BufferShape& plane, const std::vector<unsigned>& threads) {
  const Buffer buffer(plane.bytes());
  const double lines = plane.lines_per_record(buffer.data());
  std::printf("{\"name\": \"%s\", \"record_bytes\": %zu, \"bytes\": %zu, ", plane.name,
              plane.record_bytes, plane.bytes());
  std::printf("\"lines_per_record\": %.4f, \"rates\": [", lines);
  const char* separator = "";
  for (const Level level : kLevels) {
    const Rate rate = best_rate(level, buffer.data(), plane, lines);
    for (const unsigned n : threads) {
      const double records_per_s =
          n == 1 ? rate.records_per_s
                 : rate_of_many(level, buffer.data(), plane, rate.ahead, lines, n);
      std::printf("%s{\"into\": \"%s\", \"threads\": %u, \"ahead\": %zu, \"records_per_s\": %.0f}",
                  separator, name_of(level), n, rate.ahead, records_per_s);
      separator = ", ";
    }
  }
  std::printf("], \"latency_ns\": %.2f}", latency_ns(buffer.data(), plane.bytes()));
}

// Nanoseconds of one of `n` distances that a call measures.
template <typename Call>
double ns_per_distance(std::size_t n, const Call& call) {
  constexpr std::size_t kDistances = 100'000;
  double best = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    const double began = own_clock();
    for (std::size_t i = 0; i < kDistances; i += n) call();
    best = std::min(best, (own_clock() - began) * 1e9 / kDistances);
  }
  return best;
}

// Points that leave room for the query in a first-level cache of 32 KB.
std::size_t points_at_hand(std::size_t point_bytes) {
  constexpr std::size_t kRoomBytes = 16 << 10;
  return std::clamp<std::size_t>(kRoomBytes / point_bytes / kTogether * kTogether, kTogether,
                                 kMostTogether);
}

// fill(record) makes a record of an ordinary vector: with numbers too small for a normal float,
// kernels take two or three times as long.
template <typename Fill, typename One, typename Many>
void print_kernel(const char* name, std::size_t point_bytes, const Fill& fill, const One& one,
                  const Many& many) {
  const std::size_t n = points_at_hand(point_bytes);
  const Buffer buffer((n + 1) * point_bytes);
  for (std::size_t i = 0; i <= n; ++i) fill(buffer.data() + i * point_bytes);
  std::vector<Point> points;
  for (std::size_t i = 1; i <= n; ++i) points.push_back(buffer.data() + i * point_bytes);
  std::array<float, kMostTogether> distances{};
  const double together = ns_per_distance(n, [&] {
    many(buffer.data(), points.data(), n, distances.data());
    keep(distances);
  });
  const double alone = ns_per_distance(n, [&] {
    for (std::size_t i = 0; i < n; ++i) distances[i] = one(buffer.data(), points[i]);
    keep(distances);
  });
  std::printf("\"%s\": {\"together_ns\": %.3f, \"alone_ns\": %.3f}", name, together, alone);
}

void print_kernels(const CodeSpace& codes, const Space& space) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> vector(space.padded_dim());
  const auto next = [&] {
    for (float& x : vector) x = normal(random);
    return vector.data();
  };
  std::printf("\"kernels\": {\"simd\": \"%s\", ", simd::kernels().name);
  print_kernel(
      "codes", codes.point_bytes(),
      [&](char* record) { codes.encode(next(), reinterpret_cast<std::byte*>(record)); },
      [&](Point a, Point b) { return codes.distance(a, b); },
      [&](Point a, const Point* others, std::size_t n, float* out) {
        codes.distances(a, others, n, out);
      });
  std::printf(", ");
  print_kernel(
      "vectors", space.row_bytes(),
      [&](char* record) { std::memcpy(record, next(), space.row_bytes()); },
      [&](Point a, Point b) { return space.distance(a, b); },
      [&](Point a, const Point* others, std::size_t n, float* out) {
        space.distances(a, others, n, out);
      });
  std::printf("}");
}

std::size_t list_bytes(std::size_t cap) {
  LinkTable table(cap);
  table.ensure(2);
  return static_cast<std::size_t>(table.words(1) - table.words(0)) * sizeof(LinkWord);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: upvec_limit DIM l2|ip|cosine M SLOTS THREADS...\n");
    return 2;
  }
  const auto number = [&](int i) { return static_cast<std::size_t>(std::stoull(argv[i])); };
  const std::string metric = argv[2];
  const Metric by = metric == "l2"   ? Metric::kL2
                    : metric == "ip" ? Metric::kInnerProduct
                                     : Metric::kCosine;
  const std::size_t dim = number(1);
  const std::size_t slots = number(4);
  std::vector<unsigned> threads = {1};
  for (int i = 5; i < argc; ++i) {
    if (number(i) > 1) threads.push_back(static_cast<unsigned>(number(i)));
  }
  const CodeSpace codes(by, dim);
  const Space space(by, dim, Keep::kF32, codes);
  // By the names of the counters that UPVEC_COUNTERS adds.
  const std::vector<BufferShape> planes = {
      {"codes", codes.point_bytes(), slots}, {"links", list_bytes(2 * number(3)), slots},
      {"row_of", sizeof(Row), slots},        {"headers", sizeof(RowHeader), slots},
      {"vectors", space.row_bytes(), slots},
  };
  std::printf("{");
  print_kernels(codes, space);
  std::printf(", \"planes\": [");
  for (std::size_t i = 0; i < planes.size(); ++i) {
    std::printf(i > 0 ? ", " : "");
    print_plane(planes[i], threads);
  }
  std::printf("]}\n");
  return 0;
}
