#include "files.hpp"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include "upvec/error.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define UPVEC_POSIX_FILES 1
#endif

namespace upvec {
namespace {

[[noreturn]] void fail(const char* what, const std::string& path) {
  throw Error(ErrorCode::kFile,
              std::string("cannot ") + what + " " + path + ": " + std::strerror(errno));
}

bool seek(std::FILE* file, std::uint64_t offset) {
#ifdef UPVEC_POSIX_FILES
  return fseeko(file, static_cast<off_t>(offset), SEEK_SET) == 0;
#else
  return _fseeki64(file, static_cast<std::int64_t>(offset), SEEK_SET) == 0;
#endif
}

bool sync_to_disk([[maybe_unused]] std::FILE* file) {
#if defined(__APPLE__)
  // Plain fsync leaves the data in the drive's cache there.
  return fcntl(fileno(file), F_FULLFSYNC) == 0 || fsync(fileno(file)) == 0;
#elif defined(UPVEC_POSIX_FILES)
  return fsync(fileno(file)) == 0;
#else
  return true;
#endif
}

void sync_directory_of([[maybe_unused]] const std::string& path) {
#ifdef UPVEC_POSIX_FILES
  const std::size_t slash = path.find_last_of('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = open(directory.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open the directory", directory);
  const bool synced = fsync(fd) == 0;
  close(fd);
  if (!synced) fail("sync the directory", directory);
#endif
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path)
    : path_(path), temporary_(path + ".tmp"), file_(std::fopen(temporary_.c_str(), "wb")) {
  if (file_ == nullptr) fail("create", temporary_);
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(temporary_.c_str());
}

void AtomicFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (offset != at_ && !seek(file_, offset)) fail("write", temporary_);
  at_ = offset + bytes.size();
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("write", temporary_);
}

void AtomicFile::commit() {
  if (std::fflush(file_) != 0) fail("write", temporary_);
  if (!sync_to_disk(file_)) fail("sync", temporary_);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename to", path_);
  std::fclose(file_);
  file_ = nullptr;
  sync_directory_of(path_);
}

FileContents::FileContents(const std::string& path, [[maybe_unused]] bool map) {
#ifdef UPVEC_POSIX_FILES
  if (map) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("open", path);
    struct stat status {};
    const bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    const auto size = static_cast<std::size_t>(status.st_size);
    void* const mapping =
        regular && size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (mapping != MAP_FAILED) {
      mapping_ = mapping;
      bytes_ = {static_cast<const std::byte*>(mapping), size};
      return;
    }
  }
#endif
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) fail("open", path);
  std::vector<std::byte> piece(1 << 20);
  for (;;) {
    const std::size_t n = std::fread(piece.data(), 1, piece.size(), file.get());
    buffer_.insert(buffer_.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n));
    if (n < piece.size()) break;
  }
  if (std::ferror(file.get()) != 0) fail("read", path);
  bytes_ = buffer_;
}

void FileContents::let_go([[maybe_unused]] std::span<const std::byte> part) const noexcept {
#ifdef UPVEC_POSIX_FILES
  if (mapping_ == nullptr) return;
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + part.size()) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#endif
}

FileContents::~FileContents() {
#ifdef UPVEC_POSIX_FILES
  if (mapping_ != nullptr) munmap(mapping_, bytes_.size());
#endif
}

}  // namespace upvec
