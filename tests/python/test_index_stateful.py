"""Index against a dict, over histories that Hypothesis makes up.

The dict has the vectors as they were written. What an index keeps of each does not depend on the
others, so it is what an index gives back that has no other.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import upvec

KEYS = st.integers(0, 60)
# Few different coordinates, so that vectors coincide and distances tie.
VECTORS = st.tuples(*[st.sampled_from([-1.0, 0.5, 2.0, 3.0])] * 3)


class IndexAgainstDict(RuleBasedStateMachine):
    """Every rule does the same to an index and to a dict of vectors."""

    @initialize(
        key=st.sampled_from(["int64", "str"]),
        metric=st.sampled_from(["l2", "ip"]),
        way=st.sampled_from(
            [("int8", "f32"), ("none", "f32"), ("int8", "bf16"), ("none", "bf16"), ("int8", "none")]
        ),
    )
    def start(self, key: str, metric: str, way: tuple[str, str]) -> None:
        self.key = key
        codes, keep = way
        self.ix = upvec.Index(
            3, metric=metric, key=key, codes=codes, keep=keep, M=4, ef_construction=8
        )
        self.keeper = upvec.Index(3, metric=metric, keep=keep)
        self.off = {"f32": 0.0, "bf16": 0.0, "none": 1.0001 * 3 / 254}[keep]  # at most
        self.model: dict[int | str, tuple[float, ...]] = {}

    def name(self, number: int) -> int | str:
        return number if self.key == "int64" else f"k{number}"

    def kept(self, names: list[int | str]) -> npt.NDArray[np.float32]:
        """What the index should have for these keys."""
        written = np.array([self.model[name] for name in names], np.float32).reshape(-1, 3)
        self.keeper.upsert(np.arange(len(names)), written)
        kept = self.keeper.get(np.arange(len(names)))[0]
        assert (np.abs(kept - written) <= self.off).all()
        return kept

    @rule(
        rows=st.lists(st.tuples(KEYS, VECTORS), max_size=40),
        mode=st.sampled_from(["upsert", "insert_only", "update_only"]),
        duplicates=st.sampled_from(["first", "last"]),
    )
    def upsert(self, rows: list[tuple[int, tuple[float, ...]]], mode: str, duplicates: str) -> None:
        names = [self.name(number) for number, _ in rows]
        vectors = np.array([vector for _, vector in rows], np.float32).reshape(-1, 3)
        outcome = self.ix.upsert(names, vectors, mode=mode, duplicates=duplicates)
        batch: dict[int | str, tuple[float, ...]] = {}
        for name, (_, vector) in zip(names, rows, strict=True):
            if duplicates == "last" or name not in batch:
                batch[name] = vector
        expected = dict.fromkeys(["inserted", "updated", "unchanged"], 0)
        for name, vector in batch.items():
            known = name in self.model
            if mode == ("insert_only" if known else "update_only"):
                continue
            same = known and self.model[name] == vector
            expected["unchanged" if same else "updated" if known else "inserted"] += 1
            self.model[name] = vector
        counts = {what: outcome.counts.get(what, 0) for what in expected}
        assert counts == expected

    @rule(numbers=st.lists(KEYS, max_size=30))
    def remove(self, numbers: list[int]) -> None:
        names = [self.name(number) for number in numbers]
        removed = self.ix.remove(names)
        # A key that is named twice is removed once.
        assert removed.tolist() == [self.model.pop(name, None) is not None for name in names]

    @rule()
    def remove_all(self) -> None:
        self.ix.remove(list(self.model))
        self.model.clear()

    @rule(mmap=st.booleans())
    def save_and_load(self, mmap: bool) -> None:
        digest = self.ix.digest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ix"
            self.ix.save(path)
            self.ix = upvec.Index.load(path, mmap=mmap)
        assert self.ix.digest() == digest

    @rule(query=VECTORS, k=st.integers(1, 70))
    def search(self, query: tuple[float, ...], k: int) -> None:
        for result in (self.ix.search(query, k), self.ix.exact_search(query, k)):
            count = int(result.counts[0])
            assert count == min(k, len(self.model))
            names = result.keys[0, :count].tolist()
            assert len(set(names)) == count
            vectors = self.kept(names)
            products = vectors @ np.array(query)
            if self.ix.metric == "ip":
                truth = 1 - products
            else:
                truth = ((vectors - np.array(query)) ** 2).sum(axis=1)
            np.testing.assert_allclose(result.distances[0, :count], truth, rtol=1e-5, atol=1e-5)
            assert (np.diff(result.distances[0, :count]) >= 0).all()

    @invariant()
    def the_index_is_the_dict(self) -> None:
        if not hasattr(self, "ix"):
            return
        assert self.ix.check().ok
        assert len(self.ix) == len(self.model)
        assert set(self.ix.keys().tolist()) == set(self.model)
        names = list(self.model)
        vectors, found = self.ix.get(names)
        assert found.all()
        np.testing.assert_array_equal(vectors, self.kept(names))


TestIndexAgainstDict = IndexAgainstDict.TestCase
TestIndexAgainstDict.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
