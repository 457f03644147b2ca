#include "file_format.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "checksum.hpp"
#include "files.hpp"
#include "image.hpp"

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
  Loader(std::span<const std::byte> bytes, const std::string& name)
      : reader_(bytes, name), header_(read_header(reader_, bytes.size())) {
    for (std::uint32_t number = 1; number <= section_count(); ++number) {
      const auto size = reader_.take<std::uint64_t>();
      const auto crc = reader_.take<std::uint32_t>();
      reader_.require(reader_.take<std::uint32_t>() == number, "sections out of order");
      reader_.require(size <= reader_.left(), "a section is longer than the file");
      sections_[number] = reader_.take(static_cast<std::size_t>(size));
      if (crc32c(sections_[number].data(), sections_[number].size()) != crc) {
        reader_.fail("section " + std::to_string(number) + " does not match its checksum");
      }
    }
    reader_.require(reader_.left() == 0, "bytes after the last section");
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
    load_lists(4);
    load_lists(5);
    load_free();
    if (header_.version > 1) load_slack();
    check_anchors();
    make_in_lists();
    finish();
    return store_;
  }

 private:
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
    Reader in = section(2);
    store_->keys.reserve(header_.end - 1);
    keys_.resize(header_.end);
    for (Slot slot = 1; slot < header_.end; ++slot) {
      const std::size_t before = store_->keys.size();
      StoredKey key;
      if (header_.options.key_type == KeyType::kInt64) {
        const auto value = in.take<std::int64_t>();
        key = store_->keys.assign(KeySpan::ints({&value, 1}), 0, slot);
      } else {
        const auto size = in.take<std::uint32_t>();
        const auto text = in.take(size);
        const std::uint64_t offsets[2] = {0, size};
        key = store_->keys.assign(
            KeySpan::strings(offsets, reinterpret_cast<const char*>(text.data())), 0, slot);
      }
      in.require(store_->keys.size() == before + 1, "one key for two slots");
      if (live(slot)) {
        keys_[slot] = static_cast<std::uint64_t>(key);
      } else {
        store_->graph.free_keys.emplace(slot, static_cast<std::uint64_t>(key));
      }
    }
    in.require(in.left() == 0, "bytes after the last key");
  }

  void load_vectors() {
    Reader in = section(3);
    Graph& graph = store_->graph;
    const Space& space = graph.space;
    std::vector<float> vector(space.padded_dim());
    PaddedVector room;
    room.reserve(space.padded_dim());
    PaddedVector again;
    auto* const kept = reinterpret_cast<std::byte*>(
        again.reserve((space.row_bytes() + sizeof(float) - 1) / sizeof(float)));
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (!live(slot)) continue;
      const Row row = graph.rows.allocate();
      std::byte* const stored = graph.rows.vector(row);
      space.unpack(in.take(space.packed_bytes()).data(), stored);
      space.decode(stored, vector.data());
      // What upsert would refuse or change has distances that no other code is prepared for.
      in.require(prepare_row(header_.options, space, vector.data(), room.data(), kept) &&
                     std::memcmp(stored, kept, space.row_bytes()) == 0,
                 "a vector that cannot be stored");
      graph.rows.header(row).set(header_.seq, keys_[slot], kNoRow, false);
      graph.row_of[slot].store(row, std::memory_order_release);
      if (graph.has_codes) graph.code_space.encode(vector.data(), graph.codes.at(slot));
    }
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
      const auto here = slots.begin() + static_cast<std::ptrdiff_t>(i);
      in.require(std::find(slots.begin(), here, other) == here, "a link twice in a list");
    }
    table.write(store_->graph.list_of(slot, level), slots);
  }

  void load_lists(std::uint32_t number) {
    Reader in = section(number);
    std::vector<Slot> slots;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      if (!live(slot)) continue;
      const unsigned top = store_->graph.level_of(slot);
      if (number == 4) {
        load_list(in, slot, 0, slots);
      } else {
        for (unsigned level = 1; level <= top; ++level) load_list(in, slot, level, slots);
      }
    }
    in.require(in.left() == 0, "bytes after the last list");
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
    std::vector<std::uint8_t> settled(header_.end, 0);
    settled[header_.root] = 1;
    std::vector<Slot> path;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      const Slot anchor = graph.info[slot].anchor;
      if (!live(slot) || slot == header_.root) {
        reader_.require(anchor == kNoSlot, "an anchor where none belongs");
        continue;
      }
      reader_.require(anchor != kNoSlot && live(anchor) && graph.base.contains(slot, anchor) &&
                          graph.base.contains(anchor, slot),
                      "an anchor without a mutual link");
      reader_.require(++graph.children[anchor] <= store_->anchors.max_children(),
                      "too many slots at one anchor");
      path.clear();
      for (Slot at = slot; settled[at] == 0; at = graph.info[at].anchor) {
        reader_.require(path.size() < header_.live && at != kNoSlot, "anchors in a circle");
        path.push_back(at);
      }
      for (const Slot passed : path) settled[passed] = 1;
    }
  }

  void make_in_lists() {
    Graph& graph = store_->graph;
    std::vector<Slot> slots;
    for (Slot slot = 1; slot < header_.end; ++slot) {
      for (unsigned level = 0; live(slot) && level <= graph.level_of(slot); ++level) {
        LinkTable& table = graph.table(level);
        slots.resize(table.cap());
        slots.resize(table.read(graph.list_of(slot, level), slots.data()));
        for (const Slot other : slots) {
          const std::size_t list = graph.list_of(other, level);
          if (!table.contains(list, slot)) table.in.insert(list, slot);
        }
      }
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

  Reader reader_;
  Header header_;
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
  return Loader(bytes, name).load();
}

std::shared_ptr<Store> load_file(const std::string& path, bool map) {
  const FileContents contents(path, map);
  return from_bytes(contents.bytes(), path);
}

}  // namespace upvec
