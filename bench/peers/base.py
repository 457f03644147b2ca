"""What every peer can do, and the settings that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from bench.data import Floats
from bench.measure import Answers

Keys = npt.NDArray[np.int64]

# (M, ef_construction): 16 to 64 links on level 0. The shared setting comes first.
GRID = (
    (16, 200),
    *(pair for pair in product((8, 12, 16, 24, 32), (200, 400)) if pair != (16, 200)),
)
# For those that build so slowly that ten builds would be most of a run.
SHORT_GRID = tuple(pair for pair in GRID if pair[1] == 200)


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
    """An index under test. Made empty; keys are 0, 1, … after build().

    Attributes
    ----------
    name : str
        As the command line and the tables have it.
    updates : bool
        False of a *static* index: insert(), update() and remove() raise.
    exact_distances : bool
        False if answers have the distances of codes, which tell nothing of stale vectors.
    grid : sequence of (int, int)
        M and ef_construction of every build that its best curve is looked for with.
    """

    name: ClassVar[str]
    updates: ClassVar[bool]
    exact_distances: ClassVar[bool]
    grid: ClassVar[Sequence[tuple[int, int]]]

    def __init__(self, dim: int, metric: str, settings: Settings) -> None: ...

    @staticmethod
    def version() -> str:
        """The library's version, with the instruction set where it tells."""
        ...

    def build(self, vectors: Floats) -> None:
        """Insert all vectors by one call; row i gets key i."""
        ...

    def tune(self) -> None:
        """Whatever the library offers to make the built index faster."""
        ...

    def insert(self, keys: Keys, vectors: Floats) -> None:
        """Insert keys that are not live: new ones, or such as were removed. May come first."""
        ...

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        """Look for all queries by one call."""
        ...

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        """Look for one query a call, with as little around the calls as can be."""
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


class PeerDefaults:
    """What holds of most libraries: updates, exact distances, no account of itself."""

    updates: ClassVar[bool] = True
    exact_distances: ClassVar[bool] = True
    grid: ClassVar[Sequence[tuple[int, int]]] = GRID

    def tune(self) -> None:
        return

    def bytes_per_vector(self) -> float | None:
        return None

    def check(self) -> dict[str, int] | None:
        return None

    def broken(self) -> str | None:
        return None


class StaticDefaults(PeerDefaults):
    """An index that is built once."""

    updates: ClassVar[bool] = False

    def insert(self, keys: Keys, vectors: Floats) -> None:
        raise NotImplementedError("static: it takes no keys after build()")

    def update(self, keys: Keys, vectors: Floats) -> None:
        raise NotImplementedError("static: its vectors cannot change")

    def remove(self, keys: Keys) -> None:
        raise NotImplementedError("static: its keys cannot be removed")
