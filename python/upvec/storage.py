"""A collection's directory: finding the last state in it, and writing to it.

:class:`Storage` ties the files of `checkpoint`, `log` and `codec` to an :class:`Engine`. It knows
where columns and indexes are kept in a checkpoint, and nothing of rows or policies.

A checkpoint's files
--------------------
``live``, ``versions``, ``free``
    Columns (see `codec.encode_column`) by row id; ``free`` is the queue of free row ids.
``field-<number>``
    A column by row id; rows that do not live are null.
``vector-<number>``
    What `Index.save` writes.
``remembered-keys``, ``remembered-order``
    Columns of the primary keys of deleted rows, and of their values of the field that the schema
    orders by; absent where there are none.
``operation-writers``, ``operation-numbers``, ``operation-results``
    Columns of the calls that may be repeated, and what they returned; absent where there are none.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import Index
from .apply import Engine
from .checkpoint import (
    create_collection,
    find_checkpoint,
    lock_collection,
    read_manifest,
    remove_leftovers,
    write_checkpoint,
)
from .codec import Buffer, ColumnEffect, Operation, decode, decode_column, encode, encode_column
from .columns import Column, objects
from .errors import CorruptionError, SchemaError
from .fields import DTYPES
from .log import Log, LogTrimmedError
from .schema import Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from .checkpoint import Contents, Found, Manifest
    from .codec import Effects
    from .files import Files
    from .log import Durability
    from .state import State

__all__ = ["Storage", "check_storable", "open_for_reading"]

# Field numbers of what is no field of the schema.
_LIVE, _VERSIONS, _FREE = 0xFFFF, 0xFFFE, 0xFFFD
_KEYS, _ORDER, _WRITERS, _NUMBERS, _RESULTS = 0xFFFC, 0xFFFB, 0xFFFA, 0xFFF9, 0xFFF8
# How often a reader starts again when a writer has taken away what it was about to read.
_ATTEMPTS = 20


class Storage:
    """The files of one open collection, for writing or only for reading.

    Thread safety: as its log; :meth:`write` and :meth:`checkpoint` belong to the writer.
    """

    def __init__(self, root: str, files: Files, manifest: Manifest, *, lock: int) -> None:
        self.root = root
        self.warnings: tuple[str, ...] = ()
        self._files = files
        self._manifest = manifest
        self._lock = lock
        self._log: Log | None = None
        _open.add(self)

    @classmethod
    def for_writing(cls, root: str, files: Files, schema: Schema | None) -> Storage:
        """Lock the directory, creating the collection if there is none.

        Raises
        ------
        LockedError, CorruptionError, SchemaError
        """
        exists = files.exists(root) and read_manifest(root, files) is not None
        if not exists and schema is None:
            raise SchemaError(f"there is no collection at {root}; a schema would create one")
        if not exists and schema is not None:
            check_storable(schema)
        lock = lock_collection(root, files, create=schema is not None)
        try:
            manifest = read_manifest(root, files)
            if manifest is None:
                described = None if schema is None else schema.to_dict()
                extra = {"schema": described}
                manifest = create_collection(root, files, os.urandom(16), extra)
            else:
                remove_leftovers(root, files, manifest)
            return cls(root, files, manifest, lock=lock)
        except BaseException:
            files.close(lock)
            raise

    @classmethod
    def for_reading(cls, root: str, files: Files) -> Storage:
        """Read what the directory is, without a lock.

        Raises
        ------
        FileNotFoundError, CorruptionError
        """
        manifest = read_manifest(root, files)
        if manifest is None:
            raise FileNotFoundError(f"there is no collection at {root}")
        return cls(root, files, manifest, lock=-1)

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._lock < 0

    def recover(self, given: Schema | None, durability: Durability) -> tuple[Engine, State]:
        """Load the last checkpoint into an engine, and replay the log after it.

        Commits are replayed under the schema that they were written with: that of the checkpoint,
        until one of them changes it.

        Parameters
        ----------
        given : Schema or None
            What the schema is to be in the end.

        Raises
        ------
        CorruptionError
            What was acknowledged cannot be read.
        SchemaError
            The schema is another one than was given.
        LogTrimmedError, FileNotFoundError
            Reading only: a writer has just removed what was to be read. Start again.
        """
        found = find_checkpoint(self.root, self._files, self._manifest, pin=self.read_only)
        extra = self._manifest.extra if found is None else found.checkpoint.extra
        try:
            # The hashes of a collection have a seed of its own.
            seed = int.from_bytes(self._manifest.collection_id[:8], "little") >> 1
            engine = Engine(_stored_schema(extra, self.root), seed=seed)
            state = engine.start() if found is None else self._load(engine, found)
        finally:
            if found is not None and found.pin >= 0:
                self._files.close(found.pin)
        self.warnings = () if found is None else found.damaged
        self._log = Log.open(
            os.path.join(self.root, "log"),
            self._files,
            self._manifest.collection_id,
            after_seq=state.seq,
            durable_seq=self._manifest.durable_seq,
            read_only=self.read_only,
            durability=durability,
        )
        for seq, payload in self._log.replay(state.seq):
            state = engine.apply(state, decode(payload), seq)
        if given is not None:
            engine.adopt(state, _agreed(state.schema, given, self.root))
        return engine, state

    @property
    def last_seq(self) -> int:
        """The newest commit in the log, synced or not."""
        return self._open_log().last_seq

    def write(self, effects: Effects) -> int:
        """Append one commit to the log, not yet synced; return its seq."""
        return self._open_log().append(encode(effects))

    def sync(self, seq: int) -> None:
        """Keep the promise of the durability mode for all commits up to ``seq``."""
        self._open_log().sync(seq)

    def checkpoint(self, engine: Engine, state: State) -> None:
        """Write ``state``, which must be the newest, so that opening begins with it."""
        live, _ = state.live.to_array()
        free = np.array(engine.free, dtype=np.int64)
        alive = np.zeros(len(live), dtype=np.bool_)
        contents: dict[str, Any] = {
            "live": _encoded(_LIVE, "bool", live, alive),
            "versions": _encoded(_VERSIONS, "int64", state.versions.to_array()[0], alive),
            "free": _encoded(_FREE, "int64", free, np.zeros(len(free), dtype=np.bool_)),
        }
        schema = state.schema
        for name, field in schema.fields.items():
            values, null = state.columns[name].to_array()
            # What is left of deleted rows must not outlive them on the disk.
            hidden = ~live if null is None else ~live | null
            number = schema.numbers[name]
            contents[f"field-{number}"] = _encoded(number, field.type, values, hidden)
        contents |= self._memory(engine)
        for name, index in engine.indexes.items():
            contents[f"vector-{schema.numbers[name]}"] = partial(_save, index)
        self._manifest = write_checkpoint(
            self.root,
            self._files,
            state.seq,
            self._manifest.collection_id,
            _as_contents(contents),
            {"schema": schema.to_dict()},
            log=self._open_log(),
        )
        self._open_log().rotate()

    def _memory(self, engine: Engine) -> dict[str, Any]:
        """Return the files of what the engine remembers beside its rows."""
        schema = engine.schema
        primary, order = schema.primary, schema.order_by
        parts: list[tuple[str, int, str, list[Any]]] = []
        if engine.remembered and order is not None:
            parts += [
                ("remembered-keys", _KEYS, primary.type, [*engine.remembered]),
                (
                    "remembered-order",
                    _ORDER,
                    schema.fields[order].type,
                    [*engine.remembered.values()],
                ),
            ]
        known = list(engine.operations)
        if known:
            parts += [
                ("operation-writers", _WRITERS, "string", [op.writer for op in known]),
                ("operation-numbers", _NUMBERS, "int64", [op.number for op in known]),
                ("operation-results", _RESULTS, "bytes", [op.result for op in known]),
            ]
        return {
            file: _encoded(number, kind, _column_of(kind, values), np.zeros(len(values), np.bool_))
            for file, number, kind, values in parts
        }

    def _load_memory(self, engine: Engine, found: Found) -> None:
        def column(file: str, number: int, kind: str) -> npt.NDArray[Any]:
            return self._column(found, file, number, kind).to_array()[0]

        files = found.checkpoint.files
        schema = engine.schema
        order = schema.order_by
        if "remembered-keys" in files and order is not None:
            keys = column("remembered-keys", _KEYS, schema.primary.type)
            values = column("remembered-order", _ORDER, schema.fields[order].type)
            engine.remembered = dict(zip(keys.tolist(), values, strict=True))
        if "operation-writers" in files:
            writers = column("operation-writers", _WRITERS, "string").tolist()
            numbers = column("operation-numbers", _NUMBERS, "int64").tolist()
            results = column("operation-results", _RESULTS, "bytes").tolist()
            for op in zip(writers, numbers, results, strict=True):
                engine.operations.add(Operation(*op))

    def stats(self) -> dict[str, int]:
        """Return the size of the log, and the commits it knows."""
        log = self._open_log()
        return {
            "log_bytes": log.size_bytes,
            "durable_seq": log.durable_seq,
            "checkpoint_seq": self._manifest.durable_seq,
            "syncs": log.syncs,
        }

    def close(self) -> None:
        """Close the log, which syncs it, and release the lock. Again: no effect."""
        lock, self._lock = self._lock, -1
        try:
            # It stays at hand: a thread that has appended may yet ask whether that was synced.
            if self._log is not None:
                self._log.close()
        finally:
            if lock >= 0:
                self._files.close(lock)

    def let_go_of_lock(self) -> None:
        """Close a forked child's copy of the lock, which would outlive the parent's."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._files.close(self._lock)
            self._lock = -1

    def _open_log(self) -> Log:
        if self._log is None:
            raise CorruptionError("the log is not open", path=self.root)
        return self._log

    def _load(self, engine: Engine, found: Found) -> State:
        schema = engine.schema
        live = self._column(found, "live", _LIVE, "bool")
        versions = self._column(found, "versions", _VERSIONS, "int64")
        columns = {
            name: self._column(found, f"field-{number}", number, schema.fields[name].type)
            for name, number in schema.numbers.items()
            if name in schema.fields
        }
        for name, column in {**columns, "versions": versions}.items():
            if column.size != live.size:
                message = f"{found.path}: {name} has {column.size} rows, wanted {live.size}"
                raise CorruptionError(message, path=found.path)
        indexes = {name: self._index(found, schema, name) for name in schema.vectors}
        free = self._column(found, "free", _FREE, "int64").to_array()[0].tolist()
        self._load_memory(engine, found)
        seq = found.checkpoint.seq
        return engine.restore(
            seq, columns, live=live, versions=versions, indexes=indexes, free=free
        )

    def _column(self, found: Found, file: str, number: int, kind: str) -> Column:
        path = os.path.join(found.path, file)
        try:
            stored, effect = decode_column(self._files.read_all(path))
        except CorruptionError as error:
            raise CorruptionError(f"{path}: {error}", path=path, offset=error.offset) from None
        if (stored, effect.type) != (number, kind):
            message = f"{path}: got field {stored} as {effect.type}, wanted {number} as {kind}"
            raise CorruptionError(message, path=path)
        return Column.from_array(effect.values, effect.null if effect.null.any() else None)

    def _index(self, found: Found, schema: Schema, name: str) -> Index:
        vector = schema.vectors[name]
        path = os.path.join(found.path, f"vector-{schema.numbers[name]}")
        index = Index.load(path)
        if (index.dim, index.metric) != (vector.dim, vector.metric):
            got, want = f"{index.metric} of {index.dim}", f"{vector.metric} of {vector.dim}"
            raise CorruptionError(f"{path}: got {got}, wanted {want}", path=path)
        return index


