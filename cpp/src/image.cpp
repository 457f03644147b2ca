#include "image.hpp"

#include <algorithm>
#include <new>

#include "checksum.hpp"
#include "file_format.hpp"

namespace upvec {
namespace {

// Enough to make the cost of a write call nothing, little enough that one takes a millisecond.
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
// From this section on, everything was copied when the image was made.
constexpr std::uint32_t kFirstWithoutStore = 6;

template <typename T>
void put(std::vector<std::byte>& out, T value) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}

void put_bytes(std::vector<std::byte>& out, const void* data, std::size_t size) {
  const auto* const bytes = static_cast<const std::byte*>(data);
  out.insert(out.end(), bytes, bytes + size);
}

}  // namespace

Image::State::State(std::shared_ptr<Store> store) : store_(std::move(store)) {
  const std::scoped_lock lock(store_->write_mutex);
  freeze();
  Graph& graph = store_->graph;
  base_ = std::make_unique<ListShadow>(graph.base, end_);
  upper_ = std::make_unique<ListShadow>(graph.upper, store_->upper_end);
  graph.base.add_shadow(base_.get());
  try {
    graph.upper.add_shadow(upper_.get());
  } catch (...) {
    graph.base.remove_shadow(base_.get());
    throw;
  }
}

Image::State::~State() {
  if (base_) let_go();
}

void Image::State::let_go() {
  const std::scoped_lock lock(store_->write_mutex);
  store_->graph.base.remove_shadow(base_.get());
  store_->graph.upper.remove_shadow(upper_.get());
  base_.reset();
  upper_.reset();
  pin_ = {};
}

void Image::State::freeze() {
  const Graph& graph = store_->graph;
  pin_ = store_->epochs.pin_long(store_->head);
  seq_ = store_->head;
  end_ = graph.slot_end.load(std::memory_order_relaxed);
  root_ = store_->anchors.root();
  live_ = store_->live;
  flags_.reset(new std::uint8_t[end_]);
  graph.flags.copy_to(flags_.get(), end_);
  first_list_.reset(new std::uint32_t[end_]);
  graph.upper_of.copy_to(first_list_.get(), end_);
  info_.reset(new SlotInfo[end_]);
  graph.info.copy_to(info_.get(), end_);
  rows_.reset(new Row[end_]);
  graph.row_of.copy_to(rows_.get(), end_);
  free_slots_.assign(store_->free_slots.begin(), store_->free_slots.end());
  if (live_ + 1 < end_) keep_free_keys();
}

void Image::State::keep_free_keys() {
  for (Slot slot = 1; slot < end_; ++slot) {
    if (live(slot)) continue;
    const StoredKey key{store_->graph.key_of(slot)};
    if (store_->options.key_type == KeyType::kInt64) {
      free_ints_.push_back(static_cast<std::uint64_t>(key));
    } else {
      free_strings_.emplace_back(KeyIndex::string_of(key));
    }
  }
}

bool Image::State::next(Piece& piece) {
  piece.bytes.clear();
  if (done_) return false;
  if (section_ == 0) begin_section();
  if (section_ > format::kSections) {
    put_header(piece);
    done_ = true;
    return true;
  }
  const Slot end = section_ == 6 ? static_cast<Slot>(free_slots_.size() + 1) : end_;
  const Append append = append_of(section_);
  while (at_ < end && piece.bytes.size() < kPieceBytes) (this->*append)(at_++, piece.bytes);
  if (piece.bytes.empty()) {
    put_section_header(piece);
    begin_section();
    return true;
  }
  piece.offset = offset_;
  offset_ += piece.bytes.size();
  checksum_ = crc32c(piece.bytes.data(), piece.bytes.size(), checksum_);
  return true;
}

void Image::State::begin_section() {
  if (section_ == 0) offset_ = format::kHeaderBytes;
  ++section_;
  if (section_ == kFirstWithoutStore) let_go();
  at_ = 1;
  checksum_ = 0;
  if (section_ <= format::kSections) offset_ += format::kSectionHeaderBytes;
  payload_at_ = offset_;
}

