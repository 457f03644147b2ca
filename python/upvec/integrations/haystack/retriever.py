"""The component that retrieves by embedding: :class:`UpvecEmbeddingRetriever`."""

# Not "from __future__ import annotations": Haystack reads the types of run() as they are.

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from .document_store import UpvecDocumentStore

__all__ = ["UpvecEmbeddingRetriever"]


@component
class UpvecEmbeddingRetriever:
    """Retrieves the documents of a store whose embeddings are nearest to that of a query.

    Parameters
    ----------
    document_store : UpvecDocumentStore
        Where they are.
    filters : dict, optional
        Only documents that fulfil it.
    top_k : int
        How many.
    scale_score : bool
        Scores from 0 to 1; see :meth:`UpvecDocumentStore.embedding_retrieval`.
    return_embedding : bool
        Whether documents come with their embeddings.
    filter_policy : FilterPolicy
        What filters that a run brings do to these.

    Raises
    ------
    TypeError
        Another kind of store.
    ValueError
        A top_k that is no count.

    Examples
    --------
    >>> store = UpvecDocumentStore(embedding_dim=2)
    >>> store.write_documents([Document(id="a", embedding=[0.0, 1.0])])
    1
    >>> retriever = UpvecEmbeddingRetriever(store)
    >>> [document.id for document in retriever.run([0.5, 0.5])["documents"]]
    ['a']
    """

    def __init__(
        self,
        document_store: UpvecDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        store: object = document_store
        if not isinstance(store, UpvecDocumentStore):
            message = f"document_store: got {type(store).__name__}, wanted UpvecDocumentStore"
            raise TypeError(message)
        if top_k < 1:
            raise ValueError(f"top_k: got {top_k}, wanted at least 1")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.scale_score = scale_score
        self.return_embedding = return_embedding
        self.filter_policy = (
            FilterPolicy.from_str(filter_policy)
            if isinstance(filter_policy, str)
            else filter_policy
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict of JSON values."""
        described: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            scale_score=self.scale_score,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
        )
        return described

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "UpvecEmbeddingRetriever":
        """Return the component that :meth:`to_dict` described."""
        given = dict(data.get("init_parameters", {}))
        if isinstance(given.get("document_store"), dict):
            given["document_store"] = UpvecDocumentStore.from_dict(given["document_store"])
        retriever: UpvecEmbeddingRetriever = default_from_dict(
            cls, {**data, "init_parameters": given}
        )
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """Retrieve documents; what is given takes the place of what the component was made with.

        Parameters
        ----------
        query_embedding : list of float
            A vector of the dimension of the embeddings.
        filters : dict, optional
            By ``filter_policy``.
        top_k, scale_score, return_embedding
            As for the class.

        Returns
        -------
        dict
            ``{"documents": ...}``, the best first.
        """
        options = self._options(filters, top_k, scale_score, return_embedding)
        return {"documents": self.document_store.embedding_retrieval(query_embedding, **options)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """As :meth:`run`."""
        options = self._options(filters, top_k, scale_score, return_embedding)
        found = await self.document_store.embedding_retrieval_async(query_embedding, **options)
        return {"documents": found}

    def _options(
        self,
        filters: dict[str, Any] | None,
        top_k: int | None,
        scale_score: bool | None,
        return_embedding: bool | None,
    ) -> dict[str, Any]:
        return {
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "top_k": self.top_k if top_k is None else top_k,
            "scale_score": self.scale_score if scale_score is None else scale_score,
            "return_embedding": (
                self.return_embedding if return_embedding is None else return_embedding
            ),
        }
