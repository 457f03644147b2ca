"""Retries: results of calls that were named by ``op_id=(writer, number)``.

A call that is repeated, since its answer was lost, gets the answer of the first time and changes
nothing. The results are logged with the commits, so that this holds after reopening too.

Memory: of every writer the results of its newest :data:`MOST_NUMBERS` numbers, and those of the
:data:`MOST_WRITERS` writers that were heard of last. A result takes about 10 bytes a row, and the
key.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from .codec import Operation
from .columns import objects
from .errors import ConflictError
from .ingest import cell_from_json, json_cell
from .result import Changed, UpsertResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .schema import Schema

__all__ = ["MOST_NUMBERS", "MOST_WRITERS", "Operations", "checked_op_id", "operation"]

MOST_NUMBERS = 1_024
MOST_WRITERS = 1_024


class Operations:
    """The results that are remembered. One thread at a time: the writer, with its lock held."""

    def __init__(self) -> None:
        self._writers: OrderedDict[str, dict[int, bytes]] = OrderedDict()

    def add(self, op: Operation) -> None:
        """Remember a result, and forget the oldest one of its writer if there are too many."""
        numbers = self._writers.setdefault(op.writer, {})
        self._writers.move_to_end(op.writer)
        numbers[op.number] = op.result
        if len(numbers) > MOST_NUMBERS:
            del numbers[min(numbers)]
        if len(self._writers) > MOST_WRITERS:
            self._writers.popitem(last=False)

    def result(self, schema: Schema, op_id: tuple[str, int]) -> UpsertResult | None:
        """Return the result of a call that was made already; None if it was not.

        Raises
        ------
        ConflictError
            The number is older than all that are remembered: whether the call was made is not
            known any more.
        """
        writer, number = op_id
        numbers = self._writers.get(writer, {})
        if number in numbers:
            return _unpacked(schema, numbers[number])
        if len(numbers) == MOST_NUMBERS and number < min(numbers):
            message = (
                f"op_id={op_id!r}: of writer {writer!r} the newest {MOST_NUMBERS} numbers are "
                f"remembered, from {min(numbers)} on; whether this call was made is not known"
            )
            raise ConflictError(message)
        return None

    def __iter__(self) -> Iterator[Operation]:
        """Yield all that is remembered, those of the writer heard of last at the end."""
        for writer, numbers in self._writers.items():
            for number in sorted(numbers):
                yield Operation(writer, number, numbers[number])


def checked_op_id(op_id: object) -> tuple[str, int] | None:
    """Return an operation id if it is one.

    Raises
    ------
    ValueError
    """
    if op_id is None:
        return None
    match op_id:
        case (str(writer), int(number)) if not isinstance(number, bool) and 0 <= number < 2**63:
            return writer, number
        case (str(writer), np.integer() as number) if number >= 0:
            return writer, int(number)
    raise ValueError(f"op_id={op_id!r}; wanted (writer, n), a text and an integer of 0 or more")


def operation(schema: Schema, op_id: tuple[str, int], result: UpsertResult) -> Operation:
    """Return what the log keeps of a call."""
    kind = schema.primary.type
    keys = [] if result.key is None else result.key.tolist()
    packed = {
        "status": result.status.tolist(),
        "key": [None if key is None else json_cell(kind, key) for key in keys],
        "version": result.version.tolist(),
        "seq": result.seq,
        "changed": {
            name: np.packbits(result.changed.mask(name)).tobytes().hex()
            for name in result.changed.fields
        },
        "reason": {row: list(reason) for row, reason in result.reasons.items()},
    }
    return Operation(*op_id, json.dumps(packed, separators=(",", ":")).encode())


def _unpacked(schema: Schema, data: bytes) -> UpsertResult:
    packed: dict[str, Any] = json.loads(data)
    rows = len(packed["status"])
    kind = schema.primary.type
    keys = objects([None if k is None else cell_from_json(kind, k) for k in packed["key"]])
    if all(key is not None for key in packed["key"]):
        keys = keys.astype(schema.primary.dtype)
    masks = {
        name: np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[:rows].astype(np.bool_)
        for name, bits in packed["changed"].items()
    }
    return UpsertResult(
        np.array(packed["status"], dtype=np.uint8),
        key=keys,
        version=np.array(packed["version"], dtype=np.int64),
        changed=Changed.from_masks(rows, masks),
        reason={int(row): (word, text) for row, (word, text) in packed["reason"].items()},
        seq=packed["seq"],
    )
