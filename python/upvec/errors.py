"""Every error that upvec raises on purpose.

::

    UpvecError
    ├── SchemaError (ValueError)        a schema, or a change of one, that cannot be
    ├── DimensionError (ValueError)     .got .want .field .rows
    ├── InvalidRowError (ValueError)    .rows .field .got .want
    ├── DuplicateKeyError (ValueError)  .keys .rows
    ├── ExpressionError (ValueError)    .expression .field
    ├── LimitError (ValueError)         .got .want
    ├── KeyMissingError (KeyError)      .keys
    ├── ConflictError                   .result
    ├── NotSupportedError               .argument
    ├── CorruptionError                 .path .offset
    ├── HistoryError                    .seq .oldest
    ├── LockedError                     .path
    ├── ReadOnlyError                   .path
    ├── PoisonedError                   .unknown .cause
    ├── ForkedError                     .pid
    └── ClosedError

Errors carry fields, so that a program need not parse a message; the message
names what was got and what was wanted, for people. An operation that raises has
changed nothing, with one exception that says so: :class:`PoisonedError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import UpsertResult

__all__ = [
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DimensionError",
    "DuplicateKeyError",
    "ExpressionError",
    "ForkedError",
    "HistoryError",
    "InvalidRowError",
    "KeyMissingError",
    "LimitError",
    "LockedError",
    "NotSupportedError",
    "PoisonedError",
    "ReadOnlyError",
    "SchemaError",
    "UpvecError",
]


class UpvecError(Exception):
    """The base of every error that upvec raises on purpose."""

    # All subclasses take the message first and their fields by keyword, each with
    # a default: so the C++ bindings can raise them with a message alone, and they
    # survive pickling (which calls the class with ``args`` and restores the fields).

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SchemaError(UpvecError, ValueError):
    """A schema that contradicts itself, or does not fit what is stored."""


class DimensionError(UpvecError, ValueError):
    """Vectors of the wrong dimension.

    Attributes
    ----------
    got, want : int or None
        The dimension that arrived, and that of the index or the vector field.
    field : str or None
        The vector field, where there is one.
    rows : tuple of int
        Positions in the batch of the rows concerned, where they are known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        got: int | None = None,
        want: int | None = None,
        field: str | None = None,
        rows: Iterable[int] = (),
    ) -> None:
        super().__init__(message)
        self.got = got
        self.want = want
        self.field = field
        self.rows = tuple(int(row) for row in rows)


class InvalidRowError(UpvecError, ValueError):
    """Rows that the schema does not allow.

    Attributes
    ----------
    rows : tuple of int
        Positions in the batch of the offending rows.
    field : str or None
        The field that is wrong.
    got, want : object
        The first offending value, and what was wanted in its place.
    """

    def __init__(
        self,
        message: str = "",
        *,
        rows: Iterable[int] = (),
        field: str | None = None,
        got: Any = None,
        want: Any = None,
    ) -> None:
        super().__init__(message)
        self.rows = tuple(int(row) for row in rows)
        self.field = field
        self.got = got
        self.want = want


class DuplicateKeyError(UpvecError, ValueError):
    """Two rows of one batch hit the same key, or the same stored row.

    Attributes
    ----------
    keys : tuple
        The keys that occur more than once.
    rows : tuple of int
        Positions in the batch of all rows concerned.
    """

    def __init__(
        self, message: str = "", *, keys: Sequence[Any] = (), rows: Iterable[int] = ()
    ) -> None:
        super().__init__(message)
        self.keys = tuple(keys)
        self.rows = tuple(int(row) for row in rows)


class ExpressionError(UpvecError, ValueError):
    """An expression that does not parse, or does not fit the fields it names.

    Attributes
    ----------
    expression : str or None
        The expression as it was given.
    field : str or None
        The field that is unknown or has the wrong type.
    """

    def __init__(
        self, message: str = "", *, expression: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.expression = expression
        self.field = field


class LimitError(UpvecError, ValueError):
    """A size beyond what upvec can hold.

    Attributes
    ----------
    got, want : int or None
        The size asked for, and the largest allowed.
    """

    def __init__(
        self, message: str = "", *, got: int | None = None, want: int | None = None
    ) -> None:
        super().__init__(message)
        self.got = got
        self.want = want


class KeyMissingError(UpvecError, KeyError):
    """A key that is not stored.

    Attributes
    ----------
    keys : tuple
        The keys that were not found.
    """

    def __init__(self, message: str = "", *, keys: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class ConflictError(UpvecError):
    """Rows that the stored rows, or the caller's conditions, do not allow; nothing was written.

    Attributes
    ----------
    result : UpsertResult or None
        What would have happened to each row, with the reason of every row at fault.
    """

    def __init__(self, message: str = "", *, result: UpsertResult | None = None) -> None:
        super().__init__(message)
        self.result = result


class ViolationError(SchemaError, ConflictError):
    """A change of the schema that stored rows do not allow; nothing was written.

    Attributes
    ----------
    violations : list of (value, list of primary keys)
        Each value, or key, that is in the way, and the rows that have it.
    """

    def __init__(
        self, message: str = "", *, violations: Sequence[tuple[Any, list[Any]]] = ()
    ) -> None:
        super().__init__(message)
        self.violations = list(violations)


class NotSupportedError(UpvecError):
    """An argument that this version of upvec knows, and does not carry out.

    Attributes
    ----------
    argument : str or None
        The name of the argument.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class CorruptionError(UpvecError):
    """Stored bytes that are not what was written.

    Attributes
    ----------
    path : str or None
        The file concerned.
    offset : int or None
        Where in that file, in bytes.
    """

    def __init__(
        self, message: str = "", *, path: str | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class HistoryError(UpvecError):
    """What is asked for lies before what the files still tell of.

    Attributes
    ----------
    seq : int or None
        The commit that was asked for.
    oldest : int or None
        The oldest one that can be asked for.
    """

    def __init__(
        self, message: str = "", *, seq: int | None = None, oldest: int | None = None
    ) -> None:
        super().__init__(message)
        self.seq = seq
        self.oldest = oldest


class LockedError(UpvecError):
    """Another handle is the writer of this collection.

    Attributes
    ----------
    path : str or None
        The directory of the collection.
    """

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class ReadOnlyError(UpvecError):
    """A write through a handle that was opened for reading.

    Attributes
    ----------
    path : str or None
        The directory of the collection.
    """

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class PoisonedError(UpvecError):
    """A write or a sync failed in a way that leaves its outcome unknown.

    The handle takes no more writes; reads go on at the last acknowledged state.
    Opening the collection again tells what reached the disk.

    Attributes
    ----------
    unknown : object
        The operation whose outcome is unknown: the sequence number of its commit,
        or None when the handle had been poisoned before this operation began
        (which then changed nothing).
    cause : BaseException or None
        The failure that poisoned the handle.
    """

    def __init__(
        self, message: str = "", *, unknown: Any = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.unknown = unknown
        self.cause = cause


class ForkedError(UpvecError):
    """A handle used in a process other than the one that opened it.

    Attributes
    ----------
    pid : int or None
        The process that opened the handle.
    """

    def __init__(self, message: str = "", *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class ClosedError(UpvecError):
    """A handle used after it was closed."""


def without_frames(error: Exception) -> Exception:
    """Return an error to be kept: without what its tracebacks would keep alive with it."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
