// The writer's side of an index: one batch, from keys and vectors to a published commit.

#include <algorithm>
#include <cstring>
#include <string>

#include "drift.hpp"
#include "stopwatch.hpp"
#include "store.hpp"
#include "team.hpp"

namespace upvec {
namespace {

// Rows planned on one frozen graph. Rows of a sub-batch are measured against each other, so a large
// one costs distances, not recall; a small one makes threads wait. Taken from an earlier prototype
// (25,000 rows: recall equal from 1 to 1,024, 1 to 5 % more time at 256), not yet tuned here.
constexpr std::size_t kSubBatch = 256;

struct Change {
  std::uint64_t position;  // in the batch
  Slot slot;
  Task task;
  float drift = 0.0F;  // kDrift: how far it moves
};

[[noreturn]] void throw_duplicates(const KeySpan& keys, std::vector<std::uint64_t> repeated) {
  const std::uint64_t at = repeated.front();
  const std::size_t count = repeated.size();
  std::string key;
  if (keys.type() == KeyType::kInt64) {
    key = std::to_string(keys.int_at(at));
  } else {
    key.append("'").append(keys.string_at(at)).append("'");
  }
  throw Error(ErrorCode::kDuplicateKey,
              "key " + key + " at row " + std::to_string(at) + " is in the batch already (" +
                  std::to_string(count) + " such rows); pass duplicates=\"first\" or \"last\"",
              std::move(repeated));
}

// Positions to use, ascending; the others are dropped duplicates.
std::vector<std::uint64_t> without_duplicates(const Store& store, const KeySpan& keys,
                                              Duplicates duplicates) {
  std::vector<std::uint32_t> first(keys.size());
  first_occurrence(keys, store.options.seed, first);
  std::vector<std::uint64_t> repeated;
  std::vector<std::uint32_t> last = first;  // of each key, at the position of its first row
  for (std::uint32_t i = 0; i < first.size(); ++i) {
    if (first[i] != i) repeated.push_back(i);
    last[first[i]] = i;
  }
  if (duplicates == Duplicates::kError && !repeated.empty()) {
    throw_duplicates(keys, std::move(repeated));
  }
  std::vector<std::uint64_t> positions;
  positions.reserve(keys.size() - repeated.size());
  for (std::uint32_t i = 0; i < first.size(); ++i) {
    const std::uint32_t used = duplicates == Duplicates::kLast ? last[first[i]] : first[i];
    if (used == i) positions.push_back(i);
  }
  return positions;
}

void require_writable(const Store& store) {
  if (store.broken) {
    throw Error(ErrorCode::kLimit,
                "memory ran out in the middle of an earlier commit; the index can be read only");
  }
}

// One commit: everything between the decision what to change and the new head.
class Writer {
 public:
  // replaced: how many of the changes take the place of a row that is shown.
  Writer(Store& store, const WriteOptions& options, std::size_t changes, std::size_t replaced)
      : store_(store),
        graph_(store.graph),
        seq_(store.head + 1),
        team_(Team::useful_threads(options.threads, changes / 8)) {
    graph_.pending.reserve(changes);
    if (graph_.walks_codes && replaced > 0) {
      old_codes_ = std::make_shared<OldCodes>(seq_, replaced, graph_.code_space);
      store_.old_codes.set(old_codes_);
    }
    for (unsigned i = 0; i < team_.size(); ++i) loans_.push_back(store.scratches.take());
    for (ScratchPool::Loan& loan : loans_) scratches_.push_back(&*loan);
    // From here on readers may meet rows of a commit they must not see.
    store_.writing.store(seq_, std::memory_order_seq_cst);
    count(&WritePhases::threads_ns);
  }

