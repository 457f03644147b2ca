// Image::State: one version of an index, held while it is written to a file piece by piece.
//
// Made with the writer's lock, which it lets go at once: the few bytes a slot that are not links
// are copied, rows are pinned, and lists are kept by a ListShadow each. So writers wait for a copy
// of 21 bytes a slot, and readers for nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "list_shadow.hpp"
#include "store.hpp"
#include "upvec/index.hpp"

namespace upvec {

struct Image::State {
 public:
  explicit State(std::shared_ptr<Store> store);
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  bool next(Piece& piece);

 private:
  using Append = void (State::*)(Slot slot, std::vector<std::byte>& out);

  [[nodiscard]] bool live(Slot slot) const noexcept { return (flags_[slot] & kLive) != 0; }
  [[nodiscard]] unsigned level_of(Slot slot) const noexcept {
    return first_list_[slot] == 0 ? 0 : store_->graph.upper_top[first_list_[slot]];
  }
  void freeze();
  // Lists are not asked for any more, nor anything that the pin keeps: writers need not keep them.
  void let_go();
  void keep_free_keys();
  [[nodiscard]] static Append append_of(std::uint32_t section);
  void append_slot(Slot slot, std::vector<std::byte>& out);
  void append_key(Slot slot, std::vector<std::byte>& out);
  void append_vector(Slot slot, std::vector<std::byte>& out);
  void append_links(Slot slot, std::vector<std::byte>& out);
  void append_upper(Slot slot, std::vector<std::byte>& out);
  void append_free(Slot slot, std::vector<std::byte>& out);
  void append_slack(Slot slot, std::vector<std::byte>& out);
  void put_list(ListShadow& shadow, std::size_t list, std::size_t cap, std::vector<std::byte>& out);
  void begin_section();
  void put_section_header(Piece& piece) const;
  void put_header(Piece& piece) const;

  std::shared_ptr<Store> store_;
  Epochs::Pin pin_;
  std::uint64_t seq_ = 0;
  Slot end_ = 1;
  Slot root_ = kNoSlot;
  std::uint64_t live_ = 0;
  // By slot:
  std::unique_ptr<std::uint8_t[]> flags_;
  std::unique_ptr<std::uint32_t[]> first_list_;  // of the levels above 0; 0 without them
  std::unique_ptr<SlotInfo[]> info_;
  std::unique_ptr<Row[]> rows_;
  std::vector<Slot> free_slots_;
  // The keys of slots that are not live, which no pin keeps: in ascending order of slots.
  std::vector<std::uint64_t> free_ints_;
  std::vector<std::string> free_strings_;
  std::unique_ptr<ListShadow> base_;
  std::unique_ptr<ListShadow> upper_;

  // Where the writing is.
  std::uint32_t section_ = 0;
  Slot at_ = 1;               // of the section: a slot, or a place in free_slots_
  std::size_t free_key_ = 0;  // how many keys of free slots were written
  std::uint64_t offset_ = 0;  // in the file
  std::uint64_t payload_at_ = 0;
  std::uint32_t checksum_ = 0;
  bool done_ = false;
};

}  // namespace upvec
