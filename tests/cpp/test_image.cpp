// An image is the index as it was, whatever is written while it is read.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "links.hpp"
#include "list_shadow.hpp"
#include "model.hpp"
#include "random.hpp"
#include "upvec/index.hpp"

namespace {

using namespace upvec;
using namespace upvec::testing;

using Bytes = std::vector<std::byte>;

Bytes bytes_of(
    Image image, const std::function<void()>& between = [] {}) {
  Bytes bytes;
  for (Image::Piece piece; image.next(piece);) {
    bytes.resize(std::max(bytes.size(), piece.offset + piece.bytes.size()));
    std::copy(piece.bytes.begin(), piece.bytes.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(piece.offset));
    between();
  }
  return bytes;
}

Index loaded(const Bytes& bytes) { return Index::load_bytes(bytes.data(), bytes.size()); }

Keys numbers(KeyType type, int first, int count) {
  std::vector<int> wanted;
  for (int i = 0; i < count; ++i) wanted.push_back(first + i);
  return key_column(type, wanted);
}

Index made(KeyType type, Keep keep, VectorSource& source) {
  IndexOptions options;
  options.dim = 8;
  options.key_type = type;
  options.keep = keep;
  options.m = 4;
  options.ef_construction = 16;
  Index index(options);
  index.upsert(numbers(type, 0, 600).span(), source.matrix(600).view());
  index.remove(numbers(type, 100, 50).span());
  index.upsert(numbers(type, 120, 10).span(), source.matrix(10).view());
  return index;
}

TEST_CASE("an image is not changed by what is written while it is read") {
  for (const KeyType type : {KeyType::kInt64, KeyType::kString}) {
    for (const Keep keep : {Keep::kF32, Keep::kNone}) {
      VectorSource source(8, 5);
      Index index = made(type, keep, source);
      const Bytes before = bytes_of(index.image());
      const std::string digest = index.digest();
      int round = 0;
      const Bytes meanwhile = bytes_of(index.image(), [&] {
        index.upsert(numbers(type, 37 * round % 550, 40).span(), source.matrix(40).view());
        index.remove(numbers(type, 53 * round % 550, 30).span());
        index.upsert(numbers(type, 600 + 20 * round, 20).span(), source.matrix(20).view());
        ++round;
      });
      CHECK(round > 10);
      CHECK(meanwhile == before);
      CHECK(loaded(meanwhile).digest() == digest);
      CHECK(index.digest() != digest);
      CHECK(why_not_ok(index.check()) == "");
    }
  }
}

TEST_CASE("several images of different moments may be read side by side") {
  VectorSource source(8, 6);
  Index index = made(KeyType::kInt64, Keep::kF32, source);
  std::vector<Image> images;
  std::vector<std::string> digests;
  for (int i = 0; i < 3; ++i) {
    digests.push_back(index.digest());
    images.push_back(index.image());
    index.upsert(numbers(KeyType::kInt64, 100 * i, 100).span(), source.matrix(100).view());
  }
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}, std::size_t{0}}) {
    CHECK(loaded(bytes_of(images[i])).digest() == digests[i]);
  }
}

TEST_CASE("an image that is dropped half-way holds nothing back") {
  VectorSource source(8, 7);
  Index index = made(KeyType::kInt64, Keep::kF32, source);
  {
    Image image = index.image();
    Image::Piece piece;
    CHECK(image.next(piece));
    index.upsert(numbers(KeyType::kInt64, 0, 600).span(), source.matrix(600).view());
    index.upsert(numbers(KeyType::kInt64, 0, 600).span(), source.matrix(600).view());
    CHECK(index.stats().rows > 1000);
  }
  for (int i = 0; i < 3; ++i) {
    index.upsert(numbers(KeyType::kInt64, 0, 1).span(), source.matrix(1).view());
  }
  CHECK(index.stats().rows < 620);
  CHECK(loaded(bytes_of(index.image())).digest() == index.digest());
}

TEST_CASE("images taken beside a writer are of whole batches, and load") {
  VectorSource source(8, 8);
  Index index = made(KeyType::kInt64, Keep::kF32, source);
  std::atomic<bool> done{false};
  std::thread writer([&] {
    VectorSource own(8, 9);
    for (int round = 0; !done.load(); ++round) {
      // Always ten keys more or ten keys less.
      const Keys ten = numbers(KeyType::kInt64, 1000 + 10 * (round / 2 % 20), 10);
      if (round % 2 == 0) {
        index.upsert(ten.span(), own.matrix(10).view());
      } else {
        index.remove(ten.span());
      }
      index.upsert(numbers(KeyType::kInt64, round % 500, 60).span(), own.matrix(60).view());
    }
  });
  std::vector<std::string> wrong;
  for (int i = 0; i < 30; ++i) {
    const Index copy = loaded(bytes_of(index.image()));
    const std::string problem = why_not_ok(copy.check());
    if (!problem.empty()) wrong.push_back(problem);
    std::size_t visitors = 0;
    for (const int number : numbers_of(copy.keys())) visitors += number >= 1000 ? 1 : 0;
    if (visitors % 10 != 0) wrong.push_back("half a batch");
  }
  done.store(true);
  writer.join();
  CHECK(wrong == std::vector<std::string>{});
}

TEST_CASE("a shadow keeps lists by block, once, and not those that came later") {
  LinkTable table(4);
  table.ensure(200);
  const auto write = [&](std::size_t list, Slot slot) {
    const Slot slots[] = {slot};
    table.write(list, slots);
  };
  for (std::size_t list = 0; list < 200; ++list) write(list, static_cast<Slot>(list + 1));
  ListShadow shadow(table, 150);
  table.add_shadow(&shadow);
  write(3, 77);
  write(3, 78);
  write(149, 79);
  write(150, 80);
  for (std::size_t list = 0; list < 150; ++list) {
    CHECK(shadow.list(list)[0] == list + 1);
    CHECK(shadow.list(list)[1] == kNoSlot);
  }
  table.remove_shadow(&shadow);
  write(4, 81);
  CHECK(shadow.list(4)[0] == 5);
  CHECK(table.contains(4, 81));
}

}  // namespace
