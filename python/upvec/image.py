"""The state of a collection as the files of a checkpoint, and back.

``live``, ``versions``
    By row id: bool and int64.
``free``
    The queue of free row ids, oldest first.
``field-<number>``
    A field by row id; rows that do not live are null.
``vector-<number>``
    A vector index, as `Index.save` writes it; its keys are row ids.
``remembered-keys``, ``remembered-order``
    The primary keys of deleted rows, and their values of the field that the schema orders by;
    absent where there are none.
``operation-writers``, ``operation-numbers``, ``operation-results``
    The calls that may be repeated, and what they returned; absent where there are none.

All but the vector indexes are columns in blocks: see `blocks`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ._core import Index
from .blocks import array_of, blocks_of_array, blocks_of_column, column_of, read_blocks
from .codec import Operation
from .columns import Column, objects
from .errors import CorruptionError
from .fields import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    import numpy.typing as npt

    from .apply import Engine
    from .blocks import Block
    from .checkpoint import Contents, Found, Piece
    from .files import Files
    from .schema import Schema
    from .state import State

__all__ = ["LIVE", "VERSIONS", "contents_of", "state_of"]

_Made = TypeVar("_Made")

# Field numbers of what is no field of the schema.
LIVE, VERSIONS, _FREE = 0xFFFF, 0xFFFE, 0xFFFD
_KEYS, _ORDER, _WRITERS, _NUMBERS, _RESULTS = 0xFFFC, 0xFFFB, 0xFFFA, 0xFFF9, 0xFFF8


def contents_of(engine: Engine, state: State) -> Contents:
    """Hold the newest state, and return what makes its files; the writer's lock is held.

    What is held of it does not change any more: the engine may go on at once.
    """
    schema, live = state.schema, state.live
    free = np.array(engine.free, dtype=np.int64)
    contents: dict[str, Iterable[Piece]] = {
        "live": _pieces(blocks_of_column(LIVE, "bool", live, live)),
        "versions": _pieces(blocks_of_column(VERSIONS, "int64", state.versions, live)),
        "free": _pieces(blocks_of_array(_FREE, "int64", free)),
    }
    for name, field in schema.fields.items():
        number = schema.numbers[name]
        blocks = blocks_of_column(number, field.type, state.columns[name], live)
        contents[f"field-{number}"] = _pieces(blocks)
    for name, index in engine.indexes.items():
        contents[f"vector-{schema.numbers[name]}"] = index.image()
    return contents | _memory_of(engine)


def _memory_of(engine: Engine) -> dict[str, Iterable[Piece]]:
    """Return the files of what the engine remembers beside its rows."""
    schema = engine.schema
    primary, order = schema.primary, schema.order_by
    parts: list[tuple[str, int, str, list[Any]]] = []
    if engine.remembered and order is not None:
        orders = [*engine.remembered.values()]
        parts += [
            ("remembered-keys", _KEYS, primary.type, [*engine.remembered]),
            ("remembered-order", _ORDER, schema.fields[order].type, orders),
        ]
    known = list(engine.operations)
    if known:
        parts += [
            ("operation-writers", _WRITERS, "string", [op.writer for op in known]),
            ("operation-numbers", _NUMBERS, "int64", [op.number for op in known]),
            ("operation-results", _RESULTS, "bytes", [op.result for op in known]),
        ]
    return {
        file: _pieces(blocks_of_array(number, kind, _array_of(kind, values)))
        for file, number, kind, values in parts
    }


def _pieces(blocks: Iterable[bytes]) -> Iterator[Piece]:
    offset = 0
    for block in blocks:
        yield offset, block
        offset += len(block)


def _array_of(kind: str, values: list[Any]) -> npt.NDArray[Any]:
    dtype = DTYPES[kind]
    return objects(values) if dtype.hasobject else np.array(values, dtype=dtype)


def state_of(engine: Engine, found: Found, files: Files) -> State:
    """Put a checkpoint into an engine that has nothing yet, and return its state.

    Raises
    ------
    CorruptionError
        Files that contradict each other, or the schema.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (slow to import)

    checkpoint = _Files(found, files)
    schema = engine.schema
    with ThreadPoolExecutor(max(1, len(schema.vectors)), "upvec-load") as beside:
        loading = {name: beside.submit(checkpoint.index, schema, name) for name in schema.vectors}
        return _state_of(engine, found, checkpoint, loading)


