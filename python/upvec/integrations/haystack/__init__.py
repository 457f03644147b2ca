"""upvec beneath Haystack: a document store, and the component that retrieves from it.

``pip install 'upvec[haystack]'``. From version 3 on, Haystack reads pipelines from modules that it
was told to trust: ``Pipeline.load(..., allowed_modules=["upvec.integrations.haystack.*"])``.
"""

try:
    import haystack as _haystack
except ModuleNotFoundError as missing:
    if missing.name != "haystack":
        raise
    message = "upvec.integrations.haystack needs haystack-ai: pip install 'upvec[haystack]'"
    raise ModuleNotFoundError(message, name=missing.name) from missing

from .document_store import UpvecDocumentStore
from .retriever import UpvecEmbeddingRetriever

del _haystack

__all__ = ["UpvecDocumentStore", "UpvecEmbeddingRetriever"]