Image::State::Append Image::State::append_of(std::uint32_t section) {
  constexpr Append kAppends[] = {&State::append_slot,  &State::append_key,   &State::append_vector,
                                 &State::append_links, &State::append_upper, &State::append_free,
                                 &State::append_slack};
  static_assert(std::size(kAppends) == format::kSections);
  return kAppends[section - 1];
}

void Image::State::put_section_header(Piece& piece) const {
  piece.offset = payload_at_ - format::kSectionHeaderBytes;
  put(piece.bytes, offset_ - payload_at_);
  put(piece.bytes, checksum_);
  put(piece.bytes, section_);
}

void Image::State::put_header(Piece& piece) const {
  const IndexOptions& options = store_->options;
  std::vector<std::byte>& out = piece.bytes;
  piece.offset = 0;
  put_bytes(out, format::kMagic.data(), format::kMagic.size());
  put(out, format::kVersion);
  put(out, static_cast<std::uint32_t>(format::kHeaderBytes));
  put(out, offset_);
  put(out, static_cast<std::uint32_t>(options.dim));
  put(out, options.metric);
  put(out, options.key_type);
  put(out, options.codes);
  put(out, options.keep);
  put(out, static_cast<std::uint32_t>(options.m));
  put(out, static_cast<std::uint32_t>(options.ef_construction));
  put(out, options.seed);
  put(out, seq_);
  put(out, end_);
  put(out, root_);
  put(out, live_);
  out.resize(format::kHeaderBytes - 4);
  put(out, crc32c(out.data(), out.size()));
}

void Image::State::append_slot(Slot slot, std::vector<std::byte>& out) {
  put(out, static_cast<std::uint8_t>(flags_[slot] & format::kStoredFlags));
  put(out, static_cast<std::uint8_t>(level_of(slot)));
  put(out, std::uint16_t{0});
  put(out, info_[slot].anchor);
}

void Image::State::append_key(Slot slot, std::vector<std::byte>& out) {
  const bool ints = store_->options.key_type == KeyType::kInt64;
  const std::size_t free = live(slot) ? 0 : free_key_++;
  const StoredKey key{live(slot) ? store_->graph.rows.header(rows_[slot]).key
                                 : (ints ? free_ints_[free] : 0)};
  if (ints) {
    put(out, KeyIndex::int_of(key));
    return;
  }
  const std::string_view text =
      live(slot) ? KeyIndex::string_of(key) : std::string_view(free_strings_[free]);
  put(out, static_cast<std::uint32_t>(text.size()));
  put_bytes(out, text.data(), text.size());
}

void Image::State::append_vector(Slot slot, std::vector<std::byte>& out) {
  if (!live(slot)) return;
  const Space& space = store_->graph.space;
  const std::size_t at = out.size();
  out.resize(at + space.packed_bytes());
  space.pack(store_->graph.rows.vector(rows_[slot]), out.data() + at);
}

void Image::State::put_list(ListShadow& shadow, std::size_t list, std::size_t cap,
                            std::vector<std::byte>& out) {
  const Slot* const slots = shadow.list(list);
  const auto n = static_cast<std::size_t>(std::find(slots, slots + cap, kNoSlot) - slots);
  put(out, static_cast<std::uint16_t>(n));
  put_bytes(out, slots, n * sizeof(Slot));
}

void Image::State::append_links(Slot slot, std::vector<std::byte>& out) {
  if (live(slot)) put_list(*base_, slot, store_->graph.base.cap(), out);
  if ((slot + 1) % ListShadow::kBlockLists == 0) base_->drop(slot);
}

void Image::State::append_upper(Slot slot, std::vector<std::byte>& out) {
  if (!live(slot)) return;
  for (unsigned level = 1; level <= level_of(slot); ++level) {
    put_list(*upper_, first_list_[slot] + level - 1, store_->graph.upper.cap(), out);
  }
}

void Image::State::append_free(Slot place, std::vector<std::byte>& out) {
  put(out, free_slots_[place - 1]);
}

void Image::State::append_slack(Slot slot, std::vector<std::byte>& out) {
  if (live(slot)) put(out, info_[slot].slack);
}

}  // namespace upvec
