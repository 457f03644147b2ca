#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <span>
#include <vector>

#include "links.hpp"
#include "random.hpp"

namespace {

using upvec::InLists;
using upvec::kNoSlot;
using upvec::LinkTable;
using upvec::Slot;

std::vector<Slot> read(const LinkTable& table, std::size_t list) {
  std::vector<Slot> slots(table.cap());
  slots.resize(table.read(list, slots.data()));
  return slots;
}

TEST_CASE("a list is what was written last") {
  LinkTable table(10);
  table.ensure(100);
  CHECK(read(table, 5).empty());
  CHECK_FALSE(table.contains(5, 1));
  upvec::testing::Random random(1);
  std::vector<std::vector<Slot>> model(100);
  for (int step = 0; step < 2000; ++step) {
    const std::size_t list = random() % 100;
    std::vector<Slot> slots(random() % 11);
    for (Slot& slot : slots) {
      slot = 1 + random() % 1000;
    }
    table.write(list, slots);
    model[list] = slots;
    const std::size_t other = random() % 100;
    REQUIRE(read(table, other) == model[other]);
    for (Slot slot = 1; slot < 20; ++slot) {
      REQUIRE(table.contains(other, slot) ==
              (std::find(model[other].begin(), model[other].end(), slot) != model[other].end()));
    }
  }
}

TEST_CASE("a full list ends at its cap, also where the cap fills the cache line") {
  for (const std::size_t cap : {4U, 16U, 31U, 32U, 512U}) {
    LinkTable table(cap);
    table.ensure(3);
    std::vector<Slot> slots(cap);
    for (std::size_t i = 0; i < cap; ++i) {
      slots[i] = static_cast<Slot>(i + 1);
    }
    table.write(0, slots);
    table.write(1, slots);
    table.write(2, slots);
    CHECK(read(table, 1) == slots);
    CHECK(table.contains(1, static_cast<Slot>(cap)));
    table.write(1, {});
    CHECK(read(table, 0) == slots);
    CHECK(read(table, 1).empty());
    CHECK(read(table, 2) == slots);
  }
}

TEST_CASE("in-lists are sorted sets, whatever their sizes do") {
  InLists lists;
  lists.ensure(20);
  std::vector<std::set<Slot>> model(20);
  upvec::testing::Random random(2);
  for (int step = 0; step < 40'000; ++step) {
    const std::size_t list = random() % 20;
    const Slot slot = 1 + random() % 400;
    switch (random() % 16) {
      case 0:
        if (random() % 64 == 0) {
          lists.clear(list);
          model[list].clear();
        }
        break;
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
        lists.erase(list, slot);
        model[list].erase(slot);
        break;
      default:
        lists.insert(list, slot);
        model[list].insert(slot);
    }
    const auto got = lists.get(list);
    REQUIRE(std::vector<Slot>(got.begin(), got.end()) ==
            std::vector<Slot>(model[list].begin(), model[list].end()));
  }
}

TEST_CASE("an in-list may outgrow a whole chunk beside small ones") {
  InLists lists;
  lists.ensure(3);
  lists.insert(0, 9);
  constexpr Slot kMany = 600'000;  // a chunk holds 262,144
  for (Slot slot = 1; slot <= kMany; ++slot) {
    lists.insert(1, slot);
  }
  lists.insert(2, 8);
  REQUIRE(lists.get(1).size() == kMany);
  for (Slot slot = 1; slot <= kMany; slot += 1013) {
    REQUIRE(lists.get(1)[slot - 1] == slot);
  }
  CHECK(lists.get(0).front() == 9);
  CHECK(lists.get(2).front() == 8);
  lists.clear(1);
  CHECK(lists.get(1).empty());
}

TEST_CASE("blocks that lists gave up are used again") {
  InLists lists;
  lists.ensure(100);
  const auto fill_and_clear = [&] {
    for (std::size_t list = 0; list < 100; ++list) {
      for (Slot slot = 1; slot <= 200; ++slot) {
        lists.insert(list, slot);
      }
    }
    for (std::size_t list = 0; list < 100; ++list) {
      lists.clear(list);
    }
  };
  fill_and_clear();
  const std::size_t bytes = lists.allocated_bytes();
  for (int round = 0; round < 50; ++round) {
    fill_and_clear();
  }
  CHECK(lists.allocated_bytes() == bytes);
}

}  // namespace
