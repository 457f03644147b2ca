"""LangChain's records of what was indexed, kept with the documents: :class:`UpvecRecordManager`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.indexing import RecordManager
from langchain_core.runnables import run_in_executor

from upvec.errors import ConflictError, KeyMissingError, SchemaError
from upvec.expression import col

from .document_index import UpvecDocumentIndex
from .records import OWN_FIELDS

if TYPE_CHECKING:
    from upvec.collection import Collection
    from upvec.expression import Expression

    from .vector_store import UpvecVectorStore

__all__ = ["UpvecRecordManager"]


class UpvecRecordManager(RecordManager):
    """What :func:`langchain_core.indexing.index` knows of the documents of a store.

    A record is a part of the row of its document, and is committed with it: from when the manager
    is made, whatever the store writes is recorded in the same commit. So a process that is killed
    leaves no record without its document, and no document without its record, whatever it was
    doing; ``index()`` goes on where it was. What was stored before has no record: ``index()``
    neither skips nor removes it.

    Parameters
    ----------
    store : UpvecVectorStore or UpvecDocumentIndex
        The store that is indexed into. With its ``source_id_key``, the source of a document is
        recorded in the commit that stores the document, too; without, ``index()`` records it in the
        next one.
    namespace : str, optional
        A name for it. All documents of a collection have their records in it, whatever its name.

    Raises
    ------
    SchemaError
        The collection was made without fields for records; :meth:`create_schema` adds them.

    Examples
    --------
    >>> from langchain_core.documents import Document
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from langchain_core.indexing import index
    >>> from upvec.integrations.langchain import UpvecVectorStore
    >>> store = UpvecVectorStore(DeterministicFakeEmbedding(size=16), source_id_key="source")
    >>> records = UpvecRecordManager(store)
    >>> pages = [Document(text, metadata={"source": text}) for text in ("first", "second")]
    >>> options = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    >>> index(pages, records, store, **options)
    {'num_added': 2, 'num_updated': 0, 'num_skipped': 0, 'num_deleted': 0}
    >>> index(pages[1:], records, store, **options)
    {'num_added': 0, 'num_updated': 0, 'num_skipped': 1, 'num_deleted': 1}
    """

    def __init__(
        self, store: UpvecVectorStore | UpvecDocumentIndex, namespace: str | None = None
    ) -> None:
        self._store = store.store if isinstance(store, UpvecDocumentIndex) else store
        self._documents = self._store.documents
        self._store.begin_recording()
        super().__init__(namespace="upvec" if namespace is None else namespace)

    def create_schema(self) -> None:
        """Add the fields of records to a collection that was made without; else do nothing."""
        collection = self._documents.collection
        if collection is not None:
            missing = [one for one in OWN_FIELDS if one.name not in collection.schema.fields]
            if missing:
                collection.alter(add=missing)

    def get_time(self) -> float:
        """Return a time in seconds that is later than that of any record."""
        return self._store.clock.now_s()

    def update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Record that documents are indexed as of now, in one commit.

        Parameters
        ----------
        keys : sequence of str
            Ids of stored documents.
        group_ids : sequence of str or None, optional
            What they were made from; by default, what is recorded stays.
        time_at_least : float, optional
            What the time must not be before.

        Raises
        ------
        KeyMissingError
            A key of which there is no document. Nothing was recorded.
        ValueError
            Not as many groups as keys, or a time that has not come.
        """
        if group_ids is not None and len(keys) != len(group_ids):
            raise ValueError(f"got {len(group_ids)} group_ids for {len(keys)} keys")
        now_s = self.get_time()
        if time_at_least is not None and time_at_least > now_s:
            raise ValueError(f"time_at_least={time_at_least!r} is in the future: it is {now_s!r}")
        if not len(keys):
            return
        collection = self._opened()
        if collection is None:
            raise _no_document(keys)
        columns: dict[str, Any] = {
            self._documents.layout.key: list(keys),
            "indexed_at_s": [now_s] * len(keys),
        }
        if group_ids is not None:
            columns["source_id"] = list(group_ids)
        try:
            collection.update(columns, duplicates="last")
        except ConflictError as error:
            known = self.exists(keys, recorded=False)
            missing = [key for key, is_known in zip(keys, known, strict=True) if not is_known]
            if missing:
                raise _no_document(missing) from error
            raise

    def exists(self, keys: Sequence[str], *, recorded: bool = True) -> list[bool]:
        """Return which documents are stored and, unless that is of no matter, recorded."""
        collection = self._opened()
        if collection is None or not len(keys):
            return [False] * len(keys)
        rows = collection.get(list(keys), fields=["indexed_at_s"])
        found: list[bool] = (rows.found & ~(rows.null("indexed_at_s") & recorded)).tolist()
        return found

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Return the ids of recorded documents, by time and by what they were made from."""
        collection = self._opened()
        if collection is None or limit == 0:
            return []
        at = col("indexed_at_s")
        where: Expression = ~at.is_null()
        if before is not None:
            where &= at < before
        if after is not None:
            where &= at > after
        if group_ids is not None:
            where &= col("source_id").isin(group_ids)
        key = self._documents.layout.key
        listed: list[str] = []
        for rows in collection.scan(where=where, fields=[key], limit=limit):
            listed += rows[key].tolist()
        return listed

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Forget the records of documents; documents that are still stored stay.

        ``index()`` calls it for documents that it has just removed, records and all.
        """
        collection = self._opened()
        if collection is None or not len(keys):
            return
        known = self.exists(keys)
        kept = [key for key, is_known in zip(keys, known, strict=True) if is_known]
        if kept:
            nothing = [None] * len(kept)
            rows = {self._documents.layout.key: kept, "indexed_at_s": nothing, "source_id": nothing}
            collection.update(rows, duplicates="last")

    async def acreate_schema(self) -> None:
        """Add the fields of records, as :meth:`create_schema`."""
        await run_in_executor(None, self.create_schema)

    async def aget_time(self) -> float:
        """Return a time in seconds that is later than that of any record."""
        return self.get_time()

    async def aupdate(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Record that documents are indexed as of now, as :meth:`update`."""
        await run_in_executor(
            None, self.update, keys, group_ids=group_ids, time_at_least=time_at_least
        )

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """Return which documents are stored and recorded."""
        return await run_in_executor(None, self.exists, keys)

    async def alist_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Return the ids of recorded documents, as :meth:`list_keys`."""
        return await run_in_executor(
            None, self.list_keys, before=before, after=after, group_ids=group_ids, limit=limit
        )

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """Forget the records of documents, as :meth:`delete_keys`."""
        await run_in_executor(None, self.delete_keys, keys)

    def _opened(self) -> Collection | None:
        collection = self._documents.collection
        if collection is None:
            return None
        missing = [one.name for one in OWN_FIELDS if not self._documents.has(one.name)]
        if missing:
            message = f"the collection has no fields {missing} for records"
            raise SchemaError(f"{message}; create_schema() adds them")
        return collection


def _no_document(keys: Sequence[str]) -> KeyMissingError:
    shown = ", ".join(map(repr, keys[:5]))
    message = f"{len(keys)} keys have no document to be recorded with, such as {shown}"
    return KeyMissingError(f"{message}; nothing was recorded", keys=list(keys))