_open: weakref.WeakSet[Storage] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for storage in list(_open):
        storage.let_go_of_lock()


os.register_at_fork(after_in_child=_let_go_in_child)


def open_for_reading(
    root: str, files: Files, schema: Schema | None, durability: Durability
) -> tuple[Storage, Engine, State]:
    """Open the last state beside a writer that may be removing older files meanwhile."""
    for attempt in range(_ATTEMPTS):
        storage = Storage.for_reading(root, files)
        try:
            return storage, *storage.recover(schema, durability)
        except (LogTrimmedError, FileNotFoundError):
            storage.close()
            if attempt == _ATTEMPTS - 1:
                raise
        except BaseException:
            with contextlib.suppress(OSError):
                storage.close()
            raise
    raise CorruptionError(f"{root} changes too fast to be read", path=root)


def check_storable(schema: Schema) -> None:
    """Refuse a schema whose description would not give it back, before anything is written."""
    try:
        text = json.dumps(schema.to_dict(), ensure_ascii=False, allow_nan=False)
        same = Schema.from_dict(json.loads(text.encode())) == schema
    except ValueError as error:
        raise SchemaError(f"the schema cannot be stored: {error}") from None
    if not same:
        raise SchemaError(f"the schema cannot be stored: its description gives another one: {text}")


def _stored_schema(extra: Mapping[str, Any], root: str) -> Schema:
    try:
        return Schema.from_dict(extra["schema"])
    except (KeyError, SchemaError) as error:
        raise CorruptionError(f"{root}: the manifest has no schema: {error}", path=root) from None


def _agreed(stored: Schema, given: Schema, root: str) -> Schema:
    if given != stored:
        raise SchemaError(f"the collection at {root} has another schema: {stored!r}, got {given!r}")
    # Equal, but for what no file holds: the functions of custom merge rules.
    return given.numbered(stored.numbers, stored.next_number)


def _encoded(
    number: int, kind: str, values: npt.NDArray[Any], null: npt.NDArray[np.bool_]
) -> Sequence[Buffer]:
    return encode_column(number, ColumnEffect(None, kind, values, null))


def _column_of(kind: str, values: list[Any]) -> npt.NDArray[Any]:
    dtype = DTYPES[kind]
    return objects(values) if dtype.hasobject else np.array(values, dtype=dtype)


def _save(index: Index, path: str) -> None:
    index.save(path)


def _as_contents(contents: dict[str, Any]) -> Contents:
    return contents
