#include "planes.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define UPVEC_HAS_MMAP 1
#endif

namespace upvec {
namespace {

// One huge page on x86-64 and most aarch64 systems.
constexpr std::size_t kHugePageBytes = std::size_t{1} << 21;

#ifdef UPVEC_HAS_MMAP
std::byte* map_aligned(std::size_t bytes) {
  // Map one alignment unit too many, then give back what lies outside the aligned range.
  const std::size_t span = bytes + kHugePageBytes;
  void* raw = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  const auto begin = reinterpret_cast<std::uintptr_t>(raw);
  const std::uintptr_t aligned = (begin + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
  if (aligned > begin) munmap(raw, aligned - begin);
  const std::size_t tail = begin + span - (aligned + bytes);
  if (tail > 0) munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  return reinterpret_cast<std::byte*>(aligned);
}
#endif

std::byte* allocate_chunk(std::size_t bytes) {
#ifdef UPVEC_HAS_MMAP
  return map_aligned(bytes);
#else
  auto* chunk = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}));
  std::memset(chunk, 0, bytes);
  return chunk;
#endif
}

// Asks for huge pages: at the first touch, and for what was touched already.
void use_huge_pages([[maybe_unused]] std::byte* chunk, [[maybe_unused]] std::size_t bytes,
                    [[maybe_unused]] bool touched) noexcept {
#ifdef MADV_HUGEPAGE
  madvise(chunk, bytes, MADV_HUGEPAGE);
#endif
#ifdef __linux__
  // From Linux 6.1 on; older ones refuse it, and do so in time by themselves. glibc 2.36 has no
  // name for it yet.
  constexpr int kCollapse = 25;
  if (touched) madvise(chunk, bytes, kCollapse);
#endif
}

void free_chunk(std::byte* chunk, [[maybe_unused]] std::size_t bytes) {
#ifdef UPVEC_HAS_MMAP
  munmap(chunk, bytes);
#else
  ::operator delete (chunk, std::align_val_t{64});
#endif
}

}  // namespace

BytePlane::BytePlane(std::size_t stride_bytes) : stride_bytes_(stride_bytes) {
  // For very long records more than a huge page, so that the directory stays small.
  constexpr std::size_t kMinRecords = 256;
  std::size_t records =
      std::max(kMinRecords, std::bit_ceil((kHugePageBytes + stride_bytes - 1) / stride_bytes));
#ifdef UPVEC_HAS_MMAP
  // What is left of a chunk behind its last huge page lies on small ones: not much of it.
  constexpr std::size_t kSmallShare = 16;
  constexpr std::size_t kMostBytes = 16 * kHugePageBytes;
  while (records * stride_bytes % kHugePageBytes * kSmallShare > records * stride_bytes &&
         2 * records * stride_bytes <= kMostBytes) {
    records *= 2;
  }
#endif
  shift_ = static_cast<unsigned>(std::countr_zero(records));
  mask_ = records - 1;
  // Whole pages, so that a chunk is a mapping of its own.
  constexpr std::size_t kPageBytes = 4096;
  chunk_bytes_ = (records * stride_bytes + kPageBytes - 1) & ~(kPageBytes - 1);
  max_chunks_ = (kMaxSlots >> shift_) + 1;
  // Untouched pages of a zeroed directory cost no memory.
  directory_ = static_cast<std::atomic<std::byte*>*>(
      std::calloc(max_chunks_, sizeof(std::atomic<std::byte*>)));
  if (directory_ == nullptr) throw std::bad_alloc();
}

BytePlane::~BytePlane() {
  for (std::size_t c = 0; c < chunks_; ++c) free_chunk(directory_[c].load(), chunk_bytes_);
  std::free(directory_);
}

void BytePlane::ensure(std::size_t count) {
  const std::size_t chunks_before = chunks_;
  while (capacity() < count) add_chunk();
  count_ = std::max(count_, count);
  use_huge_pages_where_full(chunks_before);
}

// As soon as all of a huge page is asked for and not before, so that none costs more than its
// records, and an index of a few rows no megabytes.
void BytePlane::use_huge_pages_where_full(std::size_t chunks_before) {
  for (; huge_chunk_ < chunks_; ++huge_chunk_, huge_bytes_ = 0) {
    const std::size_t records = std::min(count_ - (huge_chunk_ << shift_), mask_ + 1);
    const std::size_t full = records * stride_bytes_ / kHugePageBytes * kHugePageBytes;
    if (full > huge_bytes_) {
      std::byte* const chunk = directory_[huge_chunk_].load(std::memory_order_relaxed);
      use_huge_pages(chunk + huge_bytes_, full - huge_bytes_, huge_chunk_ < chunks_before);
      huge_bytes_ = full;
    }
    if (records <= mask_) return;
  }
}

void BytePlane::copy_to(void* out, std::size_t count) const noexcept {
  auto* to = static_cast<std::byte*>(out);
  for (std::size_t first = 0; first < count; first += mask_ + 1) {
    const std::size_t bytes = std::min(count - first, mask_ + 1) * stride_bytes_;
    std::memcpy(to, at(first), bytes);
    to += bytes;
  }
}

void BytePlane::add_chunk() {
  if (chunks_ >= max_chunks_) throw std::bad_alloc();
  directory_[chunks_].store(allocate_chunk(chunk_bytes_), std::memory_order_release);
  ++chunks_;
}

std::size_t BytePlane::allocated_bytes() const noexcept {
  constexpr std::size_t kPageBytes = 4096;
  const std::size_t full_chunks = count_ >> shift_;
  const std::size_t rest = (count_ & mask_) * stride_bytes_;
  return full_chunks * chunk_bytes_ + (rest + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace upvec
