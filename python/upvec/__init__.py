"""An embedded vector store whose first-class operation is upsert.

:class:`Index` holds keys and vectors in memory. :func:`open` gives a :class:`Collection`: rows
with a schema, unique keys, policies and vectors, atomic and durable.
"""

from __future__ import annotations

from importlib import metadata as _metadata
from typing import TYPE_CHECKING, Any

from .collection import Collection, open  # noqa: A004  (upvec.open, as the file system's)
from .errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DimensionError,
    DuplicateKeyError,
    ExpressionError,
    ForkedError,
    InvalidRowError,
    KeyMissingError,
    LimitError,
    LockedError,
    NotSupportedError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
    UpvecError,
)
from .expression import Expression, col
from .policy import Policy
from .result import Hits, Outcome, Rows, UpsertResult
from .schema import Field, Schema, Unique, Vector

if TYPE_CHECKING:
    from .index import Index

__all__ = [
    "ClosedError",
    "Collection",
    "ConflictError",
    "CorruptionError",
    "DimensionError",
    "DuplicateKeyError",
    "Expression",
    "ExpressionError",
    "Field",
    "ForkedError",
    "Hits",
    "Index",
    "InvalidRowError",
    "KeyMissingError",
    "LimitError",
    "LockedError",
    "NotSupportedError",
    "Outcome",
    "PoisonedError",
    "Policy",
    "ReadOnlyError",
    "Rows",
    "Schema",
    "SchemaError",
    "Unique",
    "UpsertResult",
    "UpvecError",
    "Vector",
    "col",
    "open",
]

try:
    __version__ = _metadata.version("upvec")
except _metadata.PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    # Only when it is asked for: a collection does not need it.
    if name == "Index":
        from .index import Index  # noqa: PLC0415

        return Index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
