"""A Haystack document store over a collection: :class:`UpvecDocumentStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from haystack import Document, default_from_dict, default_to_dict
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy

from upvec.errors import ConflictError, DuplicateKeyError
from upvec.fields import Field
from upvec.integrations.documents import Documents, vectors_of

from .filters import where_of
from .metadata_values import described_types, distinct, extremes, named

if TYPE_CHECKING:
    from upvec.collection import Collection
    from upvec.expression import Expression
    from upvec.result import Rows

__all__ = ["UpvecDocumentStore"]

_OWN_FIELDS: Final = (
    Field("blob", "bytes", nullable=True),
    Field("blob_info", "json", nullable=True),
    Field("sparse_embedding", "json", nullable=True),
)


class UpvecDocumentStore:
    """Documents in a collection.

    Parameters
    ----------
    path : str, optional
        The directory of the collection; by default it is kept in memory. All stores of a process
        that name the same path share a handle.
    embedding_dim : int
        Of the embeddings of a new collection.
    metric : str
        ``"cosine"``, ``"l2"`` or ``"ip"``, of a new collection. Under cosine, embeddings are stored
        with unit length.
    fields : sequence of Field, optional
        Metadata of a new collection that get fields of their own: these are checked, and with
        ``index=True`` filtered on by an index; a timestamp may come as a string in ISO 8601. All
        others are kept as they come.
    return_embedding : bool
        Whether documents come with their embeddings.
    collection : Collection, optional
        One that :func:`upvec.open` gave, in place of a path: any whose primary key is a string and
        that has a string field for the content and a vector field, both nullable unless all
        documents have them. The store does not close it.
    content_field, vector_field : str
        What the collection calls them.

    Notes
    -----
    Every call that writes is one commit. Each method has an awaitable one beside it, with
    ``_async`` behind its name.

    Filters are worked out before a search, which then knows how many documents it may find.

    Examples
    --------
    >>> store = UpvecDocumentStore(embedding_dim=2)
    >>> store.write_documents(
    ...     [
    ...         Document(id="old", content="old text", meta={"year": 1990}, embedding=[0.0, 1.0]),
    ...         Document(id="new", content="new text", meta={"year": 2020}, embedding=[1.0, 0.0]),
    ...     ]
    ... )
    2
    >>> since = {"field": "meta.year", "operator": ">=", "value": 2000}
    >>> [document.id for document in store.filter_documents(since)]
    ['new']
    >>> [document.id for document in store.embedding_retrieval([0.1, 1.0])]
    ['old', 'new']
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        embedding_dim: int = 768,
        metric: str = "cosine",
        fields: Sequence[Field | Mapping[str, Any]] = (),
        return_embedding: bool = True,
        collection: Collection | None = None,
        content_field: str = "content",
        vector_field: str | None = None,
    ) -> None:
        self._given = {
            "path": path,
            "embedding_dim": embedding_dim,
            "metric": metric,
            "return_embedding": return_embedding,
            "content_field": content_field,
            "vector_field": vector_field,
        }
        self._fields = tuple(
            field if isinstance(field, Field) else Field.from_dict(field) for field in fields
        )
        self._is_given_open = collection is not None
        self.return_embedding = return_embedding
        self._documents = Documents(
            path,
            collection,
            metric=metric if collection is None else None,
            dim=embedding_dim if collection is None else None,
            fields=self._fields,
            own=_OWN_FIELDS,
            nullable=True,
            text_field=content_field,
            vector_field=vector_field,
        )

    @property
    def collection(self) -> Collection:
        """The collection."""
        return self._documents.opened

    @property
    def metric(self) -> str:
        """The metric of the embeddings."""
        return self.collection.schema.vectors[self._documents.layout.vector].metric

    def close(self) -> None:
        """Close the collection, unless it was given open, or another store of the path uses it."""
        self._documents.close()

    def to_dict(self) -> dict[str, Any]:
        """Return what the store was made with, as a dict of JSON values.

        Raises
        ------
        ValueError
            It was made with an open collection.
        """
        if self._is_given_open:
            message = "a store that was given an open collection cannot be serialised; give a path"
            raise ValueError(message)
        fields = [field.to_dict() for field in self._fields]
        described: dict[str, Any] = default_to_dict(self, fields=fields, **self._given)
        return described

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> UpvecDocumentStore:
        """Return the store that :meth:`to_dict` described."""
        store: UpvecDocumentStore = default_from_dict(cls, data)
        return store

    # --- Writing ------------------------------------------------------------------------------

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Store documents, in one commit.

        Parameters
        ----------
        documents : list of Document
            What to store.
        policy : DuplicatePolicy
            Of a document whose id is stored, or comes twice: ``FAIL`` (as ``NONE``) raises and
            stores nothing, ``SKIP`` keeps the first, ``OVERWRITE`` stores the last.

        Returns
        -------
        int
            How many were stored; with ``OVERWRITE``, how many came.

        Raises
        ------
        DuplicateDocumentError
            With ``FAIL``.
        ValueError
            Not a list of documents, or one that the schema does not allow.
        """
        documents = _checked(documents)
        if not documents:
            return 0
        if policy is DuplicatePolicy.SKIP:
            return self._write(documents, policy="keep", duplicates="first").counts["inserted"]
        if policy is DuplicatePolicy.OVERWRITE:
            self._write(documents, duplicates="last")
            return len(documents)
        try:
            self._write(documents, insert=True, duplicates="error")
        except (ConflictError, DuplicateKeyError) as error:
            raise DuplicateDocumentError(str(error)) from error
        return len(documents)

    def _write(self, documents: Sequence[Document], **options: Any) -> Any:
        blobs = [document.blob for document in documents]
        sparse = [document.sparse_embedding for document in documents]
        own: dict[str, list[Any]] = {
            "blob": [None if blob is None else blob.data for blob in blobs],
            "blob_info": [
                None if blob is None else {"mime_type": blob.mime_type, "meta": blob.meta}
                for blob in blobs
            ],
            "sparse_embedding": [None if one is None else one.to_dict() for one in sparse],
        }
        lacking = [name for name, cells in own.items() if not self._documents.has(name)]
        for name in lacking:
            if any(cell is not None for cell in own[name]):
                row = next(at for at, cell in enumerate(own[name]) if cell is not None)
                message = f"document {row} has a {name}, for which the collection has no field"
                raise ValueError(f"{message}; wanted {dict.fromkeys(lacking)} in its schema")
        return self._documents.write(
            [document.id for document in documents],
            [document.content for document in documents],
            [document.meta for document in documents],
            vectors_of([document.embedding for document in documents]),
            own=own,
            **options,
        )

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id, in one commit; those that are not stored are no error."""
        self._documents.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Remove all documents, in one commit."""
        self._documents.delete(where=self._documents.everything())

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Remove the documents that fulfil a filter, in one commit; return how many."""
        return len(self._documents.delete(where=self._needed(filters)))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set metadata of the documents that fulfil a filter, in one commit; return how many.

        Raises
        ------
        ConflictError
            One of them was changed meanwhile. Nothing was written.
        """
        documents, layout = self._documents, self._documents.layout
        where = self._needed(filters)
        names = [name for name in (layout.key, layout.rest, *layout.declared) if name is not None]
        with self.collection.transaction() as transaction:
            count = 0
            for rows in list(transaction.scan(where=where, fields=names)):
                metadatas = [metadata | meta for metadata in documents.metadatas(rows)]
                transaction.upsert(
                    {layout.key: rows[layout.key], **documents.metadata_columns(metadatas)},
                    policy=documents.replacing(),
                )
                count += len(rows)
        return count

    # --- Reading ------------------------------------------------------------------------------

    def count_documents(self) -> int:
        """Return how many documents there are."""
        return self._documents.count()

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Return how many documents fulfil a filter."""
        return self._documents.count(self._where(filters))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that fulfil a filter, or all.

        Raises
        ------
        FilterError
            The filter is malformed, or does not fit the fields of the schema.
        """
        with_embedding = self.return_embedding
        found: list[Document] = []
        for rows in self._documents.scan(self._where(filters), vectors=with_embedding):
            found += self._read(rows)
        return found

    def embedding_retrieval(
        self,
        query_embedding: Sequence[float],
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        *,
        scale_score: bool = False,
        return_embedding: bool | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return the documents whose embeddings are nearest, with their scores, the best first.

        Parameters
        ----------
        query_embedding : sequence of float
            A vector of the dimension of the embeddings.
        filters : dict, optional
            Only documents that fulfil it.
        top_k : int
            How many.
        scale_score : bool
            Scores from 0 to 1, in place of the similarity: cosine, dot product, or minus the
            squared distance.
        return_embedding : bool, optional
            By default, what the store was made with.
        **options
            Of :meth:`upvec.Collection.search`, such as ``ef``, ``exact`` and ``mmr``.
        """
        with_embedding = self.return_embedding if return_embedding is None else return_embedding
        where = self._where(filters)
        hits = self._documents.search(
            query_embedding, top_k, vectors=with_embedding, where=where, **options
        )
        if hits is None:
            return []
        metric = self.metric
        scores = [_score(metric, far, scale=scale_score) for far in hits.distances.tolist()]
        return self._read(hits, scores)

    def _read(self, rows: Rows, scores: Sequence[float | None] | None = None) -> list[Document]:
        documents, layout = self._documents, self._documents.layout
        count = len(rows)
        nothing = [None] * count

        def column(name: str) -> list[Any]:
            return rows[name].tolist() if name in rows else nothing

        embeddings: list[Any] = nothing
        if layout.vector in rows:
            null = rows.null(layout.vector).tolist()
            vectors = rows[layout.vector].tolist()
            embeddings = [
                None if absent else vector for vector, absent in zip(vectors, null, strict=True)
            ]
        cells = zip(
            column(layout.key),
            column(layout.text),
            documents.metadatas(rows),
            embeddings,
            column("blob" if documents.has("blob") else ""),
            column("blob_info" if documents.has("blob_info") else ""),
            column("sparse_embedding" if documents.has("sparse_embedding") else ""),
            nothing if scores is None else scores,
            strict=True,
        )
        return [
            Document(
                id=key,
                content=content,
                meta=meta,
                embedding=embedding,
                score=score,
                blob=None if blob is None else ByteStream(data=blob, **(info or {})),
                sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
            )
            for key, content, meta, embedding, blob, info, sparse, score in cells
        ]

    def _where(self, filters: Mapping[str, Any] | None) -> Expression | None:
        return where_of(filters, self._documents.layout, self.collection.schema.types)

    def _needed(self, filters: Mapping[str, Any]) -> Expression:
        where = self._where(filters)
        return self._documents.everything() if where is None else where

    # --- Metadata -----------------------------------------------------------------------------

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Return how many different values the documents that fulfil a filter have, by name."""
        metadatas = list(self._metadatas(filters))
        return {
            named(field): len(distinct(metadatas, named(field), by_type=False))
            for field in metadata_fields
        }

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Return the names of all metadata, with ``{"type": ...}`` of their values.

        Types are keyword, int, float and boolean.
        """
        return described_types(self._metadatas(None))

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Return the least and the greatest value, as ``{"min": ..., "max": ...}``.

        They are None where there are no values, or such that are in no order.
        """
        return extremes(self._metadatas(None), named(metadata_field))

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """Return different values of a metadatum, in the order of their texts, and their number.

        Parameters
        ----------
        metadata_field : str
            With or without ``meta.`` before it.
        search_term : str, optional
            What must be in their text, ignoring case.
        from_, size : int
            Which of them.
        filters : dict, optional
            Only of documents that fulfil it.
        """
        values = distinct(self._metadatas(filters), named(metadata_field), by_type=True)
        if search_term:
            values = [value for value in values if search_term.lower() in str(value).lower()]
        values.sort(key=lambda value: (str(value), type(value).__name__))
        return values[from_ : from_ + size], len(values)

    def _metadatas(self, filters: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
        for rows in self._documents.scan(self._where(filters)):
            yield from self._documents.metadatas(rows)

    # --- Awaitable ----------------------------------------------------------------------------

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """As :meth:`write_documents`."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """As :meth:`delete_documents`."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self) -> None:
        """As :meth:`delete_all_documents`."""
        await asyncio.to_thread(self.delete_all_documents)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """As :meth:`delete_by_filter`."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """As :meth:`update_by_filter`."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    async def count_documents_async(self) -> int:
        """As :meth:`count_documents`."""
        return self.count_documents()

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """As :meth:`count_documents_by_filter`."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """As :meth:`filter_documents`."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def embedding_retrieval_async(
        self,
        query_embedding: Sequence[float],
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        **options: Any,
    ) -> list[Document]:
        """As :meth:`embedding_retrieval`."""
        return await asyncio.to_thread(
            self.embedding_retrieval, query_embedding, filters, top_k, **options
        )

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """As :meth:`count_unique_metadata_by_filter`."""
        return await asyncio.to_thread(
            self.count_unique_metadata_by_filter, filters, metadata_fields
        )

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """As :meth:`get_metadata_fields_info`."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """As :meth:`get_metadata_field_min_max`."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """As :meth:`get_metadata_field_unique_values`."""
        return await asyncio.to_thread(
            self.get_metadata_field_unique_values, metadata_field, search_term, from_, size, filters
        )


def _checked(documents: object) -> list[Document]:
    """Return what was given as a list of documents."""
    if isinstance(documents, Iterable) and not isinstance(documents, (str, bytes)):
        listed = list(documents)
        if all(isinstance(document, Document) for document in listed):
            return listed
    # Haystack wants a ValueError of what is a wrong type.
    raise ValueError(f"wanted a list of Document, got {documents!r}")


def _score(metric: str, distance: float, *, scale: bool) -> float:
    if metric == "l2":
        return 1.0 / (1.0 + distance) if scale else -distance
    similarity = 1.0 - distance
    return min(1.0, max(0.0, (similarity + 1.0) / 2.0)) if scale else similarity
