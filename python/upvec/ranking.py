"""What a search finds, query after query and the best first: :class:`Ranking`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ranking", "offsets_of"]

Int64Array: TypeAlias = npt.NDArray[np.int64]


@dataclass(eq=False)  # not frozen: that would take time of every search
class Ranking:
    """Rows by id with what they are ranked by.

    Attributes
    ----------
    offsets : ndarray, int64 (q + 1,)
        Where each query's rows begin.
    rids : ndarray, int64 (m,)
    distances : dict of str to ndarray, float32 (m,)
        By vector field; NaN where the field's search did not find the row.
    scores : ndarray, float64 (m,), or None
        What several fields make of it, the largest first; None: ranked by the one distance.
    """

    offsets: Int64Array
    rids: Int64Array
    distances: dict[str, npt.NDArray[np.float32]]
    scores: npt.NDArray[np.float64] | None = None

    def chosen(self, positions: Int64Array, offsets: Int64Array) -> Ranking:
        """Return the rows at some positions, which ``offsets`` (q + 1,) tells apart by query."""
        distances = {name: column[positions] for name, column in self.distances.items()}
        scores = None if self.scores is None else self.scores[positions]
        return Ranking(offsets, self.rids[positions], distances, scores)

    def first(self, most: int) -> Ranking:
        """Return the first ``most`` rows of every query.

        Examples
        --------
        >>> near = np.array([0.5, 0.1, 0.2, 0.3], np.float32)
        >>> ranking = Ranking(np.array([0, 1, 4]), np.array([7, 4, 5, 6]), {"emb": near})
        >>> ranking.first(2).rids.tolist()
        [7, 4, 5]
        """
        counts = np.diff(self.offsets)
        if not (counts > most).any():
            return self
        kept = np.minimum(counts, most)
        offsets = offsets_of(kept)
        shift = np.repeat(self.offsets[:-1] - offsets[:-1], kept)
        return self.chosen(np.arange(int(offsets[-1])) + shift, offsets)

    def by_query(self, pieces: Sequence[Int64Array]) -> Ranking:
        """Return, of every query, the rows at some positions among its own."""
        offsets = offsets_of([len(piece) for piece in pieces])
        moved = [
            piece + start for piece, start in zip(pieces, self.offsets[:-1].tolist(), strict=True)
        ]
        return self.chosen(np.concatenate([np.zeros(0, dtype=np.int64), *moved]), offsets)

    @classmethod
    def joined(cls, rankings: Sequence[Ranking]) -> Ranking:
        """Return rankings of different queries (at least one) as one, query after query."""
        counts = np.concatenate([np.diff(ranking.offsets) for ranking in rankings])
        return cls(
            offsets_of(counts),
            np.concatenate([ranking.rids for ranking in rankings]),
            {
                name: np.concatenate([ranking.distances[name] for ranking in rankings])
                for name in rankings[0].distances
            },
            None
            if rankings[0].scores is None
            else np.concatenate([r.scores for r in rankings if r.scores is not None]),
        )


def offsets_of(counts: Sequence[int] | Int64Array) -> Int64Array:
    """Return where parts of these sizes begin and end; int64 (n + 1,)."""
    offsets: Int64Array = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return offsets
