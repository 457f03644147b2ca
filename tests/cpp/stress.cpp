// Everything at once: writers that insert, move, repeat, remove and insert again; readers of the
// published version and of held snapshots; saving, loading, copying and counting beside them; on an
// index that grows from nothing past several chunks of memory.
//
//   upvec_stress [SECONDS [SEED]]     (default: 2 seconds; UPVEC_STRESS_SECONDS)
//
// Keys come in groups. One call writes a whole group to its next version, or removes it; every
// vector tells its key, version and batch, and all else in it follows from these. So a reader can
// tell of every answer whether it was true at some moment between the call and the return: no
// version older than what was acknowledged before, none that nobody wrote, all keys of a group at
// one version, distances as recomputed.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "complaints.hpp"
#include "model.hpp"
#include "random.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kDim = 256;  // 2,048 vectors and 8,192 codes a chunk
constexpr std::array<int, 4> kSizes = {1, 7, 40,
                                       300};  // keys of a group; the last: two sub-batches
constexpr int kGroups = 80;
constexpr int kKeysInFour = 348;  // of kSizes together

// Groups ------------------------------------------------------------------------------------------

int size_of(int group) { return kSizes[static_cast<std::size_t>(group) % kSizes.size()]; }

int first_of(int group) {
  int first = group / 4 * kKeysInFour;
  for (int other = group / 4 * 4; other < group; ++other) first += size_of(other);
  return first;
}

int group_of(int number) {
  int group = number / kKeysInFour * 4;
  while (number >= first_of(group) + size_of(group)) ++group;
  return group;
}

std::vector<int> members(int group) {
  std::vector<int> numbers(static_cast<std::size_t>(size_of(group)));
  std::iota(numbers.begin(), numbers.end(), first_of(group));
  return numbers;
}

// Readers make a great many vectors to compare with: the thread sanitizer need not watch that.
#define UPVEC_UNWATCHED __attribute__((no_sanitize("thread")))

UPVEC_UNWATCHED std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Version 0 is before the first write; some of the later ones are removals.
bool is_gone(int group, int version) {
  return version == 0 ||
         mix(static_cast<std::uint64_t>(group) * 1'000'003 + static_cast<std::uint64_t>(version)) %
                 6 ==
             0;
}

int version_of(const Vector& vector) { return static_cast<int>(vector[1] * 1024); }

UPVEC_UNWATCHED float unit_of(std::uint64_t bits) {
  return static_cast<float>(mix(bits) >> 40) * 0x1p-23F - 1.0F;
}

UPVEC_UNWATCHED void fill(float* vector, std::uint64_t place, std::uint64_t drift) {
  for (std::size_t i = 0; i < kDim; ++i) {
    vector[i] = unit_of(place + i) + 0.05F * unit_of(drift - i);
  }
}

// Four versions are near each other, then the key moves far. The first three numbers are the key,
// the version and the batch, so small that they do not outweigh the place.
Vector vector_of(int number, int version) {
  const auto seed = static_cast<std::uint64_t>(number) << 32;
  const auto coarse = static_cast<std::uint64_t>(version / 4) * 521;
  const auto fine = static_cast<std::uint64_t>(version) * 521;
  Vector vector(kDim);
  fill(vector.data(), seed + coarse, ~seed - fine);
  vector[0] = static_cast<float>(number) * 0x1p-12F;
  vector[1] = static_cast<float>(version) * 0x1p-10F;
  vector[2] = static_cast<float>(version * kGroups + group_of(number)) * 0x1p-16F;
  return vector;
}

// What the writers say of a group. Versions that a reader may meet: those from `done` before its
// call to `begun` after it.
struct alignas(64) Progress {
  std::atomic<int> begun{0};
  std::atomic<int> done{0};
};
using Versions = std::array<int, kGroups>;

struct Tally {
  std::atomic<unsigned long> searches{0}, gets{0}, snapshots{0}, saves{0}, upserts{0}, removes{0};
  std::atomic<unsigned long> sought{0}, met{0};  // stored vectors as queries, and found first
};

