"""A LangChain vector store over a collection: :class:`UpvecVectorStore`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore

from upvec.expression import Expression, FieldRef
from upvec.fields import Field
from upvec.integrations.documents import Documents, vectors_of
from upvec.integrations.filters import expression_of

from .filters import filter_of
from .records import OWN_FIELDS, RecordClock, source_of

if TYPE_CHECKING:
    import os

    from langchain_core.embeddings import Embeddings
    from typing_extensions import Self

    from upvec.collection import Collection
    from upvec.policy import Policy
    from upvec.result import Hits, Rows

    from .records import SourceKey

__all__ = ["UpvecVectorStore", "Wanted"]

# What ``filter=`` may be.
Wanted: TypeAlias = "Mapping[Any, Any] | Expression | str | Callable[[Document], bool] | None"


class UpvecVectorStore(VectorStore):
    """Documents in a collection, found by the vectors of their texts.

    Parameters
    ----------
    embedding : Embeddings
        Makes vectors of texts.
    path : str or path, optional
        The directory of the collection; by default it is kept in memory. All stores of a process
        that name the same path share a handle.
    collection : Collection, optional
        One that :func:`upvec.open` gave, in place of a path: any whose primary key is a string and
        that has a string field for the text and a vector field. Metadata go to the fields of their
        names; the others to the json field ``metadata``, or to where ``extra="store"`` keeps them.
        The store does not close it.
    metric : str, optional
        ``"cosine"`` (default), ``"l2"`` or ``"ip"``, of a new collection.
    dim : int, optional
        Of the vectors of a new collection; by default the first document tells.
    fields : sequence of Field
        Metadata of a new collection that get fields of their own: these are checked, and with
        ``index=True`` filtered on by an index.
    source_id_key : str or callable, optional
        As for :func:`langchain_core.indexing.index`: with it, a record says from the beginning
        what its document was made from; see :class:`UpvecRecordManager`.
    text_field, vector_field : str
        What the collection calls them.
    relevance_score_fn : callable, optional
        Distance → relevance from 0 to 1, in place of that of the metric.

    Notes
    -----
    Every call that writes is one commit. Vectors are computed before it, without a lock.

    Filters are worked out before the search, which then knows how many rows it may find. They are
    dicts in MongoDB's dialect (:func:`upvec.integrations.langchain.filters.filter_of`), expressions
    over the fields of the collection (:func:`upvec.col`, or a string), or functions of a document,
    for which all documents are read.

    Examples
    --------
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> store = UpvecVectorStore(DeterministicFakeEmbedding(size=16))
    >>> store.add_texts(
    ...     ["an old text", "a new text"], [{"year": 1990}, {"year": 2020}], ids=["old", "new"]
    ... )
    ['old', 'new']
    >>> [found.id for found in store.similarity_search("text", filter={"year": {"$gte": 2000}})]
    ['new']
    """

    def __init__(
        self,
        embedding: Embeddings,
        path: str | os.PathLike[str] | None = None,
        collection: Collection | None = None,
        *,
        metric: str | None = None,
        dim: int | None = None,
        fields: Sequence[Field] = (),
        source_id_key: SourceKey | None = None,
        text_field: str = "text",
        vector_field: str | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        self._embedding = embedding
        self._source_id_key = source_id_key
        self._relevance_score_fn = relevance_score_fn
        self._is_recording = False
        self._documents = Documents(
            path,
            collection,
            metric=metric,
            dim=dim,
            fields=fields,
            own=OWN_FIELDS,
            text_field=text_field,
            vector_field=vector_field,
        )
        self._clock = RecordClock(self._documents)

    @property
    def embeddings(self) -> Embeddings:
        """What makes vectors of texts."""
        return self._embedding

    @property
    def collection(self) -> Collection | None:
        """The collection; None until the first document tells the dimension of a new one."""
        return self._documents.collection

    @property
    def documents(self) -> Documents:
        """The documents as rows."""
        return self._documents

    @property
    def clock(self) -> RecordClock:
        """The clock of the records."""
        return self._clock

    def begin_recording(self) -> None:
        """Record documents in the commits that store them, from now on: for a record manager."""
        self._is_recording = True

    def close(self) -> None:
        """Close the collection, unless it was given open."""
        self._documents.close()

    # --- Writing ------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; see :meth:`add_documents`.

        Raises
        ------
        ValueError
            Not as many metadatas or ids as texts.
        """
        documents = _documents_of(list(texts), metadatas, ids)
        return self.add_documents(documents, ids=ids, **kwargs)

    def add_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Store documents; one whose id is stored takes the place of the stored one.

        Parameters
        ----------
        documents : list of Document
            A document without id gets one.
        ids : sequence of str, optional
            In place of those of the documents.
        policy : str or Policy, optional
            How stored documents and new ones become one, as for :meth:`Collection.upsert`.
        batch_size : int, optional
            Ignored: how many texts are embedded at once is for the embedding to say.

        Returns
        -------
        list of str
            The ids.
        """
        named = _ids(documents, ids)
        if not documents:
            return []
        vectors = self._embedding.embed_documents([one.page_content for one in documents])
        self._write(named, documents, vectors, **kwargs)
        return named

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; see :meth:`add_documents`."""
        documents = _documents_of(list(texts), metadatas, ids)
        return await self.aadd_documents(documents, ids=ids, **kwargs)

    async def aadd_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Store documents; see :meth:`add_documents`."""
        named = _ids(documents, ids)
        if not documents:
            return []
        vectors = await self._embedding.aembed_documents([one.page_content for one in documents])
        await run_in_executor(None, self._write, named, documents, vectors, **kwargs)
        return named

    def _write(
        self,
        ids: list[str],
        documents: Sequence[Document],
        vectors: Sequence[Sequence[float]],
        *,
        policy: str | Policy | None = None,
        batch_size: int | None = None,  # noqa: ARG002  (langchain_core.indexing passes it)
    ) -> None:
        matrix = vectors_of(vectors)
        self._documents.ready(matrix.shape[1])
        self._documents.write(
            ids,
            [one.page_content for one in documents],
            [one.metadata for one in documents],
            matrix,
            own=self._records(documents),
            policy=policy,
        )

    def _records(self, documents: Sequence[Document]) -> dict[str, Any]:
        if not self._is_recording:
            return {}
        records: dict[str, Any] = {"indexed_at_s": np.full(len(documents), self._clock.now_s())}
        if self._source_id_key is not None:
            records["source_id"] = [source_of(one, self._source_id_key) for one in documents]
        return records

    def delete(self, ids: list[str] | None = None, *, filter: Wanted = None, **_: Any) -> bool:
        """Remove documents, in one commit.

        Parameters
        ----------
        ids : list of str, optional
            Those that are not stored are no error. Without ids and filter, all are removed.
        filter : dict, Expression, str or callable, optional
            Only documents that fulfil it.
        """
        where = self.where(filter)
        if ids is None and where is None and self.collection is not None:
            where = self._documents.everything()
        self._documents.delete(ids, where)
        return True

    # --- Reading ------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are stored, in the order of the ids."""
        rows = self._documents.read(ids)
        return [] if rows is None else [one for one in self._read(rows) if one is not None]

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the k documents nearest to a text.

        Parameters
        ----------
        query : str
            The text.
        k : int
            How many.
        filter : dict, Expression, str or callable, optional
            Only documents that fulfil it.
        **kwargs
            Options of :meth:`upvec.Collection.search`, such as ``ef``, ``exact`` and ``radius``.
        """
        return [found for found, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the k nearest documents with their distances, which the metric says."""
        vector = self._embedding.embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter, **kwargs)

    def similarity_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the k documents nearest to a vector."""
        found = self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a vector, with their distances."""
        hits = self._documents.search(embedding, k, where=self.where(filter), **kwargs)
        return [] if hits is None else self._scored(hits)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k documents near a text and unlike each other, of the nearest fetch_k."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, filter, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Wanted = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k documents near a vector and unlike each other, of the nearest fetch_k."""
        return self.similarity_search_by_vector(
            embedding, k, filter, mmr=lambda_mult, candidates=max(k, fetch_k), **kwargs
        )

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the k documents nearest to a text."""
        vector = await self._embedding.aembed_query(query)
        return await self.asimilarity_search_by_vector(vector, k, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the k nearest documents with their distances, which the metric says."""
        vector = await self._embedding.aembed_query(query)
        return await run_in_executor(
            None, self.similarity_search_with_score_by_vector, vector, k, **kwargs
        )

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k documents near a text and unlike each other, of the nearest fetch_k."""
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k documents near a vector and unlike each other, of the nearest fetch_k."""
        return await run_in_executor(
            None,
            self.max_marginal_relevance_search_by_vector,
            embedding,
            k,
            fetch_k,
            lambda_mult,
            **kwargs,
        )

    def where(self, wanted: Wanted) -> Expression | str | None:
        """Return the condition on rows that a filter is."""
        if wanted is None or isinstance(wanted, (str, Expression)):
            return wanted
        if self.collection is None or (isinstance(wanted, Mapping) and not wanted):
            return None
        layout = self._documents.layout
        if callable(wanted):
            chosen: list[str] = []
            for rows in self._documents.scan():
                read = (one for one in self._read(rows) if one is not None)
                chosen += [str(one.id) for one in read if wanted(one)]
            return FieldRef(layout.key).isin(chosen)
        return expression_of(filter_of(wanted), layout.ref, layout.key)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        layout = self._documents.layout
        metric = self._documents.opened.schema.vectors[layout.vector].metric
        return _relevance_of_squared if metric == "l2" else _relevance_of_dot

    def _read(self, rows: Rows) -> list[Document | None]:
        layout = self._documents.layout
        metadatas = self._documents.metadatas(rows)
        columns = (rows[layout.key].tolist(), rows[layout.text].tolist(), rows.found.tolist())
        return [
            Document(id=key, page_content=text or "", metadata=metadata) if found else None
            for key, text, found, metadata in zip(*columns, metadatas, strict=True)
        ]

    def _scored(self, hits: Hits) -> list[tuple[Document, float]]:
        read = [one for one in self._read(hits) if one is not None]
        return list(zip(read, hits.distances.tolist(), strict=True))

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store, and store texts in it; ``kwargs`` are those of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store, and store texts in it; ``kwargs`` are those of the class."""
        store = await run_in_executor(None, cls, embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store


def _documents_of(
    texts: list[str], metadatas: list[dict[str, Any]] | None, ids: list[str] | None
) -> list[Document]:
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(texts):
            raise ValueError(f"{name}: got {len(given)} for {len(texts)} texts")
    return [
        Document(page_content=text, metadata=(metadatas[at] or {}) if metadatas else {})
        for at, text in enumerate(texts)
    ]


def _ids(documents: Sequence[Document], ids: Sequence[str | None] | None) -> list[str]:
    if ids is None:
        ids = [document.id for document in documents]
    if len(ids) != len(documents):
        raise ValueError(f"ids: got {len(ids)} for {len(documents)} documents")
    return [str(uuid.uuid4()) if one is None else one for one in ids]


def _relevance_of_dot(distance: float) -> float:
    """Return the dot product, from 0 to 1: what is opposite is not relevant either."""
    return min(1.0, max(0.0, 1.0 - distance))


def _relevance_of_squared(distance: float) -> float:
    """Return 1 where vectors are the same, and 0 for such of unit length that are orthogonal."""
    root: float = np.sqrt(max(distance, 0.0))
    return float(max(0.0, 1.0 - root / np.sqrt(2.0)))
