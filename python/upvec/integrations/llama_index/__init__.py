"""upvec beneath LlamaIndex: a vector store.

``pip install 'upvec[llama-index]'``.
"""

try:
    import llama_index.core as _llama_index_core
except ModuleNotFoundError as missing:
    if missing.name not in {"llama_index", "llama_index.core"}:
        raise
    message = "upvec.integrations.llama_index needs llama-index-core"
    message = f"{message}: pip install 'upvec[llama-index]'"
    raise ModuleNotFoundError(message, name=missing.name) from missing

from .vector_store import UpvecLlamaVectorStore

del _llama_index_core

__all__ = ["UpvecLlamaVectorStore"]