struct Scene {
  explicit Scene(const IndexOptions& options, Clock::time_point until)
      : index(options), end(until) {}
  Index index;
  Clock::time_point end;
  std::array<Progress, kGroups> progress;
  Complaints complaints;
  Tally tally;

  [[nodiscard]] bool over() const { return complaints.any() || Clock::now() >= end; }
  [[nodiscard]] Versions done() const {
    Versions versions{};
    for (std::size_t g = 0; g < kGroups; ++g) versions[g] = progress[g].done.load();
    return versions;
  }
  [[nodiscard]] Versions begun() const {
    Versions versions{};
    for (std::size_t g = 0; g < kGroups; ++g) versions[g] = progress[g].begun.load();
    return versions;
  }
};

// Readers -----------------------------------------------------------------------------------------

// Versions that each group may have in one answer, narrowed by every hit.
class Possible {
 public:
  Possible(const Versions& low, const Versions& high) : low_(low), high_(high) {}

  std::vector<int>& of(int group) {
    const auto [place, fresh] = versions_.try_emplace(group);
    const auto at = static_cast<std::size_t>(group);
    for (int v = low_[at]; fresh && v <= high_[at]; ++v) {
      if (!is_gone(group, v)) place->second.push_back(v);
    }
    return place->second;
  }
  bool narrow(int number, double distance, const Vector& query) {
    std::vector<int>& versions = of(group_of(number));
    std::erase_if(versions, [&](int version) {
      const Vector vector = vector_of(number, version);
      return !close(distance, testing::distance(Metric::kL2, query, vector));
    });
    return !versions.empty();
  }
  [[nodiscard]] const std::map<int, std::vector<int>>& all() const { return versions_; }

 private:
  Versions low_;
  Versions high_;
  std::map<int, std::vector<int>> versions_;
};

class Reader {
 public:
  Reader(Scene& scene, std::uint32_t seed) : scene_(scene), index_(scene.index), random_(seed) {}

  void read_published() {
    switch (random_() % 4) {
      case 0:
        get_published();
        break;
      case 1:
        search_published([&](const SearchOptions& options) {
          return index_.search(query_.view(), kHits, options);
        });
        break;
      case 2:
        random_() % 4 == 0 ? search_published([&](SearchOptions options) {
          options.threads = 2;
          return index_.exact_search(query_.view(), kHits, options);
        })
                           : filtered_published();
        break;
      default:
        range_published();
    }
    let_writers_work();
  }

  // Takes a snapshot, learns what it shows of a few groups, and then holds it: every later answer
  // must be the same, whatever is committed meanwhile.
  void hold_snapshot() {
    ++scene_.tally.snapshots;
    const Versions low = known();
    const Snapshot snapshot = index_.snapshot();
    const Versions high = scene_.begun();
    View view{snapshot, low, high, {}, {}};
    for (int i = 0; i < 3; ++i) learn(view, some_group());
    const auto release = Clock::now() + std::chrono::milliseconds(random_() % 300);
    do {
      read_again(view);
      let_writers_work();
    } while (Clock::now() < release && !scene_.over());
  }

 private:
  static constexpr std::size_t kHits = 12;

  struct View {
    const Snapshot& snapshot;
    Versions low;
    Versions high;
    std::map<int, int> versions;  // of the groups learned; gone ones: 0
    std::vector<int> numbers;     // of their keys that are there
  };

  void demand(bool holds, const char* what) { scene_.complaints.demand(holds, what); }

  // There are fewer processors than threads: without a pause, readers read the same over and over.
  static void let_writers_work() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

  int some_group() { return static_cast<int>(random_() % kGroups); }

  // No group may be older than what was acknowledged, or than what this reader has seen before.
  Versions known() {
    Versions low = scene_.done();
    for (std::size_t g = 0; g < kGroups; ++g) low[g] = std::max(low[g], seen_[g]);
    return low;
  }
  void saw(int group, int version) {
    int& newest = seen_[static_cast<std::size_t>(group)];
    newest = std::max(newest, version);
  }

