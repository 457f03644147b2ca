"""Saving what is sound of a damaged collection into a new one.

Nothing of the damaged one is changed. What is taken, in this order:

1. The newest checkpoint that is intact, and the log after it up to the first commit that cannot be
   read: that is the state after some commit, whole.
2. Without an intact checkpoint, the newest one block by block (see `blocks`), and the log after
   it. A row is dropped if it lacks something that may not be null, or if it is not known whether
   it lives. Of a vector field whose file is damaged no vector is believed: in the new collection it
   may be null, so that the rows stay, to be embedded again.
3. Without any checkpoint, the log from its beginning.

Commits after one that cannot be read are not applied: what they changed may rest upon it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._core import Index
from .blocks import BLOCK_ROWS, sound_blocks
from .checkpoint import LOG, Manifest, parse_anyway
from .codec import decode
from .columns import Column
from .errors import CorruptionError, SchemaError
from .fields import DTYPES
from .files import Files
from .history import History, effects_of_rows
from .image import LIVE, VERSIONS
from .schema import Schema
from .segment import MARKER, is_segment_name, read_record, read_segment_header
from .verify import Problem, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .checkpoint import Checkpoint
    from .state import State

__all__ = ["SalvageReport", "salvage"]

RowIds = npt.NDArray[np.int64]


@dataclass
class SalvageReport:
    """What :func:`salvage` has saved, and what not.

    Attributes
    ----------
    path : str
        The new collection.
    seq : int
        The commit of the damaged one whose state was saved.
    rows : int
        How many.
    lost : list of str
        What was not saved, as far as it is known.
    problems : list of Problem
        The damage.
    """

    path: str
    seq: int = 0
    rows: int = 0
    lost: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def salvage(
    path: str | os.PathLike[str], dest: str | os.PathLike[str], *, schema: Schema | None = None
) -> SalvageReport:
    """Write a new collection from what is sound of a damaged one, which stays as it is.

    Parameters
    ----------
    path, dest : str or path
        The damaged directory, and one that is not there yet.
    schema : Schema
        Needed only if MANIFEST is lost.

    Returns
    -------
    SalvageReport
        Versions begin anew. What deletes remember for ``order_by``, and results of ``op_id``, are
        not saved.

    Raises
    ------
    CorruptionError
        There is nothing to begin with.
    FileExistsError
        ``dest`` is there already.
    FileNotFoundError
    """
    from .collection import open_directory  # noqa: PLC0415

    root, target = os.path.abspath(os.fsdecode(path)), os.path.abspath(os.fsdecode(dest))
    files = Files()
    if files.exists(target):
        raise FileExistsError(f"{target} is there already; wanted a new directory")
    report = SalvageReport(target, problems=verify(root).problems)
    found = _Salvage(root, files, schema, report)
    state, rids = found.run()
    relaxed = _relaxed(state.schema, found.damaged_vectors)
    with open_directory(target, relaxed, files) as col:
        for start in range(0, len(rids), BLOCK_ROWS):
            some = rids[start : start + BLOCK_ROWS]
            new = np.arange(start, start + len(some), dtype=np.int64)
            col._write(effects_of_rows(state, some, new, col.seq + 1))  # noqa: SLF001
        col.checkpoint()
        report.rows = len(col)
    return report


class _Salvage:
    def __init__(
        self, root: str, files: Files, schema: Schema | None, report: SalvageReport
    ) -> None:
        self._root = root
        self._files = files
        self._schema = schema
        self._report = report
        # Fields by number: the log may rename them, or drop one and give its name to another.
        self.damaged_vectors: set[int] = set()
        # The rows that are not whole, by what they lack: a field, or to be known to live.
        self._bad: dict[int, set[int]] = {}

    def run(self) -> tuple[State, RowIds]:
        """Return the state that can be had, and its rows that are whole."""
        manifest = self._manifest()
        engine, state = self._base(manifest)
        for seq, payload in self._commits(manifest, state.seq):
            try:
                effects = decode(payload)
                after = engine.apply(state, effects, seq)
            except CorruptionError:
                break
            self._make_whole(effects.deleted)
            # Only a new row writes its primary key.
            keys = effects.columns.get(after.schema.numbers[after.schema.primary.name])
            if keys is not None:
                new = effects.rids if keys.rows is None else effects.rids[keys.rows]
                self._make_whole(new)
            state = after
        self._report.seq = state.seq
        rids = state.live_rids()
        bad = np.isin(rids, list(self._not_whole(state.schema)))
        if bad.any():
            self._report.lost.append(f"{int(bad.sum())} rows that are not whole")
        self._say_what_follows(manifest, state.seq)
        return state, rids[~bad]

    def _make_whole(self, rids: RowIds) -> None:
        for rows in self._bad.values():
            rows.difference_update(rids.tolist())

    def _not_whole(self, schema: Schema) -> set[int]:
        """Return the rows that lack something which may not be null under a schema."""
        wanted = {schema.numbers[name] for name, one in schema.fields.items() if not one.nullable}
        lacking = (rows for what, rows in self._bad.items() if what in wanted | {LIVE})
        return set().union(*lacking)

    def _manifest(self) -> Manifest:
        manifest = parse_anyway(self._root, self._files)
        if manifest is not None:
            return manifest
        if self._schema is None:
            raise CorruptionError(
                f"{self._root}: MANIFEST cannot be read, and with it the schema: pass schema=",
                path=self._root,
            )
        self._report.lost.append("what MANIFEST said; the schema is the one given")
        return Manifest(self._any_id(), {"schema": self._schema.to_dict()}, self._directories())

    def _any_id(self) -> bytes:
        folder = os.path.join(self._root, LOG)
        if self._files.is_directory(folder):
            for name in self._files.list(folder):
                if is_segment_name(name):
                    return self._files.read_all(os.path.join(folder, name))[12:28]
        return bytes(16)

    def _directories(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints that lie there, with the files that they happen to have."""
        from .checkpoint import Checkpoint  # noqa: PLC0415

        described = {} if self._schema is None else {"schema": self._schema.to_dict()}
        found = []
        for name in self._files.list(self._root):
            path = os.path.join(self._root, name)
            if name.startswith("checkpoint-") and not name.endswith(".tmp"):
                listed = dict.fromkeys(self._files.list(path), (0, 0))
                found.append(Checkpoint(name, int(name.split("-")[1]), listed, described))
        return tuple(sorted(found, key=lambda one: -one.seq))

    # The beginning

    def _base(self, manifest: Manifest) -> tuple[History, State]:
        seed = int.from_bytes(manifest.collection_id[:8], "little") >> 1
        damaged = {os.path.dirname(problem.path) for problem in self._report.problems}
        for checkpoint in manifest.checkpoints:
            if os.path.join(self._root, checkpoint.directory) not in damaged:
                engine = History(_schema_in(checkpoint.extra, self._schema), seed=seed)
                return engine, self._state(engine, checkpoint)
        for checkpoint in manifest.checkpoints[:1]:
            engine = History(_schema_in(checkpoint.extra, self._schema), seed=seed)
            return engine, self._state(engine, checkpoint)
        engine = History(_schema_in(manifest.extra, self._schema), seed=seed)
        return engine, engine.start()

    def _state(self, engine: History, checkpoint: Checkpoint) -> State:
        """Put into the engine what can be read of a checkpoint."""
        folder = os.path.join(self._root, checkpoint.directory)
        schema = engine.schema
        parts: dict[str, _Part] = {"live": _Part(self._read(folder, "live"), LIVE, "bool")}
        parts["versions"] = _Part(self._read(folder, "versions"), VERSIONS, "int64")
        for name, one in schema.fields.items():
            number = schema.numbers[name]
            parts[f"field {name}"] = _Part(self._read(folder, f"field-{number}"), number, one.type)
        size = max(part.size for part in parts.values())
        columns = {name: part.column(size) for name, part in parts.items()}
        live = columns.pop("live")
        self._note_damage(parts, size)
        indexes = {name: self._index(engine, folder, name) for name in schema.vectors}
        return engine.restore(
            checkpoint.seq,
            {name: columns[f"field {name}"] for name in schema.fields},
            live=_without(live, self._bad.get(LIVE, set())),
            versions=columns["versions"],
            indexes=indexes,
            free=(),
        )

    def _note_damage(self, parts: dict[str, _Part], size: int) -> None:
        """Say what is missing, and note which rows lack it."""
        for what, part in parts.items():
            missing = np.ones(size, dtype=np.bool_)
            for block in part.blocks:
                missing[block.first : block.first + len(block.values)] = False
            if not missing.any() or what == "versions":
                continue
            rids = missing.nonzero()[0]
            self._report.lost.append(f"{what} of rows {rids[0]} to {rids[-1]}")
            self._bad[part.number] = set(rids.tolist())

    def _index(self, engine: History, folder: str, name: str) -> Any:
        vector = engine.schema.vectors[name]
        path = os.path.join(folder, f"vector-{engine.schema.numbers[name]}")
        try:
            return engine.taken_index(vector, Index.load(path))
        except (CorruptionError, OSError):
            self.damaged_vectors.add(engine.schema.numbers[name])
            self._report.lost.append(f"vectors of {name}, as of commit {os.path.basename(folder)}")
            return engine.new_index(vector)

    def _read(self, folder: str, name: str) -> bytes:
        try:
            return self._files.read_all(os.path.join(folder, name))
        except OSError:
            return b""

    # The log

    def _commits(self, manifest: Manifest, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield the commits after one, up to the first that cannot be read."""
        folder = os.path.join(self._root, LOG)
        names = self._files.list(folder) if self._files.is_directory(folder) else []
        newest = after
        chain: int | None = None
        for name in names:
            if not is_segment_name(name):
                continue
            path = os.path.join(folder, name)
            try:
                segment = read_segment_header(
                    self._files, path, int(name[:20]), manifest.collection_id
                )
            except CorruptionError:
                chain = None
                continue
            if segment.first_seq > newest + 1 or (chain is not None and segment.chain != chain):
                return
            at = segment.start()
            fd = self._files.open(path)
            try:
                size, chain = self._files.size(fd), None
                while at.offset < size:
                    found = read_record(self._files, fd, at, size)
                    if isinstance(found, str):
                        break  # of no consequence before the checkpoint
                    header, payload = found
                    if header.seq == newest + 1 and not header.flags & MARKER:
                        newest = header.seq
                        yield newest, payload
                else:
                    chain = at.chain
            finally:
                self._files.close(fd)

    def _say_what_follows(self, manifest: Manifest, seq: int) -> None:
        folder = os.path.join(self._root, LOG)
        names = self._files.list(folder) if self._files.is_directory(folder) else []
        later = [int(name[:20]) - 1 for name in names if is_segment_name(name)]
        known = max([manifest.durable_seq, *later, seq])
        for problem in self._report.problems:
            if problem.affects.startswith("commit"):
                self._report.lost.append(f"{problem.affects} ({problem.path})")
        if known > seq:
            self._report.lost.append(f"commits {seq + 1} to {known} at least")


class _Part:
    """What can be read of a column."""

    def __init__(self, data: bytes, number: int, kind: str) -> None:
        self._kind = kind
        self.number = number
        self.blocks = list(sound_blocks(data, number, kind))
        self.size = max((one.first + len(one.values) for one in self.blocks), default=0)

    def column(self, size: int) -> Column:
        """Return the column, with null where nothing can be read."""
        dtype = DTYPES[self._kind]
        values = np.full(size, None) if dtype.hasobject else np.zeros(size, dtype=dtype)
        null = np.ones(size, dtype=np.bool_)
        for block in self.blocks:
            rows = slice(block.first, block.first + len(block.values))
            values[rows], null[rows] = block.values, block.null
        return Column.from_array(values, null if null.any() else None)


def _without(live: Column, bad: set[int]) -> Column:
    values, null = live.to_array()
    if null is not None:
        values[null] = False
    values[[rid for rid in bad if rid < len(values)]] = False
    return Column.from_array(values)


def _schema_in(extra: Any, given: Schema | None) -> Schema:
    try:
        return Schema.from_dict(extra["schema"])
    except (KeyError, TypeError, SchemaError):
        if given is None:
            raise CorruptionError("the schema cannot be read: pass schema=") from None
        return given


def _relaxed(schema: Schema, damaged: set[int]) -> Schema:
    """Return the schema with some vectors that may be null."""
    described = schema.to_dict()
    for entry in described["fields"]:
        name = entry.get("vector", {}).get("name")
        if name is not None and schema.numbers[name] in damaged:
            entry["vector"]["nullable"] = True
    return Schema.from_dict(described)
