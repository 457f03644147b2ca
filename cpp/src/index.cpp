#include "upvec/index.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "file_format.hpp"
#include "image.hpp"
#include "read.hpp"
#include "store.hpp"

namespace upvec {
namespace {

// What a read is to see, kept visible until the read is over.
class View {
 public:
  // Also of a snapshot, whose pin says what it will read, a short pin says that a read is under
  // way.
  View(const Store& store, const ReadOptions& options, const Snapshot::State* snapshot)
      : pin_(store.epochs.pin()), seq_(pin_.seq()) {
    if (options.snapshot != nullptr) {
      if (snapshot->store.get() != &store) {
        throw Error(ErrorCode::kInvalidArgument, "the snapshot belongs to another index");
      }
      seq_ = snapshot->pin.seq();
    }
  }
  [[nodiscard]] std::uint64_t seq() const noexcept { return seq_; }

 private:
  Epochs::Pin pin_;
  std::uint64_t seq_;
};

const Filter::State* checked_filter(const Store& store, const Filter::State* filter,
                                    std::uint64_t seq) {
  if (filter != nullptr && filter->store.get() != &store) {
    throw Error(ErrorCode::kInvalidArgument, "the filter belongs to another index");
  }
  if (filter != nullptr && filter->is_for_one_version() && filter->seq != seq) {
    throw Error(ErrorCode::kInvalidArgument, "the filter was made for another version");
  }
  return filter;
}

// Makes room for the hits of a search and has it filled.
template <typename Search>
SearchResult gathered(KeyType key_type, std::size_t queries, std::size_t k, const Search& search) {
  Index::require_places(queries, k);
  std::vector<std::uint64_t> stored(queries * k);
  SearchResult result;
  result.keys.type = key_type;
  result.distances.resize(queries * k);
  result.counts.resize(queries);
  search(Places(k, stored.data(), result.distances.data(), result.counts.data()));
  if (key_type == KeyType::kInt64) result.keys.ints.reserve(stored.size());
  for (const std::uint64_t key : stored) add_key(result.keys, key);
  return result;
}

Places places_in(const Store& store, std::size_t queries, std::size_t k, const SearchRoom& room) {
  Index::require_places(queries, k);
  if (store.options.key_type != KeyType::kInt64) {
    throw Error(ErrorCode::kInvalidArgument, "room for int64 keys; the index has keys of str");
  }
  // A StoredKey of an int64 is its bits; signed and unsigned may share memory.
  return {k, reinterpret_cast<std::uint64_t*>(room.keys), room.distances, room.counts};
}

}  // namespace

std::uint64_t Snapshot::seq() const noexcept { return state_->pin.seq(); }
std::size_t Filter::size() const noexcept { return state_->count; }

Index::Index(const IndexOptions& options) : store_(std::make_shared<Store>(options)) {}

std::vector<Outcome> Index::upsert(const KeySpan& keys, MatrixView vectors,
                                   const UpsertOptions& options) {
  return upvec::upsert(*store_, keys, vectors, options);
}

std::vector<std::uint8_t> Index::remove(const KeySpan& keys, const WriteOptions& options) {
  return upvec::remove(*store_, keys, options);
}

std::uint64_t Index::publish() {
  const std::scoped_lock lock(store_->write_mutex);
  store_->published_live.store(store_->live, std::memory_order_relaxed);
  store_->old_codes.set(nullptr);
  store_->epochs.publish(store_->head);
  return store_->head;
}

void Index::reserve(std::size_t keys) {
  if (keys > kMaxSlots - 1) {
    throw Error(ErrorCode::kLimit, "an index holds at most 2^31 - 2 keys");
  }
  const std::scoped_lock lock(store_->write_mutex);
  store_->graph.ensure_slots(keys + 1);
  const std::size_t rows = store_->graph.rows.in_use();
  store_->graph.rows.reserve(keys > rows ? keys - rows : 0);
  store_->keys.reserve(keys);
}

Snapshot Index::snapshot() const {
  auto state = std::make_shared<Snapshot::State>();
  state->store = store_;
  state->pin = store_->epochs.pin_long();
  return Snapshot(std::move(state));
}

Snapshot Index::head_snapshot() const {
  auto state = std::make_shared<Snapshot::State>();
  state->store = store_;
  const std::scoped_lock lock(store_->write_mutex);
  state->pin = store_->epochs.pin_long(store_->head);
  return Snapshot(std::move(state));
}

Filter Index::filter(const KeySpan& allowed, const ReadOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  return Filter(make_filter(store_, allowed, view.seq()));
}

Filter Index::filter_of_bits(std::span<const std::uint64_t> allowed,
                             const ReadOptions& options) const {
  if (store_->options.key_type != KeyType::kInt64) {
    throw Error(ErrorCode::kInvalidArgument, "bits for int64 keys; the index has keys of str");
  }
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  return Filter(make_filter_of_bits(store_, allowed, view.seq()));
}

FilterCosts Index::filter_costs(const Filter& filter, std::size_t k, std::size_t ef) const {
  return upvec::filter_costs(size_of(*store_, *filter.state_), k, effective_ef(ef, k));
}

void Index::get(const KeySpan& keys, float* vectors, std::uint8_t* found,
                const ReadOptions& options) const {
  require_key_type(*store_, keys);
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  upvec::get(*store_, keys, vectors, found, view.seq());
}

SearchResult Index::search(MatrixView queries, std::size_t k, const SearchOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  const auto* filter =
      checked_filter(*store_, options.filter ? options.filter->state_.get() : nullptr, view.seq());
  return gathered(store_->options.key_type, queries.rows, k, [&](const Places& places) {
    upvec::search(*store_, queries, options, filter, view.seq(), places);
  });
}

void Index::search_into(MatrixView queries, std::size_t k, const SearchRoom& room,
                        const SearchOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  const auto* filter =
      checked_filter(*store_, options.filter ? options.filter->state_.get() : nullptr, view.seq());
  upvec::search(*store_, queries, options, filter, view.seq(),
                places_in(*store_, queries.rows, k, room));
}

SearchResult Index::exact_search(MatrixView queries, std::size_t k,
                                 const SearchOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  const auto* filter =
      checked_filter(*store_, options.filter ? options.filter->state_.get() : nullptr, view.seq());
  return gathered(store_->options.key_type, queries.rows, k, [&](const Places& places) {
    upvec::exact_search(*store_, queries, options, filter, view.seq(), places);
  });
}

void Index::exact_search_into(MatrixView queries, std::size_t k, const SearchRoom& room,
                              const SearchOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  const auto* filter =
      checked_filter(*store_, options.filter ? options.filter->state_.get() : nullptr, view.seq());
  upvec::exact_search(*store_, queries, options, filter, view.seq(),
                      places_in(*store_, queries.rows, k, room));
}

void Index::require_places(std::size_t queries, std::size_t k) {
  if (k == 0) throw Error(ErrorCode::kInvalidArgument, "k = 0; want at least 1");
  constexpr std::size_t kMaxPlaces = std::size_t{1} << 28;
  if (k > kMaxPlaces / std::max<std::size_t>(1, queries)) {
    throw Error(ErrorCode::kLimit, std::to_string(queries) +
                                       " queries of k = " + std::to_string(k) +
                                       "; want at most 2^28 places in a result");
  }
}

RangeResult Index::range_search(MatrixView queries, float radius,
                                const SearchOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  const auto* filter =
      checked_filter(*store_, options.filter ? options.filter->state_.get() : nullptr, view.seq());
  return upvec::range_search(*store_, queries, radius, options, filter, view.seq());
}

Keys Index::keys(const ReadOptions& options) const {
  const View view(*store_, options, options.snapshot ? options.snapshot->state_.get() : nullptr);
  return visible_keys(*store_, view.seq());
}

std::size_t Index::size() const noexcept {
  return store_->published_live.load(std::memory_order_relaxed);
}

void Index::save(const std::string& path) const { save_file(store_, path); }

Image Index::image() const { return Image(std::make_shared<Image::State>(store_)); }
bool Image::next(Piece& piece) { return state_->next(piece); }

Index Index::load(const std::string& path, bool map) { return Index(load_file(path, map)); }

Index Index::load_bytes(const void* data, std::size_t size_bytes) {
  return Index(from_bytes({static_cast<const std::byte*>(data), size_bytes}, "index"));
}

Index Index::copy() const {
  const std::vector<std::byte> bytes = to_bytes(store_);
  return load_bytes(bytes.data(), bytes.size());
}

CheckReport Index::check() const {
  {
    const std::scoped_lock lock(store_->write_mutex);
    store_->ensure_in_lists();
  }
  return upvec::check(*store_);
}
std::string Index::digest() const { return upvec::digest(*store_); }

Stats Index::stats() const {
  const std::scoped_lock lock(store_->write_mutex);
  const Graph& graph = store_->graph;
  const Counters counters = store_->scratches.counters();
  Stats stats;
  stats.live = store_->live;
  stats.slots = graph.slot_end.load(std::memory_order_relaxed) - 1;
  stats.rows = graph.rows.in_use();
  stats.seq = store_->head;
  const bool keeps_codes_alone = graph.space.keep() == Keep::kNone;
  stats.vector_bytes = keeps_codes_alone ? 0 : graph.rows.vector_bytes();
  stats.code_bytes = keeps_codes_alone ? graph.rows.vector_bytes() : graph.codes.allocated_bytes();
  stats.link_bytes = graph.base.allocated_bytes() + graph.upper.allocated_bytes();
  stats.key_bytes = store_->keys.bytes();
  stats.other_bytes = graph.rows.header_bytes() + graph.row_of.allocated_bytes() +
                      graph.pending_of.allocated_bytes() + graph.upper_of.allocated_bytes() +
                      graph.info.allocated_bytes() + graph.children.allocated_bytes() +
                      graph.flags.allocated_bytes() + graph.upper_top.allocated_bytes();
  const Slot entry = graph.entry.load(std::memory_order_relaxed);
  stats.max_level = entry == kNoSlot ? 0 : graph.level_of(entry);
  stats.degrees.assign(graph.base.cap() + 1, 0);
  std::vector<Slot> links(graph.base.cap());
  for (Slot slot = 1; slot <= stats.slots; ++slot) {
    if ((graph.flags[slot] & kLive) != 0) ++stats.degrees[graph.base.read(slot, links.data())];
  }
  stats.queries = counters.queries;
  stats.distances = counters.distances;
  stats.hops = counters.hops;
  UPVEC_COUNT(stats.counters = counters.traffic.by_name());
  stats.phases = store_->phases;
  return stats;
}

const IndexOptions& Index::options() const noexcept { return store_->options; }
const char* Index::simd() { return simd::kernels().name; }

}  // namespace upvec