  // Where some key was lately, is, or is not yet.
  void choose_query() {
    const int group = some_group();
    const int number = first_of(group) + static_cast<int>(random_()) % size_of(group);
    const int version = scene_.progress[static_cast<std::size_t>(group)].done.load() +
                        static_cast<int>(random_() % 3) - 1;
    query_ = {kDim, {}};
    query_.add(vector_of(std::max(number, first_of(group)), std::max(version, 0)));
  }

  // The version that an answer shows of a whole group; 0 if it is not there.
  int shown(int group, const std::vector<int>& numbers, const Got& got) {
    const bool there = got.found[0] != 0;
    const int version = there ? version_of(got.vectors.row(0)) : 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      demand((got.found[i] != 0) == there, "get: half a batch is there");
      if (!there) continue;
      const Vector row = got.vectors.row(i);
      demand(version_of(row) == version, "get: two versions of one batch");
      demand(row == vector_of(numbers[i], version), "get: not a vector of this key");
    }
    demand(!there || !is_gone(group, version), "get: a version that is a removal");
    return version;
  }

  void demand_between(int group, int version, int low, int high) {
    if (version != 0) {
      demand(version >= low, "get: older than what was acknowledged or seen");
      demand(version <= high, "get: newer than what was begun");
      return;
    }
    bool gone = false;
    for (int v = low; v <= high; ++v) gone = gone || is_gone(group, v);
    demand(gone, "get: not found, but never removed");
  }

  void get_published() {
    ++scene_.tally.gets;
    const int group = some_group();
    const auto at = static_cast<std::size_t>(group);
    const std::vector<int> numbers = members(group);
    const int low = known()[at];
    const Got got = get(index_, numbers);
    const int version = shown(group, numbers, got);
    demand_between(group, version, low, scene_.progress[at].begun.load());
    saw(group, version);
  }

  void check_hits(std::span<const float> distances, const Keys& keys, Possible& possible) {
    std::vector<int> met;
    for (std::size_t i = 0; i < distances.size(); ++i) {
      met.push_back(number_of(keys, i));
      demand(i == 0 || distances[i - 1] <= distances[i], "hits: not nearest first");
      demand(possible.narrow(met.back(), distances[i], query_.row(0)),
             "hits: no one version of a whole batch explains the distances");
    }
    std::sort(met.begin(), met.end());
    demand(std::adjacent_find(met.begin(), met.end()) == met.end(), "hits: a key twice");
  }
  void check_hits(const SearchResult& result, Possible& possible) {
    const auto count = static_cast<std::size_t>(result.counts[0]);
    check_hits(std::span(result.distances).first(count), result.keys, possible);
  }
  void remember(const Possible& possible) {
    for (const auto& [group, versions] : possible.all()) {
      if (versions.size() == 1) saw(group, versions[0]);
    }
  }

  SearchOptions some_options() {
    SearchOptions options;
    options.ef = std::array<std::size_t, 3>{0, 12, 200}[random_() % 3];
    options.threads = 1;
    return options;
  }

  void search_published(const std::function<SearchResult(const SearchOptions&)>& search) {
    ++scene_.tally.searches;
    choose_query();
    const Versions low = known();
    const SearchResult result = search(some_options());
    Possible possible(low, scene_.begun());
    check_hits(result, possible);
    remember(possible);
  }

  void filtered_published() {
    const int group = some_group();
    const Keys allowed = key_column(index_.options().key_type, members(group));
    search_published([&](SearchOptions options) {
      const Filter filter = index_.filter(allowed.span());
      options.filter = &filter;
      options.way =
          std::array<FilterWay, 4>{FilterWay::kAuto, FilterWay::kScan, FilterWay::kWalkAllowed,
                                   FilterWay::kWalkAll}[random_() % 4];
      SearchResult result = index_.search(query_.view(), kHits, options);
      for (std::int64_t i = 0; i < result.counts[0]; ++i) {
        const int number = number_of(result.keys, static_cast<std::size_t>(i));
        demand(group_of(number) == group, "filter: a key that is not allowed");
      }
      return result;
    });
  }

  void range_published() {
    ++scene_.tally.searches;
    choose_query();
    const Versions low = known();
    const float radius = 120.0F;
    const RangeResult result = index_.range_search(query_.view(), radius, some_options());
    Possible possible(low, scene_.begun());
    check_hits(result.distances, result.keys, possible);
    demand(result.distances.empty() || result.distances.back() <= radius, "range: beyond it");
    remember(possible);
  }

  void learn(View& view, int group) {
    const auto at = static_cast<std::size_t>(group);
    const std::vector<int> numbers = members(group);
    const int version = shown(group, numbers, get(index_, numbers, &view.snapshot));
    demand_between(group, version, view.low[at], view.high[at]);
    saw(group, version);
    if (!view.versions.try_emplace(group, version).second) return;
    // From now on this group can be nothing else.
    view.low[at] = view.high[at] = version;
    if (version != 0) view.numbers.insert(view.numbers.end(), numbers.begin(), numbers.end());
  }

  void read_again(View& view) {
    for (const auto& [group, version] : view.versions) {
      ++scene_.tally.gets;
      const std::vector<int> numbers = members(group);
      const int again = shown(group, numbers, get(index_, numbers, &view.snapshot));
      demand(again == version, "snapshot: another version than before");
    }
    search_snapshot(view);
    if (random_() % 4 == 0) exact_of_snapshot(view);
    if (random_() % 8 == 0) keys_of_snapshot(view);
  }

  void search_snapshot(View& view) {
    ++scene_.tally.searches;
    choose_query();
    const bool stored = !view.numbers.empty() && random_() % 2 == 0;
    int number = 0;
    if (stored) {
      number = view.numbers[random_() % view.numbers.size()];
      query_ = {kDim, {}};
      query_.add(vector_of(number, view.versions.at(group_of(number))));
    }
    SearchOptions options = some_options();
    options.snapshot = &view.snapshot;
    const SearchResult result = index_.search(query_.view(), kHits, options);
    Possible possible(view.low, view.high);
    check_hits(result, possible);
    if (stored) {
      ++scene_.tally.sought;
      if (result.counts[0] > 0 && number_of(result.keys, 0) == number) ++scene_.tally.met;
    }
  }

  // With a filter of all keys learned, the exact search must give just those that are there.
  void exact_of_snapshot(View& view) {
    ++scene_.tally.searches;
    choose_query();
    std::vector<int> asked;
    for (const auto& [group, version] : view.versions) {
      for (const int number : members(group)) asked.push_back(number);
    }
    const Keys allowed = key_column(index_.options().key_type, asked);
    SearchOptions options = some_options();
    options.snapshot = &view.snapshot;
    const Filter filter = index_.filter(allowed.span(), options);
    options.filter = &filter;
    demand(filter.size() == view.numbers.size(), "snapshot: a filter of other keys");
    const SearchResult result = index_.exact_search(query_.view(), asked.size() + 1, options);
    demand(static_cast<std::size_t>(result.counts[0]) == view.numbers.size(),
           "snapshot: the exact search misses keys or finds others");
    Possible possible(view.low, view.high);
    check_hits(result, possible);
  }

  void keys_of_snapshot(const View& view) {
    ReadOptions options;
    options.snapshot = &view.snapshot;
    std::map<int, int> counts;
    for (const int number : numbers_of(index_.keys(options))) ++counts[group_of(number)];
    for (const auto& [group, count] : counts) {
      demand(count == size_of(group), "keys: half a batch, or one twice");
    }
    for (const auto& [group, version] : view.versions) {
      demand(counts.contains(group) == (version != 0), "keys: not those that get() finds");
    }
  }

  Scene& scene_;
  const Index& index_;
  Random random_;
  Matrix query_{kDim, {}};
  Versions seen_{};
};

