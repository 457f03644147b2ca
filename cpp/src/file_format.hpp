// The file of one index.
//
// All numbers little-endian. A header, then seven sections; every section is
//   u64 payload bytes · u32 CRC-32C of the payload · u32 section number · payload
//
// header (96 bytes)
//   0  8 bytes  "UPVECIX\n"
//   8  u32      format version (3)
//  12  u32      bytes of the header (96)
//  16  u64      bytes of the whole file
//  24  u32 dim · 28 u8 metric · 29 u8 key type · 30 u8 codes · 31 u8 keep ·
//      32 u32 M · 36 u32 ef_construction
//  40  u64 seed · 48 u64 seq
//  56  u32 end of the slots (slots are [1, end)) · 60 u32 root · 64 u64 live slots
//  72  20 bytes zero
//  92  u32      CRC-32C of the 92 bytes before
// sections
//   1  slots     per slot: u8 flags (1 live, 8 in the free list) · u8 top level · u16 zero ·
//                u32 anchor
//   2  keys      per slot: i64, or u32 length and bytes
//   3  vectors   per live slot, by keep: dim f32 (0) · dim bf16 (1) · dim i8, f32 scale (2)
//   4  links     per live slot: u16 count · count u32, level 0
//   5  upper     per live slot with levels above 0, per level from 1: u16 count · count u32
//   6  free      u32 per entry of the list of free slots, oldest first
//   7  slack     f32 per live slot (see drift.hpp)
// Version 2 has zero for keep (f32), version 1 also no section 7 and zero for codes (none); both
// can still be read.
//
// Key index, codes and entry follow from these and are made anew, in-lists when something is first
// written. A loader believes
// nothing: every size is compared with what is left before memory is taken for it, every slot
// number is bounded, links must lead to live slots of that level, and anchors must form a tree of
// mutual links.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store.hpp"

namespace upvec {

namespace format {
inline constexpr std::string_view kMagic{"UPVECIX\n", 8};
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::size_t kHeaderBytes = 96;
inline constexpr std::size_t kSectionHeaderBytes = 16;
inline constexpr std::uint32_t kSections = 7;
inline constexpr std::size_t kSlotBytes = 8;
inline constexpr std::uint8_t kStoredFlags = kLive | kInFreeList;
}  // namespace format

std::vector<std::byte> to_bytes(const std::shared_ptr<Store>& store);
void save_file(const std::shared_ptr<Store>& store, const std::string& path);
std::shared_ptr<Store> from_bytes(std::span<const std::byte> bytes, const std::string& name);
std::shared_ptr<Store> load_file(const std::string& path, bool map);

}  // namespace upvec
