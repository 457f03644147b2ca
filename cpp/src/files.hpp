// Files: one that appears whole or not at all, and one that is read whole.
// Failures of the operating system become Error(kFile) with its words for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace upvec {

// Writes to "<path>.tmp"; commit() syncs it, renames it to path and syncs the directory. Without
// commit() the temporary file is removed and path is as it was.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  std::FILE* file_;
  std::uint64_t at_ = 0;
};

class FileContents {
 public:
  // map: by a private mapping where the system has them, else into memory.
  FileContents(const std::string& path, bool map);
  ~FileContents();
  FileContents(const FileContents&) = delete;
  FileContents& operator=(const FileContents&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  // Of a mapping: gives the memory of this part of bytes() back until it is looked at again.
  void let_go(std::span<const std::byte> part) const noexcept;

 private:
  std::vector<std::byte> buffer_;
  void* mapping_ = nullptr;
  std::span<const std::byte> bytes_;
};

}  // namespace upvec
