"""What a collection was: the feed of its changes, and going back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec.errors import ClosedError, HistoryError, ReadOnlyError, SchemaError

SCHEMA = upvec.Schema(
    upvec.Field("id", "string", primary=True),
    upvec.Field("mail", "string", nullable=True),
    upvec.Field("n", "int64", default=0, merge=upvec.sum_()),
    upvec.Field("tags", "list<string>", nullable=True),
    upvec.Vector("emb", 3, metric="cosine"),
    upvec.Vector("more", 2, nullable=True),
    unique=[upvec.Unique("mail")],
)

Picture = dict[str, dict[str, Any]]


def row(rng: random.Random, key: str) -> dict[str, Any]:
    made: dict[str, Any] = {"id": key, "emb": [rng.uniform(0.1, 1) for _ in range(3)]}
    if rng.random() < 0.6:
        made["n"] = rng.randrange(5)
    if rng.random() < 0.5:
        made["tags"] = rng.choice([None, [], ["a"], ["a", "b"]])
    if rng.random() < 0.5:
        made["more"] = rng.choice([None, [1.0, 2.0]])
    return made


def plain(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }


def picture(reader: Any) -> Picture:
    rows = [found for part in reader.scan() for found in part.to_dicts() if found is not None]
    return {found["id"]: plain(found) for found in rows}


def random_step(col: upvec.Collection, rng: random.Random) -> None:
    keys = [f"k{rng.randrange(12)}" for _ in range(rng.randrange(1, 6))]
    chosen = rng.random()
    if chosen < 0.6:
        col.upsert([row(rng, key) for key in dict.fromkeys(keys)])
    elif chosen < 0.7:
        col.upsert(
            [{"id": key, "mail": f"{key}@x", "emb": [1, 0, 0]} for key in dict.fromkeys(keys)]
        )
    elif chosen < 0.9:
        col.delete(keys)
    else:
        with col.transaction() as tx:
            tx.delete(keys[:1])
            tx.upsert([row(rng, keys[0])])


@pytest.mark.parametrize("seed", range(4))
def test_changes_lead_from_each_version_to_the_next(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    col = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    pictures: dict[int, Picture] = {0: {}}
    checkpoints = [0]
    for step in range(60):
        random_step(col, rng)
        pictures[col.seq] = picture(col)
        if step in {20, 40}:
            col.checkpoint()
            checkpoints.append(col.seq)
    oldest = checkpoints[-2]
    for since in {oldest, oldest + 3, col.seq - 1, col.seq}:
        state = dict(pictures[since])
        seqs = []
        for change in col.changes(since=since):
            seqs.append(change.seq)
            for one in change.to_dicts():
                key = one["key"]
                assert (None if one["old"] is None else plain(one["old"])) == state.get(key)
                if one["status"] == "deleted":
                    assert one["new"] is None
                    del state[key]
                else:
                    assert (one["status"] == "inserted") == (key not in state)
                    state[key] = plain(one["new"])
            assert state == pictures[change.seq]
        assert seqs == list(range(since + 1, col.seq + 1))
    with pytest.raises(HistoryError, match=f"the oldest is {oldest}") as caught:
        col.changes(since=oldest - 1)
    assert (caught.value.seq, caught.value.oldest) == (oldest - 1, oldest)
    for seq in (oldest, oldest + 7, col.seq - 2, oldest + 1):
        col.restore(seq=seq)
        assert picture(col) == pictures[seq]
    digest = col.digest()
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert again.digest() == digest


def test_a_change_names_the_fields_that_were_written(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert([{"id": "a", "emb": [1, 0, 0]}, {"id": "b", "emb": [1, 0, 0]}])
        col.upsert([{"id": "a", "n": 2}, {"id": "b", "more": [0, 1]}])
        (change,) = col.changes(since=1)
        assert change.changed[0] == ("n",)
        assert change.changed[1] == ("more",)
        assert change.key.tolist() == ["a", "b"]
        assert repr(change) == "Changes(seq=2, updated=2)"
        assert len(change) == 2


def test_restoring_touches_only_what_differs_and_is_a_commit_like_others(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert([{"id": key, "emb": [1, 0, 0]} for key in "abc"])
        col.upsert([{"id": "a", "n": 5}, {"id": "d", "emb": [0, 1, 0]}])
        col.delete(["b"])
        reader = upvec.open(tmp_path / "c", read_only=True)
        result = col.restore(seq=1)
        assert {name: n for name, n in result.counts.items() if n} == {
            "inserted": 1,
            "updated": 1,
            "deleted": 1,
        }
        assert sorted(result.key.tolist()) == ["a", "b", "d"]
        assert result.seq == col.seq == 4
        assert sorted(picture(col)) == ["a", "b", "c"]
        assert col.get(["c", "a"]).version.tolist() == [1, 4]
        assert len(col.restore(seq=4)) == 0
        assert col.seq == 4
        assert reader.refresh() == 4
        assert picture(reader) == picture(col)
        assert [one.seq for one in reader.changes(since=2)] == [3, 4]
        with pytest.raises(ReadOnlyError):
            reader.restore(seq=1)
        reader.close()


@pytest.mark.parametrize("ordered", [False, True])
def test_restoring_over_a_row_id_that_was_used_again_deletes_and_inserts(
    tmp_path: Path, ordered: bool
) -> None:
    fields = (upvec.Field("id", "string", primary=True), upvec.Field("ts", "int64"))
    schema = upvec.Schema(*fields, upvec.Vector("emb", 2), order_by="ts" if ordered else None)
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": "a", "ts": 1, "emb": [1, 0]}])
        col.delete(["a"])
        col.upsert([{"id": "b", "ts": 100, "emb": [0, 1]}])
        col.restore(seq=1)
        *_, change = col.changes(since=3)
        told = [(one["status"], one["key"]) for one in change.to_dicts()]
        assert told == [("deleted", "b"), ("inserted", "a")]
        assert col.search([1, 0], k=5)["id"].tolist() == ["a"]
        result = col.upsert([{"id": "b", "ts": 50, "emb": [0, 1]}])
        assert result.counts["stale" if ordered else "inserted"] == 1
        assert col.verify().ok
        digest = col.digest()
    with upvec.open(tmp_path / "c") as again:
        assert again.digest() == digest


def test_restoring_swaps_unique_keys_back(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert(
            [{"id": "a", "mail": "1", "emb": [1, 0, 0]}, {"id": "b", "mail": "2", "emb": [1, 0, 0]}]
        )
        col.upsert([{"id": "a", "mail": "3"}])
        col.upsert([{"id": "b", "mail": "1"}])
        col.upsert([{"id": "a", "mail": "2"}])
        col.restore(seq=1)
        assert col.get(["1", "2"], on="mail")["id"].tolist() == ["a", "b"]
        assert not col.get(["3"], on="mail").found[0]


def test_the_feed_goes_through_a_change_of_the_schema_and_restoring_does_not(
    tmp_path: Path,
) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert([{"id": "a", "n": 3, "emb": [1, 0, 0]}])
        col.alter(
            add=[upvec.Field("twice", "int64")], rename={"n": "count"}, backfill={"twice": "n * 2"}
        )
        col.upsert([{"id": "a", "twice": 7}])
        _, altered, last = col.changes(since=0)
        assert altered.schema == col.schema
        (one,) = altered.to_dicts()
        assert (one["old"]["n"], one["new"]["count"], one["new"]["twice"]) == (3, 3, 6)
        assert last.to_dicts()[0]["new"]["twice"] == 7
        with pytest.raises(SchemaError, match="changed after commit 1"):
            col.restore(seq=1)
        col.restore(seq=2)
        assert col["a"]["twice"] == 6


def test_a_feed_that_is_read_slowly_keeps_what_it_needs(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for turn in range(3):
            col.upsert([{"id": f"k{turn}", "emb": [1, 0, 0]}])
        feed = col.changes(since=0)
        assert next(feed).seq == 1
        for turn in range(4):
            col.checkpoint()
            col.upsert([{"id": f"m{turn}", "emb": [1, 0, 0]}])
        assert [one.seq for one in feed] == [2, 3]
        col.checkpoint()
        with pytest.raises(HistoryError):
            col.changes(since=0)


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert([{"id": "a", "emb": [1, 0, 0]}])
        for wrong in (-1, 2, 1.0, None, True):
            with pytest.raises(ValueError, match="wanted a commit from 0 to 1"):
                col.changes(since=wrong)
            with pytest.raises(ValueError, match="wanted a commit from 0 to 1"):
                col.restore(seq=wrong)
        assert list(col.changes(since=1)) == []
    with pytest.raises(ClosedError):
        col.changes(since=0)
    memory = upvec.open(":memory:", SCHEMA)
    for call in (lambda: memory.changes(since=0), lambda: memory.restore(seq=0)):
        with pytest.raises(ValueError, match="in memory"):
            call()
