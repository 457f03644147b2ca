"""A LlamaIndex vector store over a collection: :class:`UpvecLlamaVectorStore`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    DEFAULT_PERSIST_FNAME,
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from upvec.collection import Collection
from upvec.errors import NotSupportedError, SchemaError
from upvec.expression import Expression, col
from upvec.fields import Field
from upvec.integrations.documents import Documents, vectors_of
from upvec.integrations.handles import borrow, give_back, is_stored
from upvec.sync import ALL

from .filters import REF_DOC_ID, where_of
from .nodes import node_of, rest_of, text_of

if TYPE_CHECKING:
    from upvec.policy import Policy
    from upvec.result import Rows

__all__ = ["UpvecLlamaVectorStore"]

_OWN_FIELDS: Final = (
    Field(REF_DOC_ID, "string", nullable=True, index=True),
    Field("node", "json", nullable=True),
)
# LlamaIndex's own: how many nodes MMR chooses from, as a multiple of those it chooses.
_PREFETCH_FACTOR: Final = 4


class UpvecLlamaVectorStore(BasePydanticVectorStore):
    """Nodes in a collection.

    Parameters
    ----------
    path : str or path, optional
        The directory of the collection; by default it is kept in memory. All stores of a process
        that name the same path share a handle.
    collection : Collection, optional
        One that :func:`upvec.open` gave, in place of a path: any whose primary key is a string and
        that has a string field for the text and a vector field. Metadata go to the fields of their
        names; the others to the json field ``metadata``, or to where ``extra="store"`` keeps them.
        What else a node has is kept if there is a json field ``node``, and the document that it is
        from if there is a string field ``ref_doc_id``. The store does not close it.
    metric : str, optional
        ``"cosine"`` (default), ``"l2"`` or ``"ip"``, of a new collection.
    dim : int, optional
        Of the vectors of a new collection; by default the first node tells.
    fields : sequence of Field
        Metadata of a new collection that get fields of their own: these are checked, and with
        ``index=True`` filtered on by an index.
    text_field, vector_field : str
        What the collection calls them.

    Notes
    -----
    Every call that writes is one commit. Filters are worked out before a search, which then knows
    how many nodes it may find. Similarities are the cosine, the dot product, or, of the squared
    distance d, ``1 / (1 + d)``.

    Examples
    --------
    >>> from llama_index.core.schema import TextNode
    >>> from llama_index.core.vector_stores.types import MetadataFilter
    >>> store = UpvecLlamaVectorStore()
    >>> store.add(
    ...     [
    ...         TextNode(id_="old", text="old text", embedding=[0, 1], metadata={"year": 1990}),
    ...         TextNode(id_="new", text="new text", embedding=[1, 0], metadata={"year": 2020}),
    ...     ]
    ... )
    ['old', 'new']
    >>> since = MetadataFilters(filters=[MetadataFilter(key="year", value=2000, operator=">=")])
    >>> found = store.query(VectorStoreQuery(query_embedding=[0, 1], filters=since))
    >>> found.ids, [node.text for node in found.nodes]
    (['new'], ['new text'])
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    path: str | None = None

    _documents: Documents = PrivateAttr()

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        collection: Collection | None = None,
        *,
        metric: str | None = None,
        dim: int | None = None,
        fields: Sequence[Field] = (),
        text_field: str = "text",
        vector_field: str | None = None,
        **described: Any,
    ) -> None:
        # LlamaIndex hands back what to_dict() has said; anything else is a mistake.
        unknown = described.keys() - type(self).model_fields.keys() - {"class_name"}
        if unknown:
            raise TypeError(f"UpvecLlamaVectorStore got {sorted(unknown)}, which it does not take")
        super().__init__(path=None if path is None else os.fsdecode(path))  # type: ignore[call-arg]
        self._documents = Documents(
            path,
            collection,
            metric=metric,
            dim=dim,
            fields=fields,
            own=_OWN_FIELDS,
            text_field=text_field,
            vector_field=vector_field,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return "UpvecLlamaVectorStore"

    @property
    def client(self) -> Collection | None:
        """The collection; None until the first node tells the dimension of a new one."""
        return self._documents.collection

    @property
    def collection(self) -> Collection | None:
        """The collection; None until the first node tells the dimension of a new one."""
        return self._documents.collection

    def close(self) -> None:
        """Close the collection, unless it was given open, or another store of the path uses it."""
        self._documents.close()

    # --- Writing ------------------------------------------------------------------------------

    def add(
        self, nodes: Sequence[BaseNode], *, policy: str | Policy | None = None, **_: Any
    ) -> list[str]:
        """Store nodes, in one commit; one whose id is stored takes the place of the stored one.

        Parameters
        ----------
        nodes : sequence of BaseNode
            With embeddings.
        policy : str or Policy, optional
            How stored nodes and new ones become one, as for :meth:`Collection.upsert`.

        Returns
        -------
        list of str
            Their ids.
        """
        nodes = list(nodes)
        if not nodes:
            return []
        vectors = vectors_of([node.get_embedding() for node in nodes])
        self._documents.ready(vectors.shape[1])
        ids = [node.node_id for node in nodes]
        self._documents.write(
            ids,
            [text_of(node) for node in nodes],
            [node.metadata for node in nodes],
            vectors,
            own={
                REF_DOC_ID: [node.ref_doc_id for node in nodes],
                "node": [rest_of(node) for node in nodes],
            },
            policy=policy,
        )
        return ids

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Remove the nodes of a document, in one commit.

        Raises
        ------
        SchemaError
            The collection does not say which they are.
        """
        if self.collection is not None:
            self._documents.delete(where=self._of_documents([ref_doc_id]))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """Remove nodes by id, by filters, or by both, in one commit.

        Raises
        ------
        ValueError
            Neither: :meth:`clear` removes all.
        """
        if node_ids is None and filters is None:
            raise ValueError("delete_nodes() wants node_ids, or filters, or both; got neither")
        if self.collection is not None:
            where = self._where(filters)
            if node_ids is None and where is None:
                where = self._documents.everything()
            self._documents.delete(node_ids, where)

    def clear(self) -> None:
        """Remove all nodes, in one commit."""
        if self.collection is not None:
            self._documents.delete(where=self._documents.everything())

    # --- Reading ------------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes with their embeddings: by id, in order; by filters; by both; or all."""
        if self.collection is None:
            return []
        where = self._where(filters)
        if node_ids is not None and where is None:
            rows = self._documents.read(node_ids, vectors=True)
            return [] if rows is None else self._nodes(rows)
        if node_ids is not None:
            where = self._both(where, col(self._documents.layout.key).isin(node_ids))
        batches = self._documents.scan(where, vectors=True)
        nodes = [node for rows in batches for node in self._nodes(rows)]
        if node_ids is not None:
            found = {node.node_id: node for node in nodes}
            nodes = [found[key] for key in node_ids if key in found]
        return nodes

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nodes nearest to a vector.

        Parameters
        ----------
        query : VectorStoreQuery
            With ``query_embedding``; ``node_ids``, ``doc_ids`` and ``filters``, all of which must
            hold (an empty list stands for none, as LlamaIndex has it of stores that keep the
            nodes); and the mode ``DEFAULT`` or ``MMR``.
        **kwargs
            ``mmr_threshold`` (0: unlike each other; 1: near), ``mmr_prefetch_factor`` and
            ``mmr_prefetch_k`` (of how many to choose); and options of
            :meth:`upvec.Collection.search`, such as ``ef`` and ``exact``.

        Raises
        ------
        ValueError
            No vector, or another mode.
        """
        if query.query_embedding is None:
            raise ValueError("query: got no query_embedding, wanted a vector")
        if self.collection is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        field = self._documents.layout.vector
        if query.embedding_field not in {None, field}:
            got = f"embedding_field={query.embedding_field!r}"
            raise ValueError(f"query: got {got}; that of the store is {field!r}")
        where = self._where(query.filters)
        if query.node_ids:
            where = self._both(where, col(self._documents.layout.key).isin(query.node_ids))
        if query.doc_ids:
            where = self._both(where, self._of_documents(query.doc_ids))
        options = _options(query, kwargs)
        hits = self._documents.search(
            query.query_embedding, query.similarity_top_k, where=where, **options
        )
        if hits is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        nodes = self._nodes(hits)
        metric = self.collection.schema.vectors[field].metric
        similarities = [_similarity(metric, distance) for distance in hits.distances.tolist()]
        ids = [node.node_id for node in nodes]
        return VectorStoreQueryResult(nodes=nodes, similarities=similarities, ids=ids)

    def _where(self, filters: MetadataFilters | None) -> Expression | None:
        documents = self._documents
        return where_of(filters, documents.layout, documents.opened.schema.types)

    def _of_documents(self, ids: Sequence[str]) -> Expression:
        if not self._documents.has(REF_DOC_ID):
            message = f"the collection has no field {REF_DOC_ID!r}, so no node is of a document"
            raise SchemaError(f"{message}; Collection.alter() adds fields")
        return col(REF_DOC_ID).isin(ids)

    @staticmethod
    def _both(left: Expression | None, right: Expression) -> Expression:
        return right if left is None else left & right

    def _nodes(self, rows: Rows) -> list[BaseNode]:
        documents, layout = self._documents, self._documents.layout
        nothing = [None] * len(rows)

        def own(name: str) -> list[Any]:
            return rows[name].tolist() if name in rows and documents.has(name) else nothing

        vectors = rows[layout.vector].tolist() if layout.vector in rows else nothing
        cells = zip(
            rows[layout.key].tolist(),
            rows[layout.text].tolist(),
            documents.metadatas(rows),
            own("node"),
            own(REF_DOC_ID),
            vectors,
            rows.found.tolist(),
            strict=True,
        )
        return [
            node_of(key, text or "", metadata, rest=rest, document=document, embedding=vector)
            for key, text, metadata, rest, document, vector, found in cells
            if found
        ]

    # --- On disk ------------------------------------------------------------------------------

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Write the store to a directory, where :meth:`from_persist_path` finds it.

        A collection with a path is durable by itself: at its own path this writes a checkpoint,
        elsewhere it makes a backup or brings one up to date. One in memory is written by one
        commit, in place of what an earlier call has written there.

        Raises
        ------
        NotSupportedError
            Another file system than the local one.
        """
        _check_local(fs)
        collection = self.collection
        if collection is None:
            return
        target = os.path.abspath(persist_path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if collection.path == ":memory:":
            _write_out(collection, target)
        elif os.path.realpath(target) == os.path.realpath(collection.path):
            collection.checkpoint()
        else:
            collection.backup(target)

    @classmethod
    def from_persist_path(
        cls, persist_path: str, fs: Any = None, **options: Any
    ) -> UpvecLlamaVectorStore:
        """Open the store that was written to a directory; ``options`` are those of the class.

        Raises
        ------
        ValueError
            There is none.
        """
        _check_local(fs)
        if not is_stored(persist_path):
            raise ValueError(f"there is no collection in {persist_path!r}")
        return cls(persist_path, **options)

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str = DEFAULT_PERSIST_DIR,
        namespace: str = "default",
        fs: Any = None,
        **options: Any,
    ) -> UpvecLlamaVectorStore:
        """Open the store that ``StorageContext.persist`` wrote."""
        name = f"{namespace}__{DEFAULT_PERSIST_FNAME}"
        return cls.from_persist_path(os.path.join(persist_dir, name), fs, **options)

    # --- Awaitable ----------------------------------------------------------------------------

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes, as :meth:`add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **kwargs: Any) -> None:
        """Remove the nodes of a document, as :meth:`delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> None:
        """Remove nodes, as :meth:`delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **kwargs)

    async def aclear(self) -> None:
        """Remove all nodes, as :meth:`clear`."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes, as :meth:`get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nodes nearest to a vector, as :meth:`query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _options(query: VectorStoreQuery, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a query asks of the search."""
    options = dict(given)
    names = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")
    threshold, factor, prefetch = (options.pop(name, None) for name in names)
    if query.mode == VectorStoreQueryMode.DEFAULT:
        return options
    if query.mode != VectorStoreQueryMode.MMR:
        raise ValueError(f"query: got the mode {query.mode.value!r}, wanted 'default' or 'mmr'")
    if factor is not None and prefetch is not None:
        raise ValueError("query: got mmr_prefetch_factor and mmr_prefetch_k, wanted one of the two")
    threshold = query.mmr_threshold if threshold is None else threshold
    options["mmr"] = 0.5 if threshold is None else threshold
    if prefetch is None:
        prefetch = int(query.similarity_top_k * (factor or _PREFETCH_FACTOR))
    options["candidates"] = max(query.similarity_top_k, prefetch)
    return options


def _similarity(metric: str, distance: float) -> float:
    return 1.0 / (1.0 + distance) if metric == "l2" else 1.0 - distance


def _write_out(collection: Collection, target: str) -> None:
    """Make the rows of the collection in a directory, made if it is absent, those of another."""
    rows = [row for batch in collection.scan() for row in batch]
    written = borrow(target, collection.schema)
    try:
        if rows:
            written.sync(rows, scope=ALL, max_delete=1.0, policy="replace")
        elif len(written):
            written.delete(where=~col(collection.schema.primary.name).is_null())
    finally:
        give_back(written)


def _check_local(fs: Any) -> None:
    protocol = getattr(fs, "protocol", "file")
    names = {protocol} if isinstance(protocol, str) else set(protocol)
    if not names & {"file", "local"}:
        message = f"got fs={type(fs).__name__}, wanted the local file system"
        raise NotSupportedError(message, argument="fs")