  // kept: what a row keeps of the vector.
  void write_row(const Change& change, std::uint64_t key, const std::byte* kept) {
    const Row row = graph_.rows.allocate();
    std::memcpy(graph_.rows.vector(row), kept, graph_.space.row_bytes());
    std::atomic<Row>& current = graph_.row_of[change.slot];
    const Row previous = current.load(std::memory_order_relaxed);
    graph_.rows.header(row).set(seq_, key, previous, change.task == Task::kRemove);
    if (previous != kNoRow) {
      store_.retired.row(seq_, change.slot, previous, row);
    } else {
      graph_.free_keys.erase(change.slot);
    }
    if (change.task == Task::kRemove) store_.retired.tombstone(seq_, change.slot, row);
    switch (change.task) {
      case Task::kInsert:  // not linked yet: its linked row may be the new one at once
        show(change.slot, row);
        break;
      case Task::kDrift:  // its links are as right for the new row
        note_change(change.slot);
        show(change.slot, row);
        entries_change_ = entries_change_ || store_.is_near_entries(change.slot);
        break;
      default:
        wait(change.slot, row);
    }
  }

  // Gives links to all that need them, sub-batch by sub-batch.
  void relink(std::vector<Change>& changes) {
    if (entries_change_) choose_entries();  // what has drifted
    std::erase_if(changes, [](const Change& change) { return change.task == Task::kDrift; });
    count(&WritePhases::rows_ns);
    for (std::size_t begin = 0; begin < changes.size(); begin += kSubBatch) {
      const std::size_t n = std::min(kSubBatch, changes.size() - begin);
      std::vector<Slot> starved = run(std::span<const Change>(changes).subspan(begin, n));
      // Slots that wait for a later sub-batch of this batch get new links, or none, there.
      std::erase_if(starved, [&](Slot slot) {
        return (graph_.flags[slot] & kLeaving) != 0 || graph_.is_pending(slot);
      });
      if (starved.empty()) continue;
      std::vector<Change> again;
      again.reserve(starved.size());
      for (const Slot slot : starved) again.push_back({0, slot, Task::kRelink});
      for (std::size_t at = 0; at < again.size(); at += kSubBatch) {
        run(std::span<const Change>(again).subspan(at, std::min(kSubBatch, again.size() - at)));
      }
    }
  }

  void finish(bool publish) {
    store_.phases.sections += team_.sections();
    graph_.pending.clear();
    store_.head = seq_;
    if (!publish) return;
    // Who reads an older version from now on finds the changes in the log, one by one.
    store_.old_codes.set(nullptr);
    store_.published_live.store(store_.live, std::memory_order_relaxed);
    store_.epochs.publish(seq_);
  }

 private:
  // The time since the last count belongs to this phase.
  void count(std::uint64_t WritePhases::*phase) { store_.phases.*phase += watch_.lap_ns(); }

  // First, before anything of the slot changes: so a reader who does not find it where it was finds
  // it here.
  void note_change(Slot slot) {
    store_.changes.add(seq_, slot);
    if (old_codes_) old_codes_->add(slot, graph_.code(slot), graph_.code_space);
  }

  // The slot's code first: whoever finds the row there may use it.
  void show(Slot slot, Row row) {
    if (graph_.has_codes) {
      code_.resize(graph_.code_space.point_bytes());
      encode(row, code_.data());
      graph_.code_space.copy(code_.data(), graph_.codes.at(slot));
    }
    graph_.row_of[slot].store(row, std::memory_order_release);
  }

  void wait(Slot slot, Row row) {
    const std::uint32_t place = graph_.pending.add(row);
    if (graph_.has_codes) encode(row, graph_.pending.code(place));
    graph_.pending_of[slot] = place;
    graph_.flags[slot] |= kPending;
  }

  // Of what the row keeps, so that loading it gives the same code.
  void encode(Row row, std::byte* code) {
    floats_.resize(graph_.space.padded_dim());
    graph_.code_space.encode(graph_.space.floats(graph_.rows.vector(row), floats_.data()), code);
  }

  void show_pending(Slot slot) {
    std::uint32_t& place = graph_.pending_of[slot];
    if (graph_.has_codes) {
      graph_.code_space.copy(graph_.pending.code(place), graph_.codes.at(slot));
    }
    graph_.row_of[slot].store(graph_.pending.row(place), std::memory_order_release);
    place = 0;
    graph_.flags[slot] &= static_cast<std::uint8_t>(~kPending);
  }

