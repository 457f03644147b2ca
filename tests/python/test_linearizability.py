"""Histories of gets, searches, upserts and deletes by several threads are linearizable, by key.

One register is a group of keys that every write treats alike, with one number in all vectors of the
group: a reader that met half a batch would have read a value that nobody wrote.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

import upvec
from linearizability import Operation, Recorder, first_violation
from upvec import Field, Outcome, Schema, Vector

DIM = 8
KEYS = 20  # of a group; so many that a commit takes a while
GROUPS = 2
STEPS = 200  # of each writer; readers read until they are done
NEVER = float("inf")


# The checker itself -----------------------------------------------------------------------


def write(called: float, returned: float, value: Any, found: bool | None = None) -> Operation:
    return Operation("write", called, returned, value, found)


def read(called: float, returned: float, value: Any) -> Operation:
    return Operation("read", called, returned, value)


def remove(called: float, returned: float, found: bool | None = None) -> Operation:
    return Operation("remove", called, returned, None, found)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(0, 1, None)],
        [write(0, 1, 1), read(2, 3, 1), remove(4, 5, True), read(6, 7, None)],
        # Of what overlaps, either order is right, also for readers one after the other.
        [write(0, 9, 1), read(1, 2, None), read(3, 4, 1)],
        [write(0, 1, 1), write(2, 9, 2), write(2, 9, 3), read(3, 4, 2), read(5, 6, 3)],
        [write(0, 4, 1), write(1, 3, 2), read(5, 6, 1)],
        [write(0, 4, 1), write(1, 3, 2), read(5, 6, 2)],
        # Two readers at once may be served in the order that their answers ask for.
        [write(0, 1, 1), write(2, 9, 2), read(3, 6, 2), read(4, 7, 1)],
        # Only one of two removals at once finds something.
        [write(0, 1, 1), remove(2, 5, True), remove(3, 4, False)],
        [write(0, 1, 1), remove(2, 9, True), write(3, 8, 2, False), read(4, 5, 2)],
        # What never returned may have happened late, early or not at all.
        [write(0, NEVER, 1), read(1, 2, None), read(3, 4, 1)],
        [write(0, NEVER, 1), read(1, 2, None)],
        [write(0, 1, 1), read(1, 2, None)],  # they touch
    ],
)
def test_a_linearizable_history_is_accepted(history: list[Operation]) -> None:
    assert first_violation(history) is None
    assert first_violation(reversed(history)) is None


@pytest.mark.parametrize(
    ("history", "culprit"),
    [
        # A stale read after a write that had returned.
        ([write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)], 2),
        ([write(0, 1, 1), read(2, 3, None)], 1),
        ([write(0, 1, 1), remove(2, 3), read(4, 5, 1)], 2),
        # A lost update: of two writes at once one is last, and stays.
        ([write(0, 4, 1), write(1, 3, 2), read(5, 6, 1), read(7, 8, 2)], 3),
        ([write(0, 1, 1), write(2, 3, 2, found=False)], 1),
        ([write(0, 1, 1, found=False), write(0, 2, 2, found=False)], 1),
        # A value that nobody wrote, or that is written only later.
        ([write(0, 1, 1), read(2, 3, 7)], 1),
        ([read(0, 1, 1), write(2, 3, 1)], 0),
        # Back in time: the first reader has seen the write, the second not any more.
        ([write(0, 1, 1), write(2, 9, 2), read(3, 4, 2), read(5, 6, 1)], 3),
        # Two removals that both found the one value.
        ([write(0, 1, 1), remove(2, 5, True), remove(3, 6, True)], 2),
        ([remove(0, 1, True)], 0),
        ([write(0, NEVER, 1), read(1, 2, 1), read(3, 4, None)], 2),
    ],
)
def test_a_history_that_is_not_linearizable_is_refused(
    history: list[Operation], culprit: int
) -> None:
    assert first_violation(history) == history[culprit]
    assert first_violation(reversed(history)) == history[culprit]


def test_a_history_made_in_one_order_is_accepted_until_one_read_is_changed() -> None:
    rng = random.Random(3)
    for _ in range(50):
        history: list[Operation] = []
        state = None
        for moment in range(1, 40):
            # Around its moment, each operation reaches into the time of its neighbours.
            span = (moment - 2 * rng.random(), moment + 2 * rng.random())
            kind = rng.choice(["write", "read", "read", "remove"])
            if kind == "read":
                history.append(read(*span, state))
                continue
            found, state = state is not None, moment if kind == "write" else None
            history.append(write(*span, state, found) if state else remove(*span, found))
        assert first_violation(history) is None
        at = rng.choice([i for i, op in enumerate(history) if op.kind == "read"])
        history[at] = read(history[at].called, history[at].returned, -1)
        assert first_violation(history) == history[at]


# Histories of an index and of a collection ------------------------------------------------


class Store(Protocol):
    """What is to be like a register for every group of keys; values are (value, found)."""

    def write(self, group: int, number: int) -> tuple[int, bool | None]: ...
    def remove(self, group: int) -> tuple[None, bool | None]: ...
    def reads(self) -> list[Callable[[int], tuple[Any, None]]]: ...


def keys_of(group: int) -> list[int]:
    return [1 + group * KEYS + i for i in range(KEYS)]


def vectors_of(number: int) -> Any:
    return np.full((KEYS, DIM), number, np.float32)


def the_only(values: set[Any]) -> Any:
    """What a group has; of half a batch, a value that nobody wrote."""
    return values.pop() if len(values) == 1 else tuple(sorted(values, key=repr))


class IndexStore:
    def __init__(self, codes: str, keep: str) -> None:
        self.index = upvec.Index(DIM, codes=codes, keep=keep)
        self.zero = np.zeros(DIM, np.float32)

    def write(self, group: int, number: int) -> tuple[int, bool]:
        result = self.index.upsert(keys_of(group), vectors_of(number), threads=1)
        return number, the_only(set(result.status.tolist())) == Outcome.UPDATED

    def remove(self, group: int) -> tuple[None, bool]:
        return None, the_only(set(self.index.remove(keys_of(group)).tolist()))

    def reads(self) -> list[Callable[[int], tuple[Any, None]]]:
        return [self.get, self.search, self.exact_search]

    def get(self, group: int) -> tuple[Any, None]:
        vectors, found = self.index.get(keys_of(group))
        return the_only(
            # Rounded: where codes are all that is kept, it is off by a millionth.
            {v.round() if f else None for v, f in zip(vectors[:, -1], found, strict=True)}
        ), None

    def search(self, group: int) -> tuple[Any, None]:
        return self._number(self.index.search(self.zero, KEYS, where=keys_of(group)))

    def exact_search(self, group: int) -> tuple[Any, None]:
        return self._number(self.index.exact_search(self.zero, KEYS, where=keys_of(group)))

    def _number(self, hits: upvec.SearchResult) -> tuple[Any, None]:
        """The number that the distances from the origin tell."""
        numbers = np.sqrt(hits.distances[0, : hits.counts[0]] / DIM).round()
        if len(numbers) not in {0, KEYS}:
            return ("half a batch", *numbers.tolist()), None
        return (the_only(set(numbers.tolist())) if len(numbers) else None), None


class CollectionStore:
    SCHEMA = Schema(
        Field("id", "int64", primary=True),
        Field("number", "int64"),
        Field("mail", "string"),
        Vector("emb", DIM, metric="l2"),
        unique=[upvec.Unique("mail")],
    )

    def __init__(self, path: Path | str) -> None:
        self.col = upvec.open(path, self.SCHEMA, durability="os")
        self.zero = np.zeros(DIM, np.float32)

    def write(self, group: int, number: int) -> tuple[int, bool]:
        result = self.col.upsert(
            {
                "id": keys_of(group),
                "number": [number] * KEYS,
                "mail": [f"{number}-{key}" for key in keys_of(group)],
                "emb": vectors_of(number),
            }
        )
        return number, the_only(set(result.status.tolist())) == Outcome.UPDATED

    def remove(self, group: int) -> tuple[None, bool]:
        status = the_only(set(self.col.delete(keys_of(group)).status.tolist()))
        return None, status == Outcome.DELETED

    def reads(self) -> list[Callable[[int], tuple[Any, None]]]:
        return [self.get, self.search]

    def get(self, group: int) -> tuple[Any, None]:
        rows = self.col.get(keys_of(group))
        numbers = {row["number"] if row else None for row in rows.to_dicts()}
        vectors = {row["emb"][0] if row else None for row in rows.to_dicts()}
        return the_only(numbers | vectors), None

    def search(self, group: int) -> tuple[Any, None]:
        hits = self.col.search(
            self.zero, KEYS, where=upvec.col("id").isin(keys_of(group)), fields=["number"]
        )
        numbers = set(hits["number"].tolist())
        numbers |= set(np.sqrt(hits.distances / DIM).round().tolist())
        if len(hits) not in {0, KEYS}:
            return ("half a batch", *numbers), None
        return (the_only(numbers) if numbers else None), None


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def recorded(store: Store, seed: int) -> Recorder:
    """Let writers and readers loose on the store, and note what they did and saw."""
    recorder = Recorder()
    numbers = count(1)
    errors: list[BaseException] = []
    start = threading.Barrier(5)
    done = threading.Event()

    def repeat(step: Callable[[random.Random], None], steps: Iterable[object], seed: int) -> None:
        rng = random.Random(seed)
        try:
            start.wait()
            for _ in steps:
                step(rng)
        except BaseException as error:  # noqa: BLE001  (raised again by the main thread)
            errors.append(error)

    def writing(rng: random.Random) -> None:
        group = rng.randrange(GROUPS)
        if rng.random() < 0.3:
            recorder.record(group, "remove", lambda: store.remove(group))
        else:
            number = next(numbers)
            recorder.record(group, "write", lambda: store.write(group, number))

    def reading(rng: random.Random) -> None:
        group = rng.randrange(GROUPS)
        reader = rng.choice(store.reads())
        recorder.record(group, "read", lambda: reader(group))

    def until_done() -> Iterator[object]:
        while not done.is_set():
            yield

    writers = [
        threading.Thread(target=repeat, args=(writing, range(STEPS), seed * 10 + i)) for i in (1, 2)
    ]
    readers = [
        threading.Thread(target=repeat, args=(reading, until_done(), seed * 10 + i))
        for i in (3, 4, 5)
    ]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    if errors:
        raise errors[0]
    return recorder


def check(recorder: Recorder) -> None:
    assert recorder.overlaps() > STEPS // 2  # or little was tested
    for group, history in recorder.histories.items():
        violation = first_violation(history)
        around = [
            op
            for op in sorted(history, key=lambda op: op.called)
            if violation and op.returned > violation.called - 1e7 and op.called < violation.returned
        ]
        assert violation is None, (group, violation, around)


@pytest.mark.usefixtures("frequent_switches")
# Without bf16, in which not every number that is written is another one.
@pytest.mark.parametrize(("codes", "keep"), [("int8", "f32"), ("none", "f32"), ("int8", "none")])
def test_histories_of_an_index_are_linearizable(codes: str, keep: str) -> None:
    for seed in range(3):
        store = IndexStore(codes, keep)
        check(recorded(store, seed))
        assert store.index.check().ok


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_histories_of_a_collection_are_linearizable(place: str, tmp_path: Path) -> None:
    store = CollectionStore(":memory:" if place == "memory" else tmp_path / "c")
    with store.col:
        check(recorded(store, seed=1))
