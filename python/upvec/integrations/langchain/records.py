"""What is recorded beside a document: when it was last indexed, and what it was made from.

The records are fields of the row of the document, so that one commit stores both: there is no
moment at which one is there without the other.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from upvec.fields import Field

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from upvec.integrations.documents import Documents

__all__ = ["OWN_FIELDS", "RecordClock", "SourceKey", "source_of"]

SourceKey: TypeAlias = "str | Callable[[Document], str]"

OWN_FIELDS: Final = (
    Field("indexed_at_s", "float64", nullable=True, index=True),
    Field("source_id", "string", nullable=True, index=True),
)


class RecordClock:
    """A clock that never stands still nor goes back, also when the computer's does.

    Thread safety: any thread may ask it.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._lock = threading.Lock()
        self._last_s: float | None = None

    def now_s(self) -> float:
        """Return the time in seconds since 1970, later than any it has told or that is recorded."""
        with self._lock:
            if self._last_s is None:
                self._last_s = self._newest_s()
            self._last_s = max(time.time(), math.nextafter(self._last_s, math.inf))
            return self._last_s

    def _newest_s(self) -> float:
        collection = self._documents.collection
        if collection is None or not self._documents.has("indexed_at_s"):
            return 0.0
        rows = next(
            collection.scan(
                where="indexed_at_s is not null",
                fields=["indexed_at_s"],
                order_by="indexed_at_s",
                descending=True,
                limit=1,
            ),
            None,
        )
        return 0.0 if rows is None or not len(rows) else float(rows["indexed_at_s"][0])


def source_of(document: Document, key: SourceKey) -> str | None:
    """Return what a document was made from, as ``langchain_core.indexing`` finds it out."""
    if callable(key):
        return key(document)
    source: str | None = document.metadata.get(key)
    return source
