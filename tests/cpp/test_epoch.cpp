#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "epoch.hpp"

namespace {

using upvec::Epochs;

TEST_CASE("without pins the oldest version is the published one") {
  Epochs epochs;
  CHECK(epochs.pinned().oldest() == 0);
  epochs.publish(7);
  CHECK(epochs.published() == 7);
  CHECK(epochs.pinned().oldest() == 7);
}

TEST_CASE("a pin holds its version until it is gone, however it was moved") {
  Epochs epochs;
  epochs.publish(3);
  auto pin = std::make_unique<Epochs::Pin>(epochs.pin());
  CHECK(pin->seq() == 3);
  epochs.publish(9);
  CHECK(epochs.pinned().oldest() == 3);
  Epochs::Pin moved = std::move(*pin);
  pin.reset();
  CHECK(epochs.pinned().oldest() == 3);
  Epochs::Pin newer = epochs.pin();
  moved = std::move(newer);
  CHECK(epochs.pinned().oldest() == 9);
}

TEST_CASE("long pins count how often a version is pinned") {
  Epochs epochs;
  epochs.publish(5);
  auto first = std::make_unique<Epochs::Pin>(epochs.pin_long());
  auto second = std::make_unique<Epochs::Pin>(epochs.pin_long());
  auto ahead = std::make_unique<Epochs::Pin>(epochs.pin_long(8));
  epochs.publish(6);
  CHECK(epochs.pinned().oldest() == 5);
  first.reset();
  CHECK(epochs.pinned().oldest() == 5);
  second.reset();
  CHECK(epochs.pinned().oldest() == 6);
  epochs.publish(20);
  CHECK(epochs.pinned().oldest() == 8);
  ahead.reset();
  CHECK(epochs.pinned().oldest() == 20);
}

TEST_CASE("more pins than the table has places are all honoured") {
  Epochs epochs;
  std::vector<Epochs::Pin> pins;
  for (std::uint64_t seq = 1; seq <= 400; ++seq) {
    epochs.publish(seq);
    pins.push_back(epochs.pin());
    REQUIRE(pins.back().seq() == seq);
  }
  for (std::uint64_t seq = 1; seq <= 400; ++seq) {
    REQUIRE(epochs.pinned().oldest() == seq);
    pins[seq - 1] = Epochs::Pin();
  }
  CHECK(epochs.pinned().oldest() == 400);
}

TEST_CASE("nothing is freed that a pinned reader may still look at") {
  // Version n is kept in cell n % kCells, and overwritten as soon as oldest() allows it.
  constexpr std::size_t kCells = 64;
  Epochs epochs;
  std::array<std::atomic<std::uint64_t>, kCells> cells{};
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> wrong = 0;
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const Epochs::Pin pin = epochs.pin();
        for (int i = 0; i < 20; ++i) {
          const auto& cell = cells[pin.seq() % kCells];
          if (cell.load(std::memory_order_relaxed) != pin.seq()) {
            wrong.fetch_add(1);
          }
        }
      }
    });
  }
  for (std::uint64_t seq = 1; seq < 10'000; ++seq) {
    while (seq >= kCells && epochs.pinned().oldest() <= seq - kCells) {
      std::this_thread::yield();
    }
    cells[seq % kCells].store(seq, std::memory_order_relaxed);
    epochs.publish(seq);
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  CHECK(wrong.load() == 0);
}

}  // namespace
