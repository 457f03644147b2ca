// Planes: arrays of fixed-size records that grow in chunks which never move.
//
// Thread safety: at() from any thread for an index below what ensure() has covered; ensure() from
// one writer. A thread that learns an index through an acquire load of something the writer stored
// after ensure() may use it at once. Growth copies nothing, so no reader is ever stopped or
// invalidated. New memory reads as zero bytes; identifiers therefore start at 1, and 0 means
// "none".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace upvec {

using Slot = std::uint32_t;
using Row = std::uint32_t;
inline constexpr Slot kNoSlot = 0;
inline constexpr Row kNoRow = 0;
// The top bit of a slot is free for marks in candidate lists.
inline constexpr std::size_t kMaxSlots = (std::size_t{1} << 31) - 1;

class BytePlane {
 public:
  explicit BytePlane(std::size_t stride_bytes);
  ~BytePlane();
  BytePlane(const BytePlane&) = delete;
  BytePlane& operator=(const BytePlane&) = delete;

  // Makes the records [0, count) addressable. Throws std::bad_alloc and changes nothing on failure.
  void ensure(std::size_t count);

  [[nodiscard]] std::byte* at(std::size_t i) const noexcept {
    std::byte* chunk = directory_[i >> shift_].load(std::memory_order_acquire);
    return chunk + (i & mask_) * stride_bytes_;
  }
  // Copies the records [0, count), which nobody may be changing, one after the other.
  void copy_to(void* out, std::size_t count) const noexcept;
  [[nodiscard]] std::size_t capacity() const noexcept { return chunks_ << shift_; }
  // Memory that the records take: whole chunks, and of the last the pages that may have been used.
  [[nodiscard]] std::size_t allocated_bytes() const noexcept;

 private:
  void add_chunk();
  void use_huge_pages_where_full(std::size_t chunks_before);

  std::size_t stride_bytes_;
  unsigned shift_;
  std::size_t mask_;
  std::size_t chunk_bytes_;
  std::size_t max_chunks_;
  std::size_t chunks_ = 0;
  std::size_t count_ = 0;       // records asked for
  std::size_t huge_chunk_ = 0;  // the first that may get huge pages yet, and how much of it has
  std::size_t huge_bytes_ = 0;
  std::atomic<std::byte*>* directory_;
};

template <typename T>
class Plane {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  Plane() : bytes_(sizeof(T)) {}
  void ensure(std::size_t count) { bytes_.ensure(count); }
  [[nodiscard]] T& operator[](std::size_t i) const noexcept {
    return *reinterpret_cast<T*>(bytes_.at(i));
  }
  void copy_to(void* out, std::size_t count) const noexcept { bytes_.copy_to(out, count); }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept { return bytes_.allocated_bytes(); }

 private:
  BytePlane bytes_;
};

}  // namespace upvec