  // One sub-batch: plan, anchor, commit, flip. Returns the slots left with too few links.
  std::vector<Slot> run(std::span<const Change> changes) {
    items_.resize(std::max(items_.size(), changes.size()));
    const std::span<Item> items(items_.data(), changes.size());
    for (std::size_t i = 0; i < changes.size(); ++i) {
      Item& item = items[i];
      item.slot = changes[i].slot;
      item.task = changes[i].task;
      item.levels.resize(graph_.level_of(item.slot) + 1);
      for (LevelPlan& plan : item.levels) {
        plan.links.clear();
        plan.old_links.clear();
        plan.old_in.clear();
      }
      graph_.flags[item.slot] |= kInFlight;
    }
    peers_.gather(items);
    store_.commit.begin(team_.size());
    count(&WritePhases::settle_ns);
    team_.run(items.size(), 4, [&](std::size_t i, unsigned worker) {
      plan_item(graph_, items[i], peers_, store_.options.ef_construction, *scratches_[worker]);
      store_.commit.ask(items[i], i, worker);
    });
    count(&WritePhases::plan_ns);
    const std::vector<ForcedLink> forced = store_.anchors.reattach(items, scratches_[0]->counters);
    count(&WritePhases::anchors_ns);
    for (const Item& item : items) {
      if (item.leaves_place()) note_change(item.slot);
    }
    const auto changes_entries = [&](const Item& item) {
      return item.task != Task::kRelink && store_.is_near_entries(item.slot);
    };
    entries_change_ =
        store_.has_outgrown_entries() || std::any_of(items.begin(), items.end(), changes_entries);
    // No search should start at a slot that is about to lose its list.
    if (entries_change_ && changes.front().task == Task::kRemove) store_.choose_entries();
    const std::uint64_t shared_ns = team_.run_ns();
    std::vector<Slot> starved = store_.commit.run(items, forced, team_, scratches_);
    store_.phases.lists_ns += team_.run_ns() - shared_ns;
    store_.phases.gather_ns -= team_.run_ns() - shared_ns;
    count(&WritePhases::gather_ns);
    for (const Item& item : items) settle(item);
    store_.choose_entry();
    if (entries_change_) choose_entries();
    count(&WritePhases::settle_ns);
    return starved;
  }

  void choose_entries() {
    store_.choose_entries();
    entries_change_ = false;
  }

  void settle(const Item& item) {
    std::uint8_t& flags = graph_.flags[item.slot];
    flags &= static_cast<std::uint8_t>(~kInFlight);
    const std::size_t level = item.levels.size() - 1;
    if (item.gets_links()) graph_.info[item.slot].slack = item.slack;
    if (item.leaves_place()) show_pending(item.slot);
    if (item.task == Task::kInsert && level > 0) store_.by_level[level].insert(item.slot);
    if (item.task != Task::kRemove) return;
    if (level > 0) store_.by_level[level].erase(item.slot);
    flags &= static_cast<std::uint8_t>(~(kLive | kLeaving));
    if ((flags & kInFreeList) == 0) {
      flags |= kInFreeList;
      store_.free_slots.push_back(item.slot);
    }
  }

  Store& store_;
  Graph& graph_;
  std::uint64_t seq_;
  Stopwatch watch_;
  Team team_;
  std::vector<ScratchPool::Loan> loans_;
  std::vector<Scratch*> scratches_;
  std::vector<Item> items_;
  Peers peers_;
  std::vector<std::byte> code_;
  bool entries_change_ = false;
  std::vector<float> floats_;
  std::shared_ptr<OldCodes> old_codes_;
};

// How far the slot would move to what is kept of its new vector.
float drift_to(const Graph& graph, Slot slot, const std::byte* kept) {
  return length_of(graph.space.metric(), graph.space.distance(graph.planned_vector(slot), kept));
}

// What is kept of the vectors of a batch; throws if one cannot be stored.
class PreparedRows {
 public:
  PreparedRows(const Store& store, const MatrixView& vectors)
      : stride_(store.graph.space.row_bytes()) {
    const Space& space = store.graph.space;
    const std::size_t floats = (vectors.rows * stride_ + sizeof(float) - 1) / sizeof(float);
    bytes_ = reinterpret_cast<std::byte*>(storage_.reserve(std::max<std::size_t>(1, floats)));
    PaddedVector room;
    room.reserve(space.padded_dim());
    std::vector<std::uint64_t> bad;
    for (std::size_t i = 0; i < vectors.rows; ++i) {
      if (!prepare_row(store.options, space, vectors.row(i), room.data(), bytes_ + i * stride_)) {
        bad.push_back(i);
      }
    }
    if (!bad.empty()) throw_bad_vectors(store.options, vectors, std::move(bad), "vectors");
  }
  [[nodiscard]] const std::byte* row(std::size_t i) const noexcept { return bytes_ + i * stride_; }

