#include "file_format.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "checksum.hpp"
#include "files.hpp"
#include "image.hpp"
#include "team.hpp"

namespace upvec {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the file format is little-endian; this machine needs byte swaps on load and save");

constexpr std::uint32_t kOldestVersion = 1;
constexpr std::uint64_t kMaxSeq = std::uint64_t{1} << 62;

// Reading ---------------------------------------------------------------------------------------

// Bytes that may say anything. Every take is checked against what is left.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, name_ + ": " + what);
  }
  void require(bool fine, const char* what) const {
    if (!fine) fail(what);
  }
  [[nodiscard]] std::size_t left() const noexcept { return bytes_.size(); }
  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size()) {
      fail("ends too early: " + std::to_string(size) + " bytes wanted, " +
           std::to_string(bytes_.size()) + " left");
    }
    const std::span<const std::byte> taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& name_;
};

struct Header {
  std::uint32_t version;
  IndexOptions options;
  std::uint64_t seq;
  Slot end;
  Slot root;
  std::uint64_t live;
};

Header read_header(Reader& reader, std::size_t file_bytes) {
  Reader head(reader.take(format::kHeaderBytes), reader.name());
  const auto whole = head.take(format::kHeaderBytes - 4);
  Reader fields(whole, reader.name());
  const auto magic = fields.take(format::kMagic.size());
  if (std::memcmp(magic.data(), format::kMagic.data(), format::kMagic.size()) != 0) {
    reader.fail("not an upvec index file");
  }
  const auto version = fields.take<std::uint32_t>();
  if (version < kOldestVersion || version > format::kVersion) {
    reader.fail("format version " + std::to_string(version) + "; this upvec reads versions " +
                std::to_string(kOldestVersion) + " to " + std::to_string(format::kVersion));
  }
  if (crc32c(whole.data(), whole.size()) != head.take<std::uint32_t>()) {
    reader.fail("the header does not match its checksum");
  }
  reader.require(fields.take<std::uint32_t>() == format::kHeaderBytes, "header of an unknown size");
  const auto total = fields.take<std::uint64_t>();
  if (total != file_bytes) {
    reader.fail("has " + std::to_string(file_bytes) + " bytes; its header says " +
                std::to_string(total));
  }
  Header header;
  header.version = version;
  header.options.dim = fields.take<std::uint32_t>();
  const auto metric = fields.take<std::uint8_t>();
  const auto key_type = fields.take<std::uint8_t>();
  reader.require(metric <= 2, "unknown metric");
  reader.require(key_type <= 1, "unknown key type");
  header.options.metric = Metric{metric};
  header.options.key_type = KeyType{key_type};
  const auto codes = fields.take<std::uint8_t>();
  reader.require(codes <= 1, "unknown codes");
  header.options.codes = Codes{codes};
  const auto keep = fields.take<std::uint8_t>();
  reader.require(keep <= (version < 3 ? 0 : 2), "unknown way of keeping vectors");
  header.options.keep = Keep{keep};
  header.options.m = fields.take<std::uint32_t>();
  header.options.ef_construction = fields.take<std::uint32_t>();
  header.options.seed = fields.take<std::uint64_t>();
  header.seq = fields.take<std::uint64_t>();
  // Far from the values that stand for no reader and for the end of counting.
  reader.require(header.seq <= kMaxSeq, "impossible commit number");
  header.end = fields.take<Slot>();
  header.root = fields.take<Slot>();
  header.live = fields.take<std::uint64_t>();
  reader.require(header.end >= 1 && header.end <= kMaxSlots, "impossible number of slots");
  reader.require(header.live < header.end, "more live slots than slots");
  reader.require(header.root < header.end && (header.root == kNoSlot) == (header.live == 0),
                 "impossible root");
  return header;
}

