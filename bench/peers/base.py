"""What every peer can do, and the settings that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bench.data import Floats
from bench.measure import Answers

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """Equal for all peers.

    Attributes
    ----------
    M : int
        Links a node has on the levels above 0; it has twice as many on level 0.
    ef_construction : int
        Candidates held while links are chosen.
    threads : int
        Of every call.
    """

    M: int = 16
    ef_construction: int = 200
    threads: int = 1


class Peer(Protocol):
    """An index under test. Made empty; keys are 0, 1, … after build()."""

    name: str

    def __init__(self, dim: int, metric: str, settings: Settings) -> None: ...

    @staticmethod
    def version() -> str:
        """The library's version, with the instruction set where it tells."""
        ...

    def build(self, vectors: Floats) -> None:
        """Insert all vectors by one call; row i gets key i."""
        ...

    def insert(self, keys: Keys, vectors: Floats) -> None:
        """Insert keys that are not live: new ones, or such as were removed. May come first."""
        ...

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        """Look for all queries by one call."""
        ...

    def update(self, keys: Keys, vectors: Floats) -> None:
        """Give live keys new vectors."""
        ...

    def remove(self, keys: Keys) -> None:
        """Remove live keys, so that no answer names them."""
        ...

    def bytes_per_vector(self) -> float | None:
        """Memory of the index by its own account, for each live key; None if it has none."""
        ...

    def check(self) -> dict[str, int] | None:
        """Counts of what broken() goes by, and `live`; None if there is no such account."""
        ...

    def broken(self) -> str | None:
        """What is wrong with the index by its own account: "" nothing, None no such account."""
        ...
