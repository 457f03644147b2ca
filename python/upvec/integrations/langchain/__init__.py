"""upvec beneath LangChain: a vector store, a document index, and records beside the documents.

``pip install 'upvec[langchain]'``.
"""

try:
    import langchain_core as _langchain_core
except ModuleNotFoundError as missing:
    if missing.name != "langchain_core":
        raise
    message = "upvec.integrations.langchain needs langchain-core: pip install 'upvec[langchain]'"
    raise ModuleNotFoundError(message, name=missing.name) from missing

from .document_index import UpvecDocumentIndex
from .record_manager import UpvecRecordManager
from .vector_store import UpvecVectorStore

del _langchain_core

__all__ = ["UpvecDocumentIndex", "UpvecRecordManager", "UpvecVectorStore"]