// Writers -----------------------------------------------------------------------------------------

// The only one to write its groups: those that are `self` modulo `writers`.
class GroupWriter {
 public:
  GroupWriter(Scene& scene, int self, int writers)
      : scene_(scene), self_(self), writers_(writers), random_(static_cast<std::uint32_t>(self)) {}

  void step() {
    if (active_ == 0 || (random_() % 4 != 0 && active_ < kGroups / writers_)) {
      write_next(active_++ * writers_ + self_);
      return;
    }
    const int group =
        static_cast<int>(random_() % static_cast<unsigned>(active_)) * writers_ + self_;
    const int version = scene_.progress[static_cast<std::size_t>(group)].done.load();
    if (random_() % 8 == 0 && !is_gone(group, version)) {
      upsert(group, version, Outcome::kUnchanged);
    } else {
      write_next(group);
    }
  }

 private:
  void write_next(int group) {
    Progress& progress = scene_.progress[static_cast<std::size_t>(group)];
    const int before = progress.done.load();
    progress.begun.store(before + 1);
    if (is_gone(group, before + 1)) {
      remove(group, !is_gone(group, before));
    } else {
      upsert(group, before + 1, is_gone(group, before) ? Outcome::kInserted : Outcome::kUpdated);
    }
    progress.done.store(before + 1);
  }