 private:
  std::size_t stride_;
  PaddedVector storage_;
  std::byte* bytes_;
};

// Slots for new keys: the oldest free ones, then fresh ones.
class SlotSource {
 public:
  explicit SlotSource(Store& store) : store_(store) {}

  // Everything that may fail for lack of memory or room, before anything is changed.
  void reserve(const KeySpan& keys, std::size_t inserts, std::size_t rows) {
    const std::size_t end = store_.graph.slot_end.load(std::memory_order_relaxed) + inserts;
    if (end > kMaxSlots) throw Error(ErrorCode::kLimit, "an index holds at most 2^31 - 2 keys");
    store_.graph.ensure_slots(end);
    store_.graph.rows.reserve(rows);
    store_.keys.reserve(keys, inserts);
  }

  // The slot that a removed key left, if nobody took it since.
  void revive(Slot slot) { store_.graph.flags[slot] |= kLive; }

  struct Taken {
    Slot slot;
    std::uint64_t key;
  };
  Taken take(const KeySpan& keys, std::size_t i, std::uint64_t seq) {
    const Slot slot = next_free(seq);
    const StoredKey key = store_.keys.assign(keys, i, slot);
    store_.graph.flags[slot] |= kLive;
    // Decorrelated from the place in the key index, which uses the top bits of the same hash.
    store_.set_level(slot, store_.draw_level(store_.keys.hash(keys, i) * 0x9e3779b97f4a7c15ULL));
    return {slot, static_cast<std::uint64_t>(key)};
  }

 private:
  Slot next_free(std::uint64_t seq) {
    while (!store_.free_slots.empty()) {
      const Slot slot = store_.free_slots.front();
      store_.free_slots.pop_front();
      std::uint8_t& flags = store_.graph.flags[slot];
      flags &= static_cast<std::uint8_t>(~kInFreeList);
      if ((flags & kLive) != 0) continue;  // revived
      const std::uint64_t key = store_.graph.key_of(slot);
      store_.keys_erased_at.store(seq, std::memory_order_seq_cst);
      // The note of it first: where memory runs out for that, the key index still owns the key.
      store_.retired.key(seq, slot, key);
      store_.keys.erase(StoredKey{key});
      return slot;
    }
    const Slot slot = store_.graph.slot_end.load(std::memory_order_relaxed);
    store_.graph.slot_end.store(slot + 1, std::memory_order_release);
    return slot;
  }

  Store& store_;
};

// Marks the store unwritable if a commit is left half-way by an exception.
class CommitGuard {
 public:
  explicit CommitGuard(Store& store) : store_(store) {}
  ~CommitGuard() {
    if (!done_) store_.broken = true;
  }
  CommitGuard(const CommitGuard&) = delete;
  CommitGuard& operator=(const CommitGuard&) = delete;
  void done() noexcept { done_ = true; }