class Loader {
 public:
  // contents: what `bytes` are of, if they are those of a file.
  Loader(std::span<const std::byte> bytes, const std::string& name, const FileContents* contents)
      : contents_(contents),
        reader_(bytes, name),
        header_(read_header(reader_, bytes.size())),
        team_(Team::useful_threads(0, header_.end / kSlotsAtOnce)) {
    std::array<std::uint32_t, format::kSections + 1> checksums{};
    for (std::uint32_t number = 1; number <= section_count(); ++number) {
      const auto size = reader_.take<std::uint64_t>();
      checksums[number] = reader_.take<std::uint32_t>();
      reader_.require(reader_.take<std::uint32_t>() == number, "sections out of order");
      reader_.require(size <= reader_.left(), "a section is longer than the file");
      sections_[number] = reader_.take(static_cast<std::size_t>(size));
    }
    reader_.require(reader_.left() == 0, "bytes after the last section");
    team_.run(section_count(), 1, [&](std::size_t i, unsigned) {
      const auto number = static_cast<std::uint32_t>(i + 1);
      if (checksum_of(sections_[number]) != checksums[number]) {
        reader_.fail("section " + std::to_string(number) + " does not match its checksum");
      }
    });
  }

  std::shared_ptr<Store> load() {
    check_sizes();
    try {
      store_ = std::make_shared<Store>(header_.options);
    } catch (const Error& error) {
      reader_.fail(error.what());
    }
    store_->graph.ensure_slots(header_.end);
    store_->graph.rows.reserve(header_.live + 1);
    store_->graph.slot_end.store(header_.end, std::memory_order_release);
    load_slots();
    load_keys();
    load_vectors();
    load_links();
    load_upper();
    load_free();
    if (header_.version > 1) load_slack();
    check_anchors();
    store_->has_in_lists = false;
    finish();
    return store_;
  }

 private:
  static constexpr std::size_t kSlotsAtOnce = 1024;  // that one thread takes

  // What has been looked at is given back at once: else loading would take the memory of the index
  // and that of its file.
  void let_go(std::span<const std::byte> part) const {
    if (contents_ != nullptr) contents_->let_go(part);
  }

  [[nodiscard]] std::uint32_t checksum_of(std::span<const std::byte> section) const {
    constexpr std::size_t kAtOnce = std::size_t{4} << 20;
    std::uint32_t crc = 0;
    for (std::size_t at = 0; at < section.size(); at += kAtOnce) {
      const auto part = section.subspan(at, std::min(kAtOnce, section.size() - at));
      crc = crc32c(part.data(), part.size(), crc);
      let_go(part);
    }
    return crc;
  }

  // Version 1 knew no slack: there, every move is a real one until links are chosen anew.
  [[nodiscard]] std::uint32_t section_count() const {
    return header_.version == 1 ? 6 : format::kSections;
  }

  Reader section(std::uint32_t number) const { return {sections_[number], reader_.name()}; }

  // What the sections must hold for so many slots, before any memory is taken for them.
  void check_sizes() const {
    const std::uint64_t slots = header_.end - 1;
    reader_.require(sections_[1].size() == slots * format::kSlotBytes,
                    "slot section of the wrong size");
    const std::uint64_t least_key = header_.options.key_type == KeyType::kInt64 ? 8 : 4;
    reader_.require(sections_[2].size() / least_key >= slots, "key section too short");
    reader_.require(header_.options.dim >= 1 && header_.options.dim <= 65536,
                    "impossible dimension");
    const std::size_t vector_bytes = Space::packed_bytes(header_.options.keep, header_.options.dim);
    reader_.require(sections_[3].size() == header_.live * vector_bytes,
                    "vector section of the wrong size");
  }

  [[nodiscard]] bool live(Slot slot) const { return (store_->graph.flags[slot] & kLive) != 0; }