  [[nodiscard]] Keys keys_of(int group) const {
    return key_column(scene_.index.options().key_type, members(group));
  }

  // Sometimes committed first and published later, as a collection does.
  void choose(WriteOptions& options) {
    options.threads = 1 + random_() % 2;
    options.publish = random_() % 4 != 0;
  }

  void upsert(int group, int version, Outcome expected) {
    ++scene_.tally.upserts;
    Matrix vectors{kDim, {}};
    for (const int number : members(group)) vectors.add(vector_of(number, version));
    UpsertOptions options;
    choose(options);
    const auto outcomes = scene_.index.upsert(keys_of(group).span(), vectors.view(), options);
    if (!options.publish) scene_.index.publish();
    scene_.complaints.demand(
        std::count(outcomes.begin(), outcomes.end(), expected) == size_of(group),
        "upsert: an outcome that was not expected");
  }

  void remove(int group, bool there) {
    ++scene_.tally.removes;
    WriteOptions options;
    choose(options);
    const auto removed = scene_.index.remove(keys_of(group).span(), options);
    if (!options.publish) scene_.index.publish();
    scene_.complaints.demand(
        std::count(removed.begin(), removed.end(), there ? 1 : 0) == size_of(group),
        "remove: not what was there");
  }

  Scene& scene_;
  int self_;
  int writers_;
  Random random_;
  int active_ = 0;
};

// Files and copies --------------------------------------------------------------------------------

std::string some_file() {
  const auto name = "upvec-stress-" + std::to_string(::getpid());
  return (std::filesystem::temp_directory_path() / name).string();
}

Index saved_and_loaded(const Index& index) {
  const std::string file = some_file();
  index.save(file);
  Index loaded = Index::load(file);
  std::filesystem::remove(file);
  return loaded;
}

// Every group of a copy stands at one version between what was done before and begun after.
void check_copy(Scene& scene, const Index& copy, const Versions& low, const Versions& high) {
  for (int group = 0; group < kGroups; ++group) {
    const auto at = static_cast<std::size_t>(group);
    const std::vector<int> numbers = members(group);
    const Got got = get(copy, numbers);
    bool found = false;
    for (int v = low[at]; v <= high[at] && !found; ++v) {
      found = true;
      for (std::size_t i = 0; i < numbers.size() && found; ++i) {
        found = is_gone(group, v)
                    ? got.found[i] == 0
                    : got.found[i] != 0 && got.vectors.row(i) == vector_of(numbers[i], v);
      }
    }
    scene.complaints.demand(found, "copy: a group that is at no version as a whole");
  }
  scene.complaints.demand(copy.check().ok(), "copy: check() finds faults");
}

