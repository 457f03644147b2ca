"""What users of other stores ran into, as tests that it does not happen here.

Each test is named after the complaint; the comment says where it was raised.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import Field, Outcome, Schema, Unique, Vector
from upvec.sample import load_sample


def profiles(path: Path | str = ":memory:", **options: Any) -> upvec.Collection:
    schema = Schema(
        Field("id", "string", primary=True),
        Field("email", "string", nullable=True),
        Field("phone", "string", nullable=True),
        Field("bio", "string", default=""),
        Field("logins", "int64", default=0, merge="sum_"),
        Vector("emb", 4, nullable=True, source="bio"),
        unique=[Unique("email"), Unique("phone")],
        **options,
    )
    return upvec.open(path, schema)


def in_transaction(write: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def call(col: Any, rows: Any) -> Any:
        results = []
        with col.transaction() as tx:
            results.append(write(tx, rows))
        return results[0]

    return call


PATHS: dict[str, Callable[[Any, Any], Any]] = {
    "upsert": lambda col, rows: col.upsert(rows),
    "on a unique": lambda col, rows: col.upsert(rows, on="email"),
    "any_of": lambda col, rows: col.upsert(rows, on=upvec.any_of("phone", "email")),
    "keep": lambda col, rows: col.upsert(rows, policy="keep"),
    "fold": lambda col, rows: col.upsert(rows * 2, duplicates="fold"),
    "insert": lambda col, rows: col.insert(rows),
    "if_version": lambda col, rows: col.upsert(rows, if_version={rows[0]["id"]: 0}),
    "sync": lambda col, rows: col.sync(rows, scope=upvec.ALL, on="email", max_delete=1.0),
    "plan": lambda col, rows: col.upsert(rows, dry_run=True).commit(),
    "transaction": in_transaction(lambda tx, rows: tx.upsert(rows)),
    "transaction, insert": in_transaction(lambda tx, rows: tx.insert(rows)),
    "transaction, on a unique": in_transaction(lambda tx, rows: tx.upsert(rows, on="email")),
}


# lancedb #3377, #2463; lance #4585, #8949: both insert, silently.
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("other", ["upsert", "on a unique", "transaction", "plan"])
def test_a_new_key_that_is_raced_for_is_inserted_once(path: str, other: str) -> None:
    col = profiles()
    writes = [PATHS[path], PATHS[other]] * 2
    for turn in range(10):
        row = {"id": f"u{turn}", "email": f"{turn}@x.org", "phone": str(turn)}
        start = threading.Barrier(len(writes))
        inserted: list[int] = []
        odd: list[Exception] = []

        def race(
            write: Any,
            row: dict[str, Any] = row,
            start: Any = start,
            inserted: list[int] = inserted,
            odd: list[Exception] = odd,
        ) -> None:
            start.wait()
            try:
                result = write(col, [dict(row)])
            except upvec.ConflictError:
                return  # it came too late, and was told so
            except Exception as error:  # noqa: BLE001
                odd.append(error)
                return
            # Rows that are folded into one new row share its version.
            new = result.status == Outcome.INSERTED
            inserted.extend(np.unique(result.version[new]).tolist())

        threads = [threading.Thread(target=race, args=(write,)) for write in writes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not odd, odd
        assert len(inserted) == 1, (turn, inserted)
        assert col.count(upvec.col("email") == f"{turn}@x.org") == 1
        if "sync" not in path:  # which takes away the others
            assert len(col) == turn + 1


# The same, where the racers agree on the email only: one of them is the person.
@pytest.mark.parametrize("path", ["upsert", "insert", "transaction", "plan", "fold"])
def test_a_new_unique_value_that_is_raced_for_has_one_owner(path: str) -> None:
    col = profiles()
    for turn in range(10):
        start = threading.Barrier(4)
        refused: list[str] = []

        def race(number: int, turn: int = turn, start: Any = start, refused: Any = refused) -> None:
            row = {"id": f"{turn}-{number}", "email": f"{turn}@x.org"}
            start.wait()
            try:
                PATHS[path](col, [row])
            except upvec.ConflictError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 3
        assert len(col) == turn + 1


# lancedb #3515, #3177; lance #7596: with a scalar index on the key, silently nothing is updated.
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("unique", [False, True])
def test_an_index_on_the_key_changes_no_answer(index: bool, unique: bool) -> None:
    schema = Schema(
        Field("id", "int64", primary=True, index=index),
        Field("code", "string", index=index),
        Field("n", "int64", default=0, index=index),
        unique=[Unique("code")] if unique else [],
    )
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": at, "code": f"c{at}"} for at in range(5_000)])
    assert (
        col.upsert([{"id": at, "code": f"c{at}", "n": 1} for at in range(2_500)]).counts["updated"]
        == 2_500
    )
    assert col.count("n = 1") == 2_500
    if unique:
        rows = [{"code": f"c{at}", "n": 2} for at in range(5_000)]
        assert col.upsert(rows, on="code").counts["updated"] == 5_000


# lancedb #2624: a row with a null in the column matched on vanishes.
def test_a_row_with_null_in_the_key_matched_on_is_stored() -> None:
    col = profiles()
    r = col.upsert([{"id": "a", "email": None}, {"id": "b", "email": None}], on="email")
    assert r.counts["inserted"] == 2
    r = col.upsert([{"id": "c", "email": None}], on=upvec.any_of("email", "phone"))
    assert r.counts["inserted"] == 1
    assert len(col) == 3
    with pytest.raises(upvec.InvalidRowError, match="'id'"):
        col.upsert([{"id": None, "email": "x"}], on="email")


# chroma #704, qdrant #9585, milvus #44320, lance #3661, #7907: an error, or a silent loss, or two
# rows; and only where the keys were equal, not where two keys are one row's.
def test_duplicates_in_a_batch_are_told_and_never_become_two_rows() -> None:
    col = profiles()
    twice = [{"id": "a", "bio": "1"}, {"id": "b"}, {"id": "a", "bio": "2"}]
    with pytest.raises(upvec.DuplicateKeyError, match=r"'a' in rows \[0, 2\]"):
        col.upsert(twice)
    assert len(col) == 0
    assert col.upsert(twice, duplicates="last").reason[0] == "duplicate"
    assert col["a"]["bio"] == "2"
    col.upsert([{"id": "a", "email": "a@x", "phone": "1"}])
    one_person = [{"email": "a@x", "logins": 1}, {"phone": "1", "logins": 2}]
    by = upvec.any_of("email", "phone")
    with pytest.raises(upvec.DuplicateKeyError, match=r"meant more than once"):
        col.upsert([{**row, "email": row.get("email")} for row in one_person], on=by)
    col.upsert(
        [{**row, "email": row.get("email", "a@x")} for row in one_person], on=by, duplicates="fold"
    )
    assert col["a"]["logins"] == 3


# qdrant #9371, #4626; milvus #15437: an error, yet part of the batch was applied.
@pytest.mark.parametrize(
    "bad",
    [
        {"id": "z", "emb": [1, 2, 3]},
        {"id": "z", "emb": [1, 2, 3, float("nan")]},
        {"id": "z", "logins": "many"},
        {"id": "z", "what": 1},
        {"id": "z", "email": "taken@x"},
        {"id": "z", "bio": None},
        {"bio": "no key"},
    ],
)
def test_a_batch_that_is_refused_changed_nothing(tmp_path: Path, bad: dict[str, Any]) -> None:
    good = [{"id": f"u{at}", "emb": [at, 1, 1, 1]} for at in range(500)]
    with profiles(tmp_path / "c") as col:
        col.upsert([{"id": "t", "email": "taken@x"}])
        digest = col.digest()
        for place in (0, 250, 500):
            with pytest.raises(upvec.UpvecError):
                col.upsert([*good[:place], bad, *good[place:]])
            assert (col.digest(), len(col), col.seq) == (digest, 1, 1)
    with upvec.open(tmp_path / "c") as col:
        assert col.digest() == digest


# qdrant #2749, qdrant-client #146; milvus #49980; weaviate #11544: lost updates.
def test_no_update_is_lost_between_writers() -> None:
    col = profiles()
    col.upsert([{"id": "a", "bio": "0"}])

    def add() -> None:
        for _ in range(50):
            col.upsert([{"id": "a", "logins": 1}])

    def count() -> None:  # read, change, write, and again if somebody was faster
        done = 0
        while done < 50:
            seen = col.get(["a"])
            row = {"id": "a", "bio": str(int(seen["bio"][0]) + 1)}
            try:
                col.upsert([row], if_version={"a": int(seen.version[0])})
                done += 1
            except upvec.ConflictError:
                pass

    threads = [threading.Thread(target=work) for work in (add, add, count, count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (col["a"]["logins"], col["a"]["bio"]) == (100, "100")


# weaviate #2500: no way to tell how many were inserted, and how many updated.
def test_every_row_says_what_became_of_it() -> None:
    col = profiles()
    col.upsert([{"id": "a", "bio": "x"}, {"id": "b"}])
    r = col.upsert([{"id": "a", "bio": "x"}, {"id": "b", "bio": "y"}, {"id": "c"}])
    assert [Outcome(s).name for s in r.status.tolist()] == ["UNCHANGED", "UPDATED", "INSERTED"]
    assert [r.changed[at] for at in range(2)] == [(), ("bio",)]
    assert (r.counts["inserted"], r.counts["updated"], r.counts["unchanged"]) == (1, 1, 1)


# pgvector #875, chroma #4631, milvus #52063: a change of metadata rewrites or indexes the vector.
def test_a_change_of_metadata_leaves_the_graph_alone() -> None:
    sample = load_sample()
    schema = Schema(Field("id", "int64", primary=True), Field("n", "int64"), Vector("emb", 384))
    col = upvec.open(":memory:", schema)
    col.upsert({"id": np.arange(1_000), "n": np.zeros(1_000, np.int64), "emb": sample.v1[:1_000]})
    index = col._engine.indexes["emb"]
    digest, stats = index.digest(), index.stats()
    col.upsert({"id": np.arange(1_000), "n": np.ones(1_000, np.int64)})
    # Also where the same vector comes along.
    col.upsert({"id": np.arange(1_000), "n": np.ones(1_000, np.int64), "emb": sample.v1[:1_000]})
    assert index.digest() == digest
    assert {k: v for k, v in index.stats().items() if stats[k] != v} == {}


# milvus #53157: the upsert changed the row's id.
def test_an_upsert_keeps_the_primary_key_of_the_row_that_it_matches() -> None:
    col = profiles()
    col.upsert([{"id": "a", "email": "a@x"}])
    r = col.upsert([{"email": "a@x", "bio": "new"}], on="email", returning="new")
    assert (r.key.tolist(), r.new["id"].tolist()) == (["a"], ["a"])
    with pytest.raises(upvec.ConflictError, match="primary key cannot change"):
        col.upsert([{"id": "b", "email": "a@x"}], on="email")
    assert col["a"]["bio"] == "new"
    assert len(col) == 1


# dynamiq #829, chroma #7031, weaviate #1530: does it merge, or replace?
def test_what_is_absent_is_kept_and_replaced_only_if_asked_for() -> None:
    col = profiles()
    col.upsert([{"id": "a", "bio": "x", "email": "a@x", "emb": [1, 0, 0, 0]}])
    col.upsert([{"id": "a", "email": None}])
    assert (col["a"]["bio"], col["a"]["email"]) == ("x", None)
    assert col["a"]["emb"].tolist() == [1, 0, 0, 0]
    col.upsert([{"id": "a"}], policy="replace")
    assert (col["a"]["bio"], col["a"]["emb"]) == ("", None)


# lance #4845, #2022, #4281: fields cannot be updated each in its own way.
def test_each_field_of_one_call_is_updated_in_its_own_way() -> None:
    col = profiles()
    col.upsert([{"id": "a", "bio": "first", "logins": 2, "phone": "1"}])
    policy = upvec.Policy(
        merge={"bio": "keep", "phone": upvec.max_()}, only=["bio", "phone", "logins"]
    )
    col.upsert(
        [{"id": "a", "bio": "second", "logins": 3, "phone": "0", "email": "a@x"}], policy=policy
    )
    row = col["a"]
    assert (row["bio"], row["logins"], row["phone"], row["email"]) == ("first", 5, "1", None)


# lance #1983: memory grows as long as the merging goes on.
def test_memory_does_not_grow_with_the_number_of_upserts() -> None:
    col = profiles()
    rng = np.random.default_rng(0)
    keys = [f"u{at}" for at in range(300)]
    held = []
    for _ in range(40):
        vectors = rng.standard_normal((300, 4)).astype(np.float32)
        col.upsert({"id": keys, "emb": vectors, "logins": np.ones(300, np.int64)})
        stats = col.stats()
        index = sum(v for n, v in stats["indexes"]["emb"].items() if n.endswith("_bytes"))
        held.append(sum(stats["column_bytes"].values()) + sum(stats["key_bytes"].values()) + index)
    # Lists of in-links keep places of every size that was ever wanted: see test_snapshot.py.
    assert held[-1] <= 1.05 * held[4]
    assert col.stats()["free_rids"] == 0


# pgvector #244, #763; hnswlib #487, #541: updates ruin the graph, and a label comes twice.
def test_a_graph_that_was_updated_finds_as_well_as_a_new_one() -> None:
    sample = load_sample()
    schema = Schema(Field("id", "int64", primary=True), Vector("emb", 384, metric="cosine"))
    fresh, updated = upvec.open(":memory:", schema), upvec.open(":memory:", schema)
    ids, count = np.arange(1_800), 1_800
    fresh.upsert({"id": ids, "emb": sample.v2[:count]})
    updated.upsert({"id": ids, "emb": sample.v1[:count]})
    for vectors in (sample.v2, sample.v1, sample.v2):
        for start in range(0, count, 300):
            rows = slice(start, start + 300)
            updated.delete(ids[rows][::7])
            updated.upsert({"id": ids[rows], "emb": vectors[rows]})
    recalls = []
    for col in (fresh, updated):
        found = col.search(sample.v1[count:], k=10, ef=24)["id"].reshape(-1, 10)
        exact = col.search(sample.v1[count:], k=10, exact=True)["id"].reshape(-1, 10)
        assert all(len(set(row)) == 10 for row in found.tolist())
        same = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
        recalls.append(sum(same) / exact.size)
    assert recalls[1] >= recalls[0] - 0.01, recalls
    report = updated._engine.indexes["emb"].check()
    assert report["reachable"] == report["live"] == count
    assert not report["dangling"] + report["doubled"] + report["in_list_errors"]


# weaviate #3950, llama_index #262: what did not change is embedded again; typesense #2794: a vector
# that was supplied is ignored.
def test_only_what_changed_is_embedded_again_and_a_vector_that_comes_along_is_used() -> None:
    col = profiles()
    col.upsert([{"id": k, "bio": k, "emb": [1, 0, 0, 0]} for k in "abc"])
    rows = [
        {"id": "a", "bio": "a", "logins": 1},
        {"id": "b", "bio": "new"},
        {"id": "c", "bio": "new", "emb": [0, 0, 0, 1]},
        {"id": "d", "bio": "d"},
    ]
    plan = col.upsert(rows, dry_run=True)
    assert plan.stale("emb")["id"].tolist() == ["b", "d"]
    plan.commit(emb=[[0, 1, 0, 0], [0, 0, 1, 0]])
    assert [col[k]["emb"].argmax() for k in "abcd"] == [0, 1, 3, 2]
    assert len(col.upsert(rows, dry_run=True).stale("emb")) == 0


# langchain #39937, #40227; llama_index #22639, #22640, #22133: hashes kept elsewhere drift from the
# rows, which are then skipped or lost for good.
def test_hash_row_and_vector_are_committed_together_or_not_at_all(tmp_path: Path) -> None:
    schema = Schema(
        Field("id", "string", primary=True),
        Field("hash", "string"),
        Field("text", "string"),
        Vector("emb", 4, source="text"),
    )
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": "a", "hash": "h1", "text": "one", "emb": [1, 0, 0, 0]}])
        with pytest.raises(upvec.DimensionError):
            col.upsert([{"id": "a", "hash": "h2", "text": "two", "emb": [1, 0]}])
        with contextlib.suppress(ZeroDivisionError), col.transaction() as tx:
            tx.upsert([{"id": "a", "hash": "h2", "text": "two"}])
            raise ZeroDivisionError  # the embedder fails
        plan = col.upsert([{"id": "a", "hash": "h2", "text": "two"}], dry_run=True)
        with pytest.raises(upvec.InvalidRowError):
            plan.commit(emb=[[float("nan")] * 4])
        assert (col["a"]["hash"], col["a"]["text"]) == ("h1", "one")
        r = col.upsert([{"id": "a", "hash": "h1", "text": "one"}], where="new.hash != old.hash")
        assert r.counts["skipped"] == 1
    with upvec.open(tmp_path / "c") as col:
        row = col["a"]
        assert (row["hash"], row["text"], row["emb"].tolist()) == ("h1", "one", [1, 0, 0, 0])


# fr0ster/llm-agent #18: ids are made by hand of what makes a record unique.
def test_what_makes_a_record_unique_is_matched_on_as_it_is() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("source", "string"),
        Field("page", "int64"),
        Field("text", "string"),
        unique=[Unique("source", "page", name="place")],
    )
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": 1, "source": "a", "page": 12}, {"id": 2, "source": "a1", "page": 2}][:0])
    rows = [
        {"id": 1, "source": "a", "page": 12, "text": "x"},
        {"id": 2, "source": "a1", "page": 2, "text": "y"},  # joined, both would be "a12"
    ]
    col.upsert(rows)
    r = col.upsert([{"source": "a1", "page": 2, "text": "z"}], on="place")
    assert r.key.tolist() == [2]
    assert col.get([("a", 12), ("a1", 2)], on="place")["text"].tolist() == ["x", "z"]


# qdrant #1327, #8236; chroma #2139: rows that should expire.
def test_expired_rows_are_never_returned_and_give_their_keys_back() -> None:
    schema = Schema(
        Field("id", "string", primary=True),
        Field("email", "string", nullable=True),
        Field("seen_at", "timestamp"),
        Vector("emb", 4),
        unique=[Unique("email")],
        ttl=("seen_at", "1h"),
    )
    col = upvec.open(":memory:", schema)
    now = np.datetime64("now", "us")
    old = now - np.timedelta64(2, "h")
    col.upsert(
        [
            {"id": "old", "email": "x", "seen_at": old, "emb": [1, 0, 0, 0]},
            {"id": "new", "email": "y", "seen_at": now, "emb": [0, 1, 0, 0]},
        ]
    )
    assert col.search([1, 0, 0, 0], k=2)["id"].tolist() == ["new"]
    assert not col.get(["old"]).found[0]
    assert (len(col), "old" in col) == (1, False)
    col.upsert([{"id": "z", "email": "x", "seen_at": now, "emb": [0, 0, 1, 0]}])
    assert col.get(["x"], on="email")["id"].tolist() == ["z"]