def _state_of(
    engine: Engine, found: Found, checkpoint: _Files, loading: Mapping[str, Future[Index]]
) -> State:
    """Read the columns while the indexes are read by other threads."""
    schema = engine.schema
    live = checkpoint.column("live", LIVE, "bool")
    versions = checkpoint.column("versions", VERSIONS, "int64")
    columns = {
        name: checkpoint.column(f"field-{schema.numbers[name]}", schema.numbers[name], field.type)
        for name, field in schema.fields.items()
    }
    for name, column in {**columns, "versions": versions}.items():
        if column.size != live.size:
            message = f"{found.path}: {name} has {column.size} rows, wanted {live.size}"
            raise CorruptionError(message, path=found.path)
    free = checkpoint.array("free", _FREE, "int64").tolist()
    _load_memory(engine, checkpoint)
    indexes = {
        name: engine.taken_index(vector, loading[name].result())
        for name, vector in schema.vectors.items()
    }
    seq = found.checkpoint.seq
    return engine.restore(seq, columns, live=live, versions=versions, indexes=indexes, free=free)


def _load_memory(engine: Engine, checkpoint: _Files) -> None:
    schema = engine.schema
    order = schema.order_by
    if "remembered-keys" in checkpoint.names and order is not None:
        keys = checkpoint.array("remembered-keys", _KEYS, schema.primary.type)
        values = checkpoint.array("remembered-order", _ORDER, schema.fields[order].type)
        engine.remembered = dict(zip(keys.tolist(), values, strict=True))
    if "operation-writers" in checkpoint.names:
        writers = checkpoint.array("operation-writers", _WRITERS, "string").tolist()
        numbers = checkpoint.array("operation-numbers", _NUMBERS, "int64").tolist()
        results = checkpoint.array("operation-results", _RESULTS, "bytes").tolist()
        for op in zip(writers, numbers, results, strict=True):
            engine.operations.add(Operation(*op))


class _Files:
    """The files of one checkpoint, each read and compared with what it should hold."""

    def __init__(self, found: Found, files: Files) -> None:
        self._path = found.path
        self._files = files
        self.names: Mapping[str, object] = found.checkpoint.files

    def column(self, file: str, number: int, kind: str) -> Column:
        """Return a column by row id."""
        return self._read(file, number, kind, lambda found: column_of(DTYPES[kind], found))

    def array(self, file: str, number: int, kind: str) -> npt.NDArray[Any]:
        """Return values that are not by row id."""
        return self._read(file, number, kind, lambda found: array_of(DTYPES[kind], found))

    def _read(
        self, file: str, number: int, kind: str, make: Callable[[Iterator[Block]], _Made]
    ) -> _Made:
        path = os.path.join(self._path, file)
        try:
            data = self._files.read_all(path)
            return make(read_blocks(data, number, kind))
        except CorruptionError as error:
            raise CorruptionError(f"{path}: {error}", path=path, offset=error.offset) from None

    def index(self, schema: Schema, name: str) -> Index:
        """Return the index of a vector field."""
        vector = schema.vectors[name]
        path = os.path.join(self._path, f"vector-{schema.numbers[name]}")
        index = Index.load(path)
        if (index.dim, index.metric) != (vector.dim, vector.metric):
            got, want = f"{index.metric} of {index.dim}", f"{vector.metric} of {vector.dim}"
            raise CorruptionError(f"{path}: got {got}, wanted {want}", path=path)
        return index