void save_and_copy(Scene& scene, bool by_file) {
  ++scene.tally.saves;
  const Versions low = scene.done();
  const Index copy = by_file ? saved_and_loaded(scene.index) : scene.index.copy();
  check_copy(scene, copy, low, scene.begun());
  scene.complaints.demand(copy.copy().digest() == copy.digest(), "copy: another digest");
  scene.index.reserve(scene.index.size() + 10);
  const Stats stats = scene.index.stats();
  scene.complaints.demand(stats.rows >= stats.live, "stats: fewer rows than keys");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

// Rounds ------------------------------------------------------------------------------------------

// What must hold when all have stopped.
void check_end(Scene& scene) {
  Index& index = scene.index;
  const std::string broken = why_not_ok(index.check());
  if (!broken.empty()) std::fprintf(stderr, "check: %s\n", broken.c_str());
  scene.complaints.demand(broken.empty(), "end: check() finds faults");
  check_copy(scene, index, scene.done(), scene.done());

  Index loaded = saved_and_loaded(index);
  scene.complaints.demand(loaded.digest() == index.digest(), "end: another digest when loaded");
  Matrix vectors{kDim, {}};
  for (const int number : members(3)) vectors.add(vector_of(number, 1 << 12));
  const Keys keys = key_column(index.options().key_type, members(3));
  for (Index* each : {&index, &loaded}) {
    each->upsert(keys.span(), vectors.view());
    each->remove(keys.span());
    each->upsert(keys.span(), vectors.view());
    vectors.floats[3] += 1;  // one more commit, so that what the last one retired is taken back
    each->upsert(keys.span(), vectors.view());
    vectors.floats[3] -= 1;
  }
  scene.complaints.demand(loaded.digest() == index.digest(), "end: loaded, it goes another way");
  const Stats stats = index.stats();
  scene.complaints.demand(stats.rows <= stats.live + keys.size(), "end: rows that nobody can see");
}

bool run_round(KeyType key_type, Codes codes, std::chrono::milliseconds duration,
               std::uint32_t seed) {
  IndexOptions options;
  options.dim = kDim;
  options.key_type = key_type;
  options.codes = codes;
  options.m = 4;
  options.ef_construction = 16;
  options.seed = seed;
  Scene scene(options, Clock::now() + duration);
  std::vector<std::thread> threads;
  const auto repeat = [&](auto step) {
    threads.emplace_back([&scene, step = std::move(step)]() mutable {
      while (!scene.over()) step();
    });
  };
  constexpr int kWriters = 2;
  for (int writer = 0; writer < kWriters; ++writer) {
    repeat([one = GroupWriter(scene, writer, kWriters)]() mutable { one.step(); });
  }
  for (std::uint32_t reader = 0; reader < 2; ++reader) {
    repeat([one = Reader(scene, seed + reader)]() mutable { one.read_published(); });
    repeat([one = Reader(scene, seed + 10 + reader)]() mutable { one.hold_snapshot(); });
  }
  repeat([&scene, turn = 0]() mutable { save_and_copy(scene, ++turn % 2 == 0); });
  for (std::thread& thread : threads) thread.join();
  check_end(scene);

  const Tally& tally = scene.tally;
  const Stats stats = scene.index.stats();
  std::printf(
      "%s, %s: %zu keys, %zu MiB of vectors; %lu upserts, %lu removals, %lu searches, %lu gets, "
      "%lu snapshots, %lu saves; %lu of %lu stored vectors found first; %s\n",
      key_type == KeyType::kInt64 ? "int64" : "strings", codes == Codes::kNone ? "exact" : "int8",
      stats.live, stats.vector_bytes >> 20, tally.upserts.load(), tally.removes.load(),
      tally.searches.load(), tally.gets.load(), tally.snapshots.load(), tally.saves.load(),
      tally.met.load(), tally.sought.load(),
      scene.complaints.any() ? scene.complaints.first().c_str() : "ok");
  return !scene.complaints.any();
}

}  // namespace

int main(int argc, char** argv) {
  const char* from_environment = std::getenv("UPVEC_STRESS_SECONDS");
  const char* given = argc > 1 ? argv[1] : from_environment != nullptr ? from_environment : "2";
  const std::chrono::milliseconds a_round(static_cast<int>(std::atof(given) * 1000 / 4));
  const auto seed = static_cast<std::uint32_t>(argc > 2 ? std::atoi(argv[2]) : 1);
  bool ok = true;
  for (const KeyType key_type : {KeyType::kInt64, KeyType::kString}) {
    for (const Codes codes : {Codes::kInt8, Codes::kNone}) {
      ok = run_round(key_type, codes, a_round, seed) && ok;
    }
  }
  return ok ? 0 : 1;
}
