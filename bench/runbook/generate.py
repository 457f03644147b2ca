"""Runbooks made by a seed, of the kinds that the streaming track has.

Its replace-only books replace a tag at most once. Those made here go on for several rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bench.runbook.format import Delete, Insert, Operation, Replace, Runbook, Search, Span

CLUSTERS = 32
# Steps of life, as a share of all steps, and how many rows of thirteen have it.
_LIVES = ((0.1, 10), (0.5, 2), (None, 1))


def sliding_window(name: str, max_pts: int, steps: int = 100) -> Runbook:
    """Half of the rows first; then every step brings new ones and takes the oldest away."""
    parts = _parts(max_pts, steps)
    half = len(parts) // 2
    book: list[Operation] = [Insert(part) for part in parts[:half]] + [Search()]
    for oldest, new in zip(parts[: len(parts) - half], parts[half:], strict=False):
        book += [Insert(new), Delete(oldest), Search()]
    return Runbook(name, max_pts, book)


def expiration(name: str, max_pts: int, steps: int = 100, seed: int = 0) -> Runbook:
    """Every step brings rows that are to live shortly, long or for ever: 10, 2 and 1 of 13."""
    draw = np.random.default_rng(seed)
    due: dict[int, list[Span]] = {}
    book: list[Operation] = []
    for now, part in enumerate(_parts(max_pts, steps)):
        book.append(Insert(part))
        for span, life in _lives(part, draw):
            if life is not None:
                due.setdefault(now + max(1, round(life * steps)), []).append(span)
        book += [Delete(span) for span in due.pop(now, [])]
        book.append(Search())
    return Runbook(name, max_pts, book)


def random_replace(
    name: str, max_pts: int, steps: int = 32, rounds: int = 2, seed: int = 0
) -> Runbook:
    """Half of the rows first; then every tag gets, once a round, a row that no tag has."""
    draw = np.random.default_rng(seed)
    size = max(1, max_pts // (2 * steps))
    parts = [Span(i * size, (i + 1) * size) for i in range(2 * steps)]
    tags, free = parts[:steps], parts[steps:]
    held = dict(zip(tags, tags, strict=True))
    book: list[Operation] = [Insert(Span(0, steps * size)), Search()]
    for _ in range(rounds):
        for at in draw.permutation(len(tags)):
            new = free.pop(int(draw.integers(len(free))))
            book += [Replace(tags[at], new), Search()]
            free.append(held[tags[at]])
            held[tags[at]] = new
    return Runbook(name, max_pts, book)


def clustered_replace(
    name: str, max_pts: int, bounds: Sequence[int], rounds: int = 2, seed: int = 0
) -> Runbook:
    """Half of every cluster first; then all its tags get, once a round, the other half's rows.

    Parameters
    ----------
    bounds : sequence of int
        Cluster i is the rows from bounds[i] to before bounds[i + 1]; see `by_cluster`.
    """
    draw = np.random.default_rng(seed)
    halves = []
    for start, end in pairwise(bounds):
        half = (end - start) // 2
        if half:
            halves.append((Span(start, start + half), Span(start + half, start + 2 * half)))
    book: list[Operation] = [Insert(tags) for tags, _ in halves] + [Search()]
    for turn in range(rounds):
        for at in draw.permutation(len(halves)):
            tags, others = halves[at]
            book += [Replace(tags, others if turn % 2 == 0 else tags), Search()]
    return Runbook(name, max_pts, book, clusters=len(bounds) - 1)


def _parts(max_pts: int, steps: int) -> list[Span]:
    edges = [max_pts * step // steps for step in range(steps + 1)]
    return [Span(a, b) for a, b in pairwise(edges) if a < b]


def _lives(part: Span, draw: np.random.Generator) -> list[tuple[Span, float | None]]:
    """Cut a range into three, in random order of their lives."""
    shares = [_LIVES[i] for i in draw.permutation(len(_LIVES))]
    total = sum(weight for _, weight in shares)
    cut, found, passed = part.start, [], 0
    for life, weight in shares:
        passed += weight
        end = part.start + len(part) * passed // total
        if end > cut:
            found.append((Span(cut, end), life))
        cut = end
    return found
