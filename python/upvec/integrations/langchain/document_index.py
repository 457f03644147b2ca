"""A LangChain document index over a collection: :class:`UpvecDocumentIndex`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.indexing import UpsertResponse
from langchain_core.indexing.base import DeleteResponse, DocumentIndex
from pydantic import ConfigDict, Field

from .vector_store import UpvecVectorStore

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )

__all__ = ["UpvecDocumentIndex"]


class UpvecDocumentIndex(DocumentIndex):
    """Documents that are stored by id and retrieved by text.

    Parameters
    ----------
    store : UpvecVectorStore
        Where they are.
    k : int
        How many documents a query gives.
    search_kwargs : dict
        What is passed on to ``similarity_search``, such as ``filter``.

    Examples
    --------
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> index = UpvecDocumentIndex(store=UpvecVectorStore(DeterministicFakeEmbedding(size=16)))
    >>> index.upsert([Document("first", id="a"), Document("second", id="b")])
    {'succeeded': ['a', 'b'], 'failed': []}
    >>> [document.id for document in index.get(["b", "c"])], len(index.invoke("first"))
    (['b'], 2)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: UpvecVectorStore
    k: int = 4
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Store documents, in one commit; those without id get one."""
        ids = self.store.add_documents(list(items), **kwargs)
        return UpsertResponse(succeeded=ids, failed=[])

    async def aupsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Store documents, in one commit; those without id get one."""
        ids = await self.store.aadd_documents(list(items), **kwargs)
        return UpsertResponse(succeeded=ids, failed=[])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Remove documents, in one commit, by id, by ``filter``, or by both.

        Raises
        ------
        ValueError
            Neither.
        """
        wanted = kwargs.pop("filter", None)
        if kwargs:
            raise TypeError(f"delete() got an unexpected {next(iter(kwargs))!r}")
        if ids is None and wanted is None:
            raise ValueError("delete() wants ids, or filter=, or both; got neither")
        gone = self.store.documents.delete(ids, self.store.where(wanted))
        return DeleteResponse(num_deleted=len(gone), succeeded=gone, num_failed=0, failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:  # noqa: ARG002
        """Return the documents that are stored, in the order of the ids."""
        return self.store.get_by_ids(ids)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        return self.store.similarity_search(query, self.k, **self.search_kwargs)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        return await self.store.asimilarity_search(query, self.k, **self.search_kwargs)
