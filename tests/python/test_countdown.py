"""The n-th operation on a file fails, once or from then on, for every n, during every kind of call.

Whatever fails is told; what was not told to be stored is not, or the handle says that it does not
know; what was stored stays; and the handle goes on, or refuses to.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import upvec
from faulty_files import FaultyFiles, UnsyncedFiles
from small_collection import SCHEMA, rows
from upvec import collection, log, storage
from upvec.apply import Engine
from upvec.collection import open_directory
from upvec.errors import PoisonedError, UpvecError

Act = Callable[[upvec.Collection], object]
FAULTS = ("EIO", "ENOSPC", "EINTR", "short", "half", "memory")


def transact(col: upvec.Collection) -> None:
    with col.transaction() as tx:
        tx.delete([1])
        tx.upsert(rows(30, 3, 9))


ACTS: dict[str, Act] = {
    "upsert": lambda col: col.upsert(rows(3, 9, 5)),
    "insert": lambda col: col.insert(rows(100, 2, 5)),
    "delete": lambda col: col.delete([4, 5]),
    "transaction": transact,
    "sync": lambda col: col.sync(rows(0, 18, 6), scope=upvec.ALL),
    "alter": lambda col: col.alter(add=[upvec.Field("note", "string", default="-")]),
    "checkpoint": lambda col: col.checkpoint(),
    "restore": lambda col: col.restore(seq=2),
    "close": lambda col: col.close(),
}


def probe(col: upvec.Collection) -> None:
    col.upsert(rows(900, 1, 90))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A closed collection with two checkpoints and a log after them."""
    folder = tmp_path_factory.mktemp("countdown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "SEGMENT_BYTES", 700)
        with open_directory(str(folder / "base"), SCHEMA, UnsyncedFiles()) as col:
            col.upsert(rows(0, 12, 1))
            col.checkpoint()
            col.upsert(rows(8, 12, 2))
            col.checkpoint()
            col.delete([2])
        yield folder


class Place:
    """Copies of the collection, one after the other."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def new(self) -> str:
        copy = self._base / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        return str(shutil.copytree(self._base / "base", copy))


@pytest.fixture
def place(base: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(log, "SEGMENT_BYTES", 700)
    return Place(base)


def open_in(root: str, files: Any = None) -> upvec.Collection:
    return open_directory(root, None, files or UnsyncedFiles(), auto_checkpoint=False)


def digests(place: Place, act: Act) -> tuple[str, str, str, str]:
    """Return the digests before and after, and of both with the probe after that."""
    found = []
    for acts in ([], [act], [probe], [act, probe]):
        root = place.new()
        col = open_in(root)
        for one in acts:
            if col.closed:
                col = open_in(root)
            one(col)
        if not col.closed:
            found.append(col.digest())
            col.close()
        else:
            with open_in(root) as again:
                found.append(again.digest())
    before, after, probed, both = found
    return before, after, probed, both


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ACTS)
def test_whatever_fails_is_told_and_nothing_is_lost(
    place: Place, name: str, fault: Any, forever: bool
) -> None:
    act = ACTS[name]
    wanted = digests(place, act)
    failures = 0
    for at in range(1, 200):
        root = place.new()
        files = FaultyFiles()
        col = open_in(root, files)
        count = len(files.log)
        files.fail(at, fault, forever=forever)
        told = fails(lambda col=col: act(col))
        reached = len(files.log) - count >= at
        files.heal()
        check_after(col, root, wanted, told=told, interrupt=fault == "memory")
        failures += told
        if not reached:
            break
    else:
        pytest.fail("it never ended")
    if fault in {"EIO", "memory"} and name not in {"close", "checkpoint"}:
        assert failures >= 2


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_closing_closes_whatever_becomes_of_its_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch, fault: Any, forever: bool
) -> None:
    monkeypatch.setattr(storage, "LEAST_CLOSING_BYTES", 1)
    act = ACTS["upsert"]
    _, after, _, both = digests(place, act)
    written = 0
    for at in range(1, 200):
        root = place.new()
        files = FaultyFiles()
        col = open_directory(root, None, files)
        act(col)
        count = len(files.log)
        files.fail(at, fault, forever=forever)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            fails(col.close)
        assert col.closed
        reached = len(files.log) - count >= at
        files.heal()
        with open_in(root) as again:  # its lock is free
            assert again.digest() == after
            written += again.stats()["checkpoint_seq"] == again.seq
            probe(again)
            assert again.digest() == both
        if not reached:
            break
    else:
        pytest.fail("it never ended")
    assert written > 0


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except (OSError, MemoryError, UpvecError):
        return True
    return False


def check_after(
    col: upvec.Collection,
    root: str,
    wanted: tuple[str, str, str, str],
    *,
    told: bool,
    interrupt: bool = False,
) -> None:
    """Compare with what may be there; an interrupt of a sync leaves the commit in the log."""
    before, after, probed, both = wanted
    if col.closed:
        allowed = {after} if not told else {before, after}
    else:
        len(col)
        poisoned = False
        try:
            probe(col)
        except PoisonedError:
            poisoned = True
        if poisoned:
            allowed = {before, after} if told else set()
        else:
            allowed = {both} if not told else {probed, both} if interrupt else {probed}
            assert col.digest() in allowed
        with suppress(PoisonedError):
            col.close()
    with open_in(root) as again:
        assert again.digest() in allowed
        probe(again)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "half", "memory"])
@pytest.mark.parametrize("read_only", [False, True])
def test_opening_that_fails_anywhere_changes_nothing(
    place: Place, fault: Any, read_only: bool
) -> None:
    with open_in(place.new()) as col:
        digest = col.digest()
    points = 0
    for at in range(1, 500):
        root = place.new()
        files = FaultyFiles(count_reads=True)
        files.fail(at, fault)
        opened = None
        told = False
        try:
            opened = open_directory(root, None, files, read_only=read_only, auto_checkpoint=False)
        except (OSError, MemoryError, UpvecError):
            told = True
        reached = len(files.log) >= at
        files.heal()
        if opened is not None:
            assert opened.digest() == digest
            opened.close()
        with open_in(root) as again:
            assert again.digest() == digest
        points += told
        if not reached:
            break
    assert points > 5


@pytest.mark.parametrize("fault", ["EIO", "memory"])
def test_a_refresh_that_fails_anywhere_is_made_again(place: Place, fault: Any) -> None:
    points = 0
    for at in range(1, 200):
        root = place.new()
        files = FaultyFiles(count_reads=True)
        with open_in(root) as writer:
            reader = open_directory(root, None, files, read_only=True)
            seen = reader.seq
            writer.upsert(rows(50, 5, 7))
            writer.delete([9])
            count = len(files.log)
            files.fail(at, fault)
            told = fails(reader.refresh)
            reached = len(files.log) - count >= at
            files.heal()
            assert reader.seq >= seen
            assert reader.refresh() == writer.seq
            assert reader.digest() == writer.digest()
            reader.close()
        points += told
        if not reached:
            break
    assert points > 3


# Want of memory in the middle of a commit


def exhausted(*_: object, **__: object) -> Any:
    raise MemoryError


@pytest.mark.parametrize("name", ["upsert", "delete", "transaction", "sync", "alter"])
@pytest.mark.parametrize(
    ("owner", "what"),
    [
        (storage, "encode"),
        (collection, "resolve"),
        (Engine, "apply"),
        (Engine, "_change_keys"),
        (Engine, "_change_vectors"),
        (Engine, "upsert_effects"),
    ],
)
def test_want_of_memory_at_any_step_is_told_and_nothing_is_half(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, owner: Any, what: str
) -> None:
    act = ACTS[name]
    wanted = digests(place, act)
    root = place.new()
    col = open_in(root)
    with monkeypatch.context() as patch:
        patch.setattr(owner, what, exhausted)
        told = fails(lambda: act(col))
    check_after(col, root, wanted, told=told)
