"""Damage of any kind, met by opening: refused by name with nothing changed, or harmless.

``UPVEC_DAMAGE=all`` takes every byte of every file instead of some of each.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import upvec
from faulty_files import UnsyncedFiles
from test_backup import made
from upvec import log
from upvec.collection import open_directory
from upvec.errors import CorruptionError

ALL = os.environ.get("UPVEC_DAMAGE") == "all"

Tree = dict[str, bytes]


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Tree, str]:
    """A closed collection with two checkpoints and several segments: files, and digest."""
    monkeypatch.setattr(log, "SEGMENT_BYTES", 3000)
    col = made(tmp_path / "c")
    digest = col.digest()
    col.close()
    return tmp_path / "c", tree(tmp_path / "c"), digest


def tree(root: Path) -> Tree:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def place(root: Path, files: Tree) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, data in files.items():
        (root / name).write_bytes(data)


def outcome(root: Path, files: Tree, digest: str) -> str:
    """Open what is there; say whether it was refused or harmless, or what went wrong."""
    place(root, files)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # an older checkpoint is taken
            col = open_directory(str(root), None, UnsyncedFiles(), auto_checkpoint=False)
    except CorruptionError:
        return "refused" if tree(root) == files else "refused, and changed"
    with col:
        return "harmless" if col.digest() == digest else "WRONG"


def flips(files: Tree) -> Iterator[tuple[str, Tree]]:
    chance = random.Random(3)
    for name, data in files.items():
        for at in range(0, len(data), 1 if ALL else max(1, len(data) // 25)):
            damaged = bytearray(data)
            damaged[at] ^= 1 << chance.randrange(8)
            yield f"{name}, byte {at}", files | {name: bytes(damaged)}


def cuts(files: Tree) -> Iterator[tuple[str, Tree]]:
    for name, data in files.items():
        for size in range(0, len(data), 1 if ALL else max(1, len(data) // 8)):
            yield f"{name}, cut at {size}", files | {name: data[:size]}
        yield f"{name}, with zeros", files | {name: data + bytes(100)}
        yield f"{name}, missing", {key: value for key, value in files.items() if key != name}


def exchanges(files: Tree) -> Iterator[tuple[str, Tree]]:
    for one in files:
        for other in files:
            if one < other and os.path.basename(one)[:5] == os.path.basename(other)[:5]:
                yield f"{one} and {other} swapped", files | {one: files[other], other: files[one]}
                yield f"{one} doubled", files | {other: files[one]}


def test_damage_is_refused_or_harmless(sound: tuple[Path, Tree, str]) -> None:
    root, files, digest = sound
    counts: dict[str, int] = {}
    newest = max(name for name in files if name.startswith("log"))
    for kind in (flips, cuts, exchanges):
        for what, damaged in kind(files):
            found = outcome(root, damaged, digest)
            counts[found] = counts.get(found, 0) + 1
            # A log that was cut short looks like one that ended earlier: nothing tells them apart.
            allowed = {"WRONG"} if kind is cuts and what.startswith(newest) else set()
            assert found in {"refused", "harmless"} | allowed, what
    print(counts)
    assert counts["refused"] > 60
    assert counts["harmless"] > 300


def test_what_is_gone_altogether_is_not_made_anew(sound: tuple[Path, Tree, str]) -> None:
    root, _, _ = sound
    for gone in ("log", "MANIFEST"):
        copy = root.with_name(f"without-{gone}")
        shutil.copytree(root, copy)
        if gone == "log":
            shutil.rmtree(copy / gone)
        else:
            (copy / gone).unlink()
        with pytest.raises((CorruptionError, FileNotFoundError)):
            upvec.open(copy)
        with pytest.raises((CorruptionError, FileNotFoundError)):
            upvec.open(copy, read_only=True)
