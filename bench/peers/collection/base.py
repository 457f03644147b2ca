"""What a store of records is asked for; one module a store implements it."""

from __future__ import annotations

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["STORES", "Records", "Store", "Unable", "make_store", "version_of"]

# By name: the module beside this one, the class, what pip installs, and what is imported.
STORES = {
    "upvec": ("upvec_store", "UpvecStore", "upvec", "upvec"),
    "zvec": ("zvec_store", "ZvecStore", "zvec", "zvec"),
    "qdrant-edge": ("qdrant_store", "QdrantStore", "qdrant-edge-py", "qdrant_edge"),
    "lancedb": ("lancedb_store", "LanceStore", "lancedb", "lancedb"),
    "chroma": ("chroma_store", "ChromaStore", "chromadb", "chromadb"),
    "milvus-lite": ("milvus_store", "MilvusStore", "pymilvus[milvus_lite]", "pymilvus"),
    "agentvec": ("agentvec_store", "AgentvecStore", "agentvec", "agentvec"),
    "epzero": ("epzero_store", "EpzeroStore", "epzero", "epzero"),
    "sqlite-vec": ("sqlite_store", "SqliteStore", "sqlite-vec", "sqlite_vec"),
}


class Unable(Exception):
    """What a store does not offer at all, and why."""


@dataclass(frozen=True)
class Records:
    """Rows, column by column.

    Attributes
    ----------
    ids : list of str, of length n
    tenants, texts : list of str, of length n
    ranks : ndarray of int64, shape (n,)
    vectors : ndarray of float32, shape (n, dim)
    """

    ids: list[str]
    tenants: list[str]
    texts: list[str]
    ranks: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Records:
        """Return some of the rows."""
        return Records(
            self.ids[start:stop],
            self.tenants[start:stop],
            self.texts[start:stop],
            self.ranks[start:stop],
            self.vectors[start:stop],
        )

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows without their ids and vectors, as dicts."""
        columns = zip(self.tenants, self.texts, self.ranks.tolist(), strict=True)
        return [{"tenant": t, "text": x, "rank": r} for t, x, r in columns]


class Store(ABC):
    """A store on disk, in its durable setting; distances are squared Euclidean ones.

    ``settings`` says how it is set up, for the report.
    """

    settings = ""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim

    @abstractmethod
    def create(self) -> None:
        """Make it."""

    @abstractmethod
    def open(self) -> None:
        """Open what another process has made."""

    @abstractmethod
    def upsert(self, rows: Records) -> None:
        """Write rows; when it returns, they are safe."""

    @abstractmethod
    def update_metadata(self, rows: Records) -> None:
        """Write all but the vectors, which are as they were."""

    @abstractmethod
    def delete(self, ids: list[str]) -> None:
        """Remove rows."""

    @abstractmethod
    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        """Return the ids of the nearest rows; with ``below``, of those whose rank is less."""

    @abstractmethod
    def count(self) -> int:
        """Return how many rows there are."""

    @abstractmethod
    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        """Return text and rank of rows, by id."""

    def has(self, ids: list[str]) -> int:
        """Return how many of these there are."""
        return len(self.get(ids))

    def index(self) -> None:  # noqa: B027
        """Do what the store wants done after much was written; part of the writing's time."""

    def close(self) -> None:  # noqa: B027
        """Let go of it."""


def make_store(name: str, folder: Path, dim: int) -> Store:
    """Return a store by name.

    Raises
    ------
    ImportError
        It is not installed.
    """
    module, kind, _, imported = STORES[name]
    importlib.import_module(imported)  # now, so that no step is charged for it
    made: Store = getattr(importlib.import_module(f".{module}", __package__), kind)(folder, dim)
    return made


def version_of(name: str) -> str:
    """Return the version of the package that holds a store."""
    try:
        return importlib.metadata.version(STORES[name][2].split("[")[0])
    except importlib.metadata.PackageNotFoundError:
        return "source"