 private:
  Store& store_;
  bool done_ = false;
};

}  // namespace

std::vector<Outcome> upsert(Store& store, const KeySpan& keys, MatrixView vectors,
                            const UpsertOptions& options) {
  require_key_type(store, keys);
  require_dim(store.options, vectors, "vectors");
  if (keys.size() != vectors.rows) {
    throw Error(ErrorCode::kInvalidArgument, "got " + std::to_string(keys.size()) + " keys and " +
                                                 std::to_string(vectors.rows) + " vectors");
  }
  Stopwatch watch;
  const PreparedRows prepared(store, vectors);
  const std::vector<std::uint64_t> positions = without_duplicates(store, keys, options.duplicates);

  const std::uint64_t prepare_ns = watch.lap_ns();
  const std::scoped_lock lock(store.write_mutex);
  watch.lap_ns();  // waiting for other writers is not counted
  require_writable(store);
  store.ensure_in_lists();
  store.reclaim();
  std::vector<Outcome> outcomes(keys.size(), Outcome::kSkipped);
  std::vector<std::uint32_t> found(keys.size());
  store.keys.find(keys, found);

  std::vector<Change> changes;
  std::size_t inserts = 0;
  const std::size_t row_bytes = store.graph.space.row_bytes();
  for (const std::uint64_t i : positions) {
    const bool known = found[i] != kNoValue;
    const bool live = known && (store.graph.flags[found[i]] & kLive) != 0;
    if (!live) {
      if (options.mode == Mode::kUpdateOnly) continue;
      outcomes[i] = Outcome::kInserted;
      changes.push_back({i, known ? found[i] : kNoSlot, Task::kInsert});
      inserts += known ? 0 : 1;
    } else if (options.mode == Mode::kInsertOnly) {
      continue;
    } else if (std::memcmp(store.graph.planned_vector(found[i]), prepared.row(i), row_bytes) == 0) {
      outcomes[i] = Outcome::kUnchanged;
    } else {
      outcomes[i] = Outcome::kUpdated;
      const float drift = drift_to(store.graph, found[i], prepared.row(i));
      const float slack = store.graph.info[found[i]].slack;
      const bool links_stay = slack > 0.0F && drift <= slack;
      changes.push_back({i, found[i], links_stay ? Task::kDrift : Task::kMove, drift});
    }
  }
  store.phases.check_ns += prepare_ns + watch.lap_ns();
  if (changes.empty()) return outcomes;

  SlotSource slots(store);
  slots.reserve(keys, inserts, changes.size());
  const auto replaced = static_cast<std::size_t>(
      std::count_if(changes.begin(), changes.end(),
                    [](const Change& change) { return change.task != Task::kInsert; }));
  Writer writer(store, options, changes.size(), replaced);
  CommitGuard guard(store);
  // Known keys first: a slot that is revived must not be taken by a new key of the same batch.
  for (const Change& change : changes) {
    if (change.task == Task::kInsert && change.slot != kNoSlot) slots.revive(change.slot);
  }
  for (Change& change : changes) {
    if (change.task == Task::kInsert) ++store.live;
    std::uint64_t key = 0;
    if (change.slot == kNoSlot) {
      const SlotSource::Taken taken = slots.take(keys, change.position, store.head + 1);
      change.slot = taken.slot;
      key = taken.key;
    } else {
      key = store.graph.key_of(change.slot);
    }
    if (change.task == Task::kDrift) store.graph.info[change.slot].slack -= change.drift;
    writer.write_row(change, key, prepared.row(change.position));
  }
  writer.relink(changes);
  writer.finish(options.publish);
  guard.done();
  return outcomes;
}

std::vector<std::uint8_t> remove(Store& store, const KeySpan& keys, const WriteOptions& options) {
  require_key_type(store, keys);
  const std::scoped_lock lock(store.write_mutex);
  Stopwatch watch;
  require_writable(store);
  store.ensure_in_lists();
  store.reclaim();
  std::vector<std::uint32_t> found(keys.size());
  store.keys.find(keys, found);

  std::vector<std::uint8_t> removed(keys.size(), 0);
  std::vector<Change> changes;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (found[i] == kNoValue) continue;
    if ((store.graph.flags[found[i]] & kLive) == 0) continue;
    removed[i] = 1;
    changes.push_back({i, found[i], Task::kRemove});
  }
  store.phases.check_ns += watch.lap_ns();
  if (changes.empty()) return removed;
  store.graph.rows.reserve(changes.size());
  Writer writer(store, options, changes.size(), changes.size());
  CommitGuard guard(store);
  std::erase_if(changes, [&](const Change& change) {
    std::uint8_t& flags = store.graph.flags[change.slot];
    const bool again = (flags & kLeaving) != 0;
    flags |= kLeaving;
    if (again) removed[change.position] = 0;
    return again;
  });
  for (const Change& change : changes) {
    // The tombstone carries the vector: readers of older versions may still pass through.
    writer.write_row(change, store.graph.key_of(change.slot),
                     store.graph.planned_vector(change.slot));
  }
  store.live -= changes.size();
  writer.relink(changes);
  writer.finish(options.publish);
  guard.done();
  return removed;
}

}  // namespace upvec
