"""The collection as a whole: reads, deletes, restarts, readers beside writers, threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import upvec
from upvec import Field, Outcome, Schema, Unique, Vector

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("age", "int64", nullable=True, index=True),
    Field("mail", "string", nullable=True),
    Vector("emb", 4, metric="l2", nullable=True),
    Vector("face", 2, metric="cosine", nullable=True),
    unique=[Unique("mail")],
)


def people(count: int, start: int = 0) -> dict[str, object]:
    numbers = np.arange(start, start + count)
    rng = np.random.default_rng(start)
    return {
        "id": [f"p{i}" for i in numbers],
        "age": numbers % 50,
        "mail": [f"{i}@x" for i in numbers],
        "emb": rng.standard_normal((count, 4)).astype(np.float32),
        "face": rng.standard_normal((count, 2)),
    }


@pytest.fixture(params=["memory", "disk"])
def col(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[upvec.Collection]:
    path = ":memory:" if request.param == "memory" else tmp_path / "c"
    with upvec.open(path, SCHEMA) as collection:
        collection.upsert(people(300))
        yield collection


def test_search_agrees_with_brute_force(col: upvec.Collection) -> None:
    data = people(300)
    queries = np.random.default_rng(7).standard_normal((5, 4)).astype(np.float32)
    truth = ((queries[:, None] - data["emb"][None]) ** 2).sum(2)
    hits = col.search(queries, k=4, field="emb", exact=True)
    for query in range(5):
        nearest = np.argsort(truth[query], kind="stable")[:4]
        assert hits[query]["id"].tolist() == [f"p{i}" for i in nearest]
        assert np.allclose(hits[query]["distance"], truth[query][nearest], rtol=1e-4)
    wide = col.search(queries, k=4, field="emb", ef=300)
    assert wide["id"].tolist() == hits["id"].tolist()


def test_search_needs_a_field_if_there_are_several(col: upvec.Collection) -> None:
    with pytest.raises(upvec.SchemaError, match="got no field=; the vector fields are: emb, face"):
        col.search([1, 2, 3, 4])
    with pytest.raises(upvec.SchemaError, match="field='age'"):
        col.search([1, 2, 3, 4], field="age")
    hits = col.search([2, 0], field="face", k=1)
    best = col.get(hits["id"])["face"][0]
    assert np.isclose(np.linalg.norm(best), 1)
    assert np.isclose(hits["distance"][0], 1 - best[0], atol=1e-6)


def test_where_limits_search_count_and_scan(col: upvec.Collection) -> None:
    where = (upvec.col("age") >= 45) & ~upvec.col("id").isin(["p45"])
    wanted = {f"p{i}" for i in range(300) if i % 50 >= 45 and i != 45}
    assert col.count(where) == len(wanted)
    assert {key for rows in col.scan(where=where, batch_rows=7) for key in rows["id"]} == wanted
    hits = col.search(np.zeros(4), k=300, field="emb", where=where)
    assert set(hits["id"]) == wanted
    assert (np.diff(hits["distance"]) >= 0).all()
    assert len(col.search(np.zeros(4), field="emb", where="age < 0")) == 0
    assert col.count("emb IS NULL") == 0


def test_radius_bounds_the_distance_and_k_the_number(col: upvec.Collection) -> None:
    everything = col.search(np.zeros(4), k=300, field="emb", exact=True)["distance"]
    radius = float(everything[20]) + 1e-6
    for exact in (False, True):
        hits = col.search(np.zeros(4), k=None, radius=radius, field="emb", exact=exact, ef=300)
        assert len(hits) == 21
        assert hits["distance"].max() <= radius
        assert len(col.search(np.zeros(4), k=5, radius=radius, field="emb", exact=exact)) == 5
    assert len(col.search(np.zeros((2, 4)), k=None, radius=-1.0, field="emb")) == 0


def test_an_empty_collection_answers_everything() -> None:
    col = upvec.open(":memory:", SCHEMA)
    assert (len(col), col.count("age > 1"), list(col.scan()), "a" in col) == (0, 0, [], False)
    assert len(col.search([[1, 2, 3, 4]], field="emb")) == 0
    assert len(col.search(np.zeros(4), field="emb", exact=True)) == 0
    assert len(col.search(np.empty((0, 4)), field="emb")) == 0
    assert col.get(["a"]).found.tolist() == [False]
    assert len(col.get([])) == 0
    assert col.upsert([]).counts["inserted"] == 0
    assert len(col.delete(["a"])) == 1


def test_get_reads_by_any_key_one_or_many(col: upvec.Collection) -> None:
    assert col.get("p7")["age"].tolist() == [7]
    assert col.get(np.array(["p7", "zz"])).found.tolist() == [True, False]
    assert col.get(["3@x", None, "4@x"], on="mail")["id"].tolist() == ["p3", None, "p4"]
    assert col.get("p7", fields=["age", "id"]).fields == ("age", "id")
    with pytest.raises(upvec.InvalidRowError):
        col.get([7])
    with pytest.raises(upvec.InvalidRowError, match="key 1: got null"):
        col.get(["p7", None])


def test_delete_reports_each_key(col: upvec.Collection) -> None:
    result = col.delete(["p1", "zz", "p2", "p1"])
    assert [Outcome(s).name for s in result.status] == ["DELETED", "SKIPPED", "DELETED", "SKIPPED"]
    assert result.reason.tolist() == [None, "missing", None, "duplicate"]
    assert result.version.tolist() == [1, 0, 1, 1]
    assert result.key.tolist() == ["p1", "zz", "p2", "p1"]
    assert (len(col), "p1" in col, result.seq) == (298, False, 2)
    assert "p1" not in col.search(people(300)["emb"][1], k=300, field="emb")["id"]
    assert col.delete(["zz"]).seq == 2


def test_delete_by_condition_and_by_both(col: upvec.Collection) -> None:
    assert sorted(col.delete(where="age = 3").key) == sorted(f"p{i}" for i in range(3, 300, 50))
    result = col.delete(["p4", "p5"], where="age = 4")
    assert result.reason.tolist() == [None, "where"]
    assert ("p4" in col, "p5" in col) == (False, True)


def test_freed_places_are_used_again_without_mixing_rows_up(col: upvec.Collection) -> None:
    size = col._head.size
    col.delete([f"p{i}" for i in range(0, 300, 3)])
    col.upsert(people(100, start=1000))
    assert col._head.size == size
    assert col.get("p1005")["age"].tolist() == [1005 % 50]
    assert col.search(people(100, 1000)["emb"][5], k=1, field="emb")["id"].tolist() == ["p1005"]
    assert not col.get([f"p{i}" for i in range(0, 300, 3)]).found.any()
    assert not col.get([f"{i}@x" for i in range(0, 300, 3)], on="mail").found.any()


def test_a_scan_sees_the_moment_it_was_begun(col: upvec.Collection) -> None:
    scan = col.scan(batch_rows=100)
    first = next(scan)
    col.delete(where="age >= 0")
    col.upsert([{"id": "new"}])
    rest = list(scan)
    assert len(first) + sum(map(len, rest)) == 300
    assert np.isfinite(rest[-1]["emb"]).all()
    assert [row["id"] for rows in col.scan() for row in rows] == ["new"]


def test_versions_are_the_commits_that_wrote_the_rows(col: upvec.Collection) -> None:
    col.upsert([{"id": "p1", "age": 99}])
    col.upsert([{"id": "p1", "age": 99}, {"id": "p2", "age": 99}])
    assert col.get(["p0", "p1", "p2"]).version.tolist() == [1, 2, 3]
    assert col.seq == 3


def test_reopening_gives_the_same_collection(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for start in range(0, 600, 100):
            col.upsert(people(100, start))
            col.delete([f"p{start}", f"p{start + 7}"])
            if start == 200:
                col.checkpoint()
        col.upsert({"id": ["p1", "p2"], "emb": [None, [0, 0, 0, 0]], "mail": ["2@x", "1@x"]})
        digest, seq, stats = col.digest(), col.seq, col.stats()
    assert stats["checkpoint_seq"] == 6
    with upvec.open(tmp_path / "c") as col:
        assert (col.digest(), col.seq, col.schema) == (digest, seq, SCHEMA)
        assert col.get(["1@x", "2@x"], on="mail")["id"].tolist() == ["p2", "p1"]
        assert col.search(np.zeros(4), k=1, field="emb")["id"].tolist() == ["p2"]
        col.checkpoint()
        col.checkpoint()
    with upvec.open(tmp_path / "c", read_only=True) as col:
        assert (col.digest(), col.read_only) == (digest, True)
        assert col.path == str(tmp_path / "c")


def test_what_deleted_rows_held_is_not_in_a_checkpoint(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert([{"id": "secret-key", "mail": "secret-mail"}, {"id": "b"}])
        col.delete(["secret-key"])
        col.checkpoint()
    for file in (tmp_path / "c").glob("checkpoint-*/*"):
        assert b"secret" not in file.read_bytes()


def test_readers_beside_a_writer_see_the_last_state(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert(people(10))
        with upvec.open(tmp_path / "c", read_only=True) as reader:
            col.upsert(people(10, 100))
            col.checkpoint()
            assert (len(reader), len(col)) == (10, 20)
            assert len(reader.search(np.zeros(4), k=50, field="emb")) == 10
        with upvec.open(tmp_path / "c", read_only=True) as reader:
            assert reader.digest() == col.digest()


def test_a_forgotten_handle_releases_its_lock(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA)
    col.upsert(people(3))
    del col
    gc.collect()
    with upvec.open(tmp_path / "c") as again:
        assert len(again) == 3


@pytest.mark.parametrize("durability", ["commit", "interval", "os"])
def test_every_durability_keeps_what_was_closed(tmp_path: Path, durability: str) -> None:
    with upvec.open(tmp_path / "c", SCHEMA, durability=durability) as col:
        col.upsert(people(5))
    with upvec.open(tmp_path / "c") as col:
        assert len(col) == 5


def test_threads_that_write_one_new_key_insert_it_once(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        outcomes: list[int] = []

        def write(number: int) -> None:
            for key in range(10):
                result = col.upsert([{"id": f"k{key}", "age": number}])
                outcomes.append(int(result.status[0]))
                assert f"k{key}" in col  # what was acknowledged can be read

        threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count(Outcome.INSERTED) == 10
        assert len(outcomes) == 60
        digest = col.digest()
    with upvec.open(tmp_path / "c") as col:
        assert col.digest() == digest


def test_readers_see_whole_batches_while_a_writer_works(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(20)]
    with upvec.open(tmp_path / "c", SCHEMA, durability="os") as col:
        col.upsert({"id": keys, "age": [0] * 20, "emb": np.zeros((20, 4))})
        done = threading.Event()
        torn: list[object] = []

        def read() -> None:
            while not done.is_set():
                rows = col.get(keys)
                ages = set(rows["age"].tolist())
                if len(ages) != 1 or not (rows["emb"] == rows["age"][:, None]).all():
                    torn.append((ages, rows["emb"][:, 0]))
                mails = col.get([f"m{i}" for i in range(20)], on="mail")
                if len({*mails["id"][mails.found].tolist()}) not in {0, 20}:
                    torn.append(mails["id"])
                hits = col.search(np.zeros(4), k=50, field="emb", fields=["age"])
                if len(hits) != 20 or len(set(hits["age"].tolist())) != 1:
                    torn.append(hits)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for turn in range(1, 60):
                shift = [f"m{(i + turn) % 20}" for i in range(20)]
                col.upsert(
                    {"id": keys, "age": [turn] * 20, "emb": np.full((20, 4), turn), "mail": shift}
                )
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert not torn


def test_stats_count_rows_and_bytes(col: upvec.Collection) -> None:
    col.delete(["p1"])
    stats = col.stats()
    assert (stats["rows"], stats["seq"], stats["free_rids"]) == (299, 2, 1)
    assert set(stats["column_bytes"]) == {"id", "age", "mail"}
    assert set(stats["indexes"]) == {"emb", "face"}
    assert "299 rows" in repr(col)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for start in (0, 100, 200):
            col.upsert(people(50, start))
            if start:
                col.checkpoint()
        digest = col.digest()
    damage_newest(tmp_path / "c")
    with pytest.warns(RuntimeWarning, match="opened from an older checkpoint"):
        col = upvec.open(tmp_path / "c")
    with col:
        assert col.digest() == digest


def damage_newest(path: Path) -> None:
    newest = max(path.glob("checkpoint-*")) / "field-1"
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)


def test_a_damaged_checkpoint_never_replaces_the_sound_one_before_it(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA, auto_checkpoint=False) as col:
        for start in (0, 100, 200):
            col.upsert(people(50, start))
            if start:
                col.checkpoint()
    sound = min((tmp_path / "c").glob("checkpoint-*"))
    for start in (300, 400):  # each time the newest is damaged, and another one written
        damage_newest(tmp_path / "c")
        with pytest.warns(RuntimeWarning, match="opened from an older checkpoint"):
            col = upvec.open(tmp_path / "c", auto_checkpoint=False)
        with col:
            col.upsert(people(50, start))
            col.checkpoint()
            assert col.verify().ok
            digest = col.digest()
        assert sound in (tmp_path / "c").glob("checkpoint-*")
        assert len([*(tmp_path / "c").glob("checkpoint-*")]) == 2
    with upvec.open(tmp_path / "c", auto_checkpoint=False) as col:
        assert col.digest() == digest
        col.checkpoint()
        assert not sound.exists()


def test_a_vector_that_is_too_long_for_the_index_is_refused_before_the_log(tmp_path: Path) -> None:
    schema = Schema(
        Field("id", "int64", primary=True), Vector("v", 2), Vector("w", 2, metric="cosine")
    )
    with upvec.open(tmp_path / "c", schema) as col:
        for size in (3e38, 1e18, 0.9996e18):
            with pytest.raises(upvec.InvalidRowError, match="length of at most"):
                col.upsert([{"id": 1, "v": [size, 0], "w": [1, 0]}])
        with pytest.raises(upvec.InvalidRowError, match="length of at most"):
            col.search([3e38, 0], field="v")
        col.upsert([{"id": 1, "v": [0.999e18, 0], "w": [3e38, 3e38]}])
    with upvec.open(tmp_path / "c") as col:
        assert col.search([0.999e18, 0], field="v")["id"].tolist() == [1]


@pytest.mark.parametrize(
    "field",
    [
        Field("x", "float64", check=upvec.col("x") < float("inf")),
        Field("x", "float64", default=float("nan")),
        Field("x", "string", check="[\ud800]"),
        Field("x", "timestamp", check=upvec.col("x") > np.datetime64("20200-01-01", "us")),
    ],
)
def test_a_schema_that_could_not_be_read_again_creates_nothing(
    field: Field, tmp_path: Path
) -> None:
    schema = Schema(Field("id", "int64", primary=True), field)
    with pytest.raises(upvec.SchemaError, match="cannot be stored"):
        upvec.open(tmp_path / "c", schema)
    assert not (tmp_path / "c").exists()


def test_a_link_to_a_collection_opens_it_without_a_schema(tmp_path: Path) -> None:
    upvec.open(tmp_path / "c", SCHEMA).close()
    (tmp_path / "link").symlink_to(tmp_path / "c")
    with upvec.open(tmp_path / "link") as col:
        assert col.schema == SCHEMA


def test_a_commit_that_meets_close_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA)
    acknowledge = col._acknowledge

    def close_first(state: object) -> None:
        col.close()
        acknowledge(state)

    monkeypatch.setattr(col, "_acknowledge", close_first)
    assert col.upsert([{"id": "a"}]).counts["inserted"] == 1
    with upvec.open(tmp_path / "c") as again:
        assert len(again) == 1


def test_a_relative_path_holds_when_the_process_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with upvec.open(b"c/", SCHEMA) as col:
        col.upsert([{"id": "a"}])
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        col.checkpoint()
        assert col.path == str(tmp_path / "c")


def test_a_schema_of_another_type_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(upvec.SchemaError, match="got dict, wanted a Schema"):
        upvec.open(tmp_path / "c", {"id": "int64"})
    assert not (tmp_path / "c").exists()


def test_if_version_names_strangers_of_any_type(col: upvec.Collection) -> None:
    with pytest.raises(ValueError, match=r"not in the batch: .*'q'"):
        col.upsert([{"id": "p1", "age": 1}], if_version={"q": 1, 5: 1})


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA)
    wake, waker = os.pipe()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(waker)
        os.write(tell, b"!")
        os.read(wake, 1)  # until the parent is done
        os._exit(0)
    try:
        os.read(ready, 1)
        with pytest.raises(upvec.LockedError):
            upvec.open(tmp_path / "c")
        col.close()
        upvec.open(tmp_path / "c").close()
    finally:
        os.close(waker)
        os.waitpid(child, 0)
        for end in (wake, ready, tell):
            os.close(end)
