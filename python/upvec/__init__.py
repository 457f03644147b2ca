"""An embedded vector store whose first-class operation is upsert.

:class:`Index` holds keys and vectors in memory. :func:`open` gives a :class:`Collection`: rows
with a schema, unique keys, policies and vectors, atomic and durable.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .backup import Backup
from .collection import Collection, open  # noqa: A004  (upvec.open, as the file system's)
from .errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DimensionError,
    DuplicateKeyError,
    ExpressionError,
    ForkedError,
    HistoryError,
    InvalidRowError,
    KeyMissingError,
    LimitError,
    LockedError,
    NotSupportedError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
    UpvecError,
    ViolationError,
)
from .expression import Expression, col
from .fields import Field, Unique, Vector
from .history import Changes
from .match import any_of
from .merge import (
    MergeRule,
    all_,
    any_,
    append,
    coalesce,
    concat,
    custom,
    ema,
    fill,
    keep,
    max_,
    mean,
    merge_map,
    min_,
    remove_,
    replace,
    sum_,
    union,
)
from .plan import Plan
from .policy import Policy
from .result import Hits, Outcome, Rows, UpsertResult
from .salvage import SalvageReport, salvage
from .schema import Schema
from .search_plan import SearchPlan
from .snapshot import Snapshot
from .sync import ALL
from .transaction import Savepoint, Transaction
from .verify import Problem, VerifyReport, verify

# What is opened, replayed, cut off, written and closed is told to whoever listens.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from .index import Index

    __version__: str

__all__ = [
    "ALL",
    "Backup",
    "Changes",
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
    "HistoryError",
    "Hits",
    "Index",
    "InvalidRowError",
    "KeyMissingError",
    "LimitError",
    "LockedError",
    "MergeRule",
    "NotSupportedError",
    "Outcome",
    "Plan",
    "PoisonedError",
    "Policy",
    "Problem",
    "ReadOnlyError",
    "Rows",
    "SalvageReport",
    "Savepoint",
    "Schema",
    "SchemaError",
    "SearchPlan",
    "Snapshot",
    "Transaction",
    "Unique",
    "UpsertResult",
    "UpvecError",
    "Vector",
    "VerifyReport",
    "ViolationError",
    "all_",
    "any_",
    "any_of",
    "append",
    "coalesce",
    "col",
    "concat",
    "custom",
    "ema",
    "fill",
    "keep",
    "max_",
    "mean",
    "merge_map",
    "min_",
    "open",
    "remove_",
    "replace",
    "salvage",
    "sum_",
    "union",
    "verify",
]


def __getattr__(name: str) -> Any:
    # What takes long to import and is rarely asked for.
    if name == "__version__":
        from importlib import metadata  # noqa: PLC0415

        try:
            return metadata.version("upvec")
        except metadata.PackageNotFoundError:  # a checkout that was not installed
            return "0.0.0"
    if name == "Index":
        from .index import Index  # noqa: PLC0415

        return Index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