  void load_slots() {
    Reader in = section(1);
    std::uint64_t live_slots = 0;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      SlotInfo& info = store_->graph.info[slot];
      std::uint8_t& flags = store_->graph.flags[slot];
      flags = in.take<std::uint8_t>();
      const auto top = in.take<std::uint8_t>();
      in.take<std::uint16_t>();
      info.anchor = in.take<Slot>();
      in.require((flags & ~format::kStoredFlags) == 0, "unknown slot flags");
      in.require(top <= kMaxLevel, "impossible level");
      in.require(info.anchor < header_.end, "impossible anchor");
      store_->set_level(slot, top);
      if (!live(slot)) continue;
      ++live_slots;
      if (top > 0) store_->by_level[top].insert(slot);
    }
    in.require(live_slots == header_.live, "wrong number of live slots");
  }

  void load_keys() {
    keys_.resize(header_.end);
    if (header_.options.key_type == KeyType::kInt64) {
      load_ints();
    } else {
      load_strings();
    }
  }

  void load_ints() {
    const Reader in = section(2);
    in.require(in.left() == (header_.end - 1) * sizeof(std::int64_t), "bytes after the last key");
    std::vector<std::int64_t> ints(header_.end - 1);
    if (!ints.empty()) std::memcpy(ints.data(), sections_[2].data(), sections_[2].size());
    const KeySpan keys = KeySpan::ints(ints);
    store_->keys.reserve(keys, keys.size());
    constexpr std::size_t kAhead = 8;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (slot + kAhead < header_.end) store_->keys.prefetch(keys, slot - 1 + kAhead);
      take_key(in, keys, slot - 1, slot);
    }
  }

  void load_strings() {
    Reader in = section(2);
    store_->keys.reserve(header_.end - 1);
    for (Slot slot = 1; slot < header_.end; ++slot) {
      const auto size = in.take<std::uint32_t>();
      const auto text = in.take(size);
      const std::uint64_t offsets[2] = {0, size};
      take_key(in, KeySpan::strings(offsets, reinterpret_cast<const char*>(text.data())), 0, slot);
    }
    in.require(in.left() == 0, "bytes after the last key");
  }

  void take_key(const Reader& in, const KeySpan& keys, std::size_t at, Slot slot) {
    const std::size_t before = store_->keys.size();
    const auto key = static_cast<std::uint64_t>(store_->keys.assign(keys, at, slot));
    in.require(store_->keys.size() == before + 1, "one key for two slots");
    if (live(slot)) {
      keys_[slot] = key;
    } else {
      store_->graph.free_keys.emplace(slot, key);
    }
  }

  // Calls visit(slot, worker) for every slot, by several threads.
  template <typename Visit>
  void for_each_slot(const Visit& visit) {
    const std::size_t blocks = (header_.end + kSlotsAtOnce - 1) / kSlotsAtOnce;
    team_.run(blocks, 1, [&](std::size_t block, unsigned worker) {
      const auto last =
          static_cast<Slot>(std::min<std::size_t>(header_.end, (block + 1) * kSlotsAtOnce));
      for (auto slot = static_cast<Slot>(block * kSlotsAtOnce); slot < last; ++slot) {
        if (slot != kNoSlot) visit(slot, worker);
      }
    });
  }

  void load_vectors() {
    const Space& space = store_->graph.space;
    std::vector<Row> rows(header_.end);
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (live(slot)) rows[slot] = store_->graph.rows.allocate();
    }
    std::vector<VectorRoom> rooms(team_.size());
    for (VectorRoom& room : rooms) room.reserve(space);
    const std::size_t bytes = store_->graph.space.packed_bytes();
    const std::size_t at_once = std::max<std::size_t>(1, (std::size_t{1} << 20) / bytes);
    for_each_slot([&](Slot slot, unsigned worker) {
      if (!live(slot)) return;
      const Row row = rows[slot];
      load_vector(slot, row, rooms[worker]);
      if (row % at_once == 0)
        let_go(sections_[3].subspan((row - at_once) * bytes, at_once * bytes));
    });
  }

  struct VectorRoom {
    void reserve(const Space& space) {
      decoded = vector.reserve(space.padded_dim());
      prepared = again.reserve(space.padded_dim());
      std::fill_n(decoded, space.padded_dim(), 0.0F);  // decode() leaves the padding alone
      kept = reinterpret_cast<std::byte*>(
          row.reserve((space.row_bytes() + sizeof(float) - 1) / sizeof(float)));
    }
    PaddedVector vector;
    PaddedVector again;
    PaddedVector row;
    float* decoded = nullptr;
    float* prepared = nullptr;
    std::byte* kept = nullptr;
  };

  // Rows of a new store are numbered from 1, in the order in which the file has them.
  void load_vector(Slot slot, Row row, VectorRoom& room) {
    Graph& graph = store_->graph;
    const Space& space = graph.space;
    std::byte* const stored = graph.rows.vector(row);
    space.unpack(sections_[3].data() + (row - 1) * space.packed_bytes(), stored);
    space.decode(stored, room.decoded);
    // What upsert would refuse or change has distances that no other code is prepared for.
    reader_.require(prepare_row(header_.options, space, room.decoded, room.prepared, room.kept) &&
                        std::memcmp(stored, room.kept, space.row_bytes()) == 0,
                    "a vector that cannot be stored");
    graph.rows.header(row).set(header_.seq, keys_[slot], kNoRow, false);
    graph.row_of[slot].store(row, std::memory_order_release);
    if (graph.has_codes) graph.code_space.encode(room.decoded, graph.codes.at(slot));
  }

  // Where each list begins, is known when all before it have been passed.
  void load_links() {
    Reader in = section(4);
    std::vector<std::size_t> offsets(header_.end);
    for (Slot slot = 1; slot < header_.end; ++slot) {
      offsets[slot] = sections_[4].size() - in.left();
      if (!live(slot)) continue;
      in.take(in.take<std::uint16_t>() * sizeof(Slot));
    }
    in.require(in.left() == 0, "bytes after the last list");
    let_go(sections_[4]);
    std::vector<std::vector<Slot>> rooms(team_.size());
    for_each_slot([&](Slot slot, unsigned worker) {
      if (live(slot)) {
        Reader from(sections_[4].subspan(offsets[slot]), reader_.name());
        load_list(from, slot, 0, rooms[worker]);
      }
      if (slot > kSlotsAtOnce && slot % kSlotsAtOnce == kSlotsAtOnce - 1) {
        const std::size_t begin = offsets[slot + 1 - kSlotsAtOnce];
        let_go(sections_[4].subspan(begin, offsets[slot] - begin));
      }
    });
  }

  void load_upper() {
    Reader in = section(5);
    std::vector<Slot> slots;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (!live(slot)) continue;
      const unsigned top = store_->graph.level_of(slot);
      for (unsigned level = 1; level <= top; ++level) load_list(in, slot, level, slots);
    }
    in.require(in.left() == 0, "bytes after the last list");
  }

  void load_list(Reader& in, Slot slot, unsigned level, std::vector<Slot>& slots) {
    LinkTable& table = store_->graph.table(level);
    const auto n = in.take<std::uint16_t>();
    in.require(n <= table.cap(), "a list longer than its cap");
    const auto bytes = in.take(n * sizeof(Slot));
    slots.resize(n);
    if (n > 0) std::memcpy(slots.data(), bytes.data(), bytes.size());
    for (std::size_t i = 0; i < n; ++i) {
      const Slot other = slots[i];
      in.require(other != kNoSlot && other < header_.end && other != slot && live(other) &&
                     store_->graph.level_of(other) >= level,
                 "a link to a slot that cannot be linked to");
      // Lists are short: looking at all of it without a branch beats leaving early.
      std::uint32_t met = 0;
      for (std::size_t j = 0; j < i; ++j) met += slots[j] == other ? 1 : 0;
      in.require(met == 0, "a link twice in a list");
    }
    table.write(store_->graph.list_of(slot, level), slots);
  }

  void load_free() {
    Reader in = section(6);
    std::vector<std::uint8_t> listed(header_.end, 0);
    while (in.left() > 0) {
      const auto slot = in.take<Slot>();
      in.require(slot != kNoSlot && slot < header_.end && listed[slot] == 0,
                 "impossible free slot");
      listed[slot] = 1;
      store_->free_slots.push_back(slot);
    }
    for (Slot slot = 1; slot < header_.end; ++slot) {
      const bool flagged = (store_->graph.flags[slot] & kInFreeList) != 0;
      in.require(flagged == (listed[slot] != 0), "the list of free slots contradicts the slots");
      in.require(live(slot) || flagged, "a slot that is neither live nor free");
    }
  }

  void load_slack() {
    Reader in = section(7);
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (!live(slot)) continue;
      const auto slack = in.take<float>();
      in.require(slack >= 0.0F && std::isfinite(slack), "impossible slack");
      store_->graph.info[slot].slack = slack;
    }
    in.require(in.left() == 0, "bytes after the last slack");
  }

  void check_anchors() {
    Graph& graph = store_->graph;
    store_->anchors.set_root(header_.root);
    reader_.require(header_.root == kNoSlot || live(header_.root), "the root is not live");
    for_each_slot([&](Slot slot, unsigned) {
      const Slot anchor = graph.info[slot].anchor;
      if (!live(slot) || slot == header_.root) {
        reader_.require(anchor == kNoSlot, "an anchor where none belongs");
        return;
      }
      reader_.require(anchor != kNoSlot && live(anchor) && graph.base.contains(slot, anchor) &&
                          graph.base.contains(anchor, slot),
                      "an anchor without a mutual link");
    });
    check_tree();
  }

  void check_tree() {
    Graph& graph = store_->graph;
    std::vector<std::uint8_t> settled(header_.end, 0);
    settled[header_.root] = 1;
    std::vector<Slot> path;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (!live(slot) || slot == header_.root) continue;
      reader_.require(++graph.children[graph.info[slot].anchor] <= store_->anchors.max_children(),
                      "too many slots at one anchor");
      path.clear();
      for (Slot at = slot; settled[at] == 0; at = graph.info[at].anchor) {
        reader_.require(path.size() < header_.live && at != kNoSlot, "anchors in a circle");
        path.push_back(at);
      }
      for (const Slot passed : path) settled[passed] = 1;
    }
  }

  void finish() {
    store_->live = header_.live;
    store_->head = header_.seq;
    store_->writing.store(header_.seq, std::memory_order_seq_cst);
    store_->published_live.store(header_.live, std::memory_order_relaxed);
    store_->epochs.publish(header_.seq);
    store_->choose_entry();
    store_->choose_entries();
  }

  const FileContents* contents_;
  Reader reader_;
  Header header_;
  Team team_;
  std::array<std::span<const std::byte>, format::kSections + 1> sections_;
  std::shared_ptr<Store> store_;
  std::vector<std::uint64_t> keys_;  // StoredKey as bits, of live slots
};

}  // namespace

std::vector<std::byte> to_bytes(const std::shared_ptr<Store>& store) {
  std::vector<std::byte> out;
  Image::State image(store);
  for (Image::Piece piece; image.next(piece);) {
    out.resize(std::max(out.size(), piece.offset + piece.bytes.size()));
    std::copy(piece.bytes.begin(), piece.bytes.end(),
              out.begin() + static_cast<std::ptrdiff_t>(piece.offset));
  }
  return out;
}

void save_file(const std::shared_ptr<Store>& store, const std::string& path) {
  AtomicFile file(path);
  Image::State image(store);
  for (Image::Piece piece; image.next(piece);) file.write(piece.offset, piece.bytes);
  file.commit();
}

std::shared_ptr<Store> from_bytes(std::span<const std::byte> bytes, const std::string& name) {
  return Loader(bytes, name, nullptr).load();
}

std::shared_ptr<Store> load_file(const std::string& path, bool map) {
  const FileContents contents(path, map);
  return Loader(contents.bytes(), path, &contents).load();
}

}  // namespace upvec
