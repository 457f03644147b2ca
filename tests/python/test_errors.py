"""Every error of the tree: what provokes it, the fields it carries, and that nothing changed."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import upvec
from upvec import Field, Schema, Unique, Vector, apply, errors
from upvec.collection import open_directory
from upvec.files import Files

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("email", "string", nullable=True),
    Field("age", "int64", nullable=True, check="age >= 0"),
    Vector("emb", 2, metric="cosine", nullable=True),
    unique=[Unique("email")],
)
ROWS = [{"id": "a", "email": "a@x", "age": 1, "emb": [1, 0]}, {"id": "b", "email": "b@x"}]


@pytest.fixture
def col(tmp_path: Path) -> Iterator[upvec.Collection]:
    with upvec.open(tmp_path / "c", SCHEMA) as collection:
        collection.upsert(ROWS)
        yield collection


@pytest.fixture
def unchanged(col: upvec.Collection) -> Iterator[None]:
    """What the test does to the collection must not change it, on the disk neither."""
    before, log_bytes = col.digest(), col.stats()["log_bytes"]
    yield
    assert col.digest() == before
    assert (col.seq, col.stats()["log_bytes"]) == (1, log_bytes)
    assert col.search([1, 0])["id"].tolist() == ["a"]


def test_every_error_is_an_upvec_error_and_survives_pickling() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, upvec.UpvecError)
        error = pickle.loads(pickle.dumps(kind("what happened")))
        assert str(error) == "what happened"


def test_the_builtin_families_are_kept() -> None:
    values = ["Schema", "Dimension", "InvalidRow", "DuplicateKey", "Expression", "Limit"]
    assert all(issubclass(getattr(errors, name + "Error"), ValueError) for name in values)
    assert issubclass(errors.KeyMissingError, KeyError)


@pytest.mark.usefixtures("unchanged")
class TestNothingChanges:
    def test_dimension_error(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.DimensionError, match="dimension 3, wanted 2") as caught:
            col.upsert([{"id": "c", "emb": [1, 2]}, {"id": "d", "emb": [1, 2, 3]}])
        error = caught.value
        assert (error.got, error.want, error.field, error.rows) == (3, 2, "emb", (1,))
        with pytest.raises(errors.DimensionError) as caught:
            col.search([1.0, 2.0, 3.0])
        assert (caught.value.got, caught.value.want) == (3, 2)

    def test_invalid_row_error(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.InvalidRowError, match="row 1, field 'age': got 'x'") as caught:
            col.upsert([{"id": "c", "age": 1}, {"id": "d", "age": "x"}])
        assert (caught.value.rows, caught.value.field) == ((1,), "age")
        assert (caught.value.got, caught.value.want) == ("x", "int64 or null")

    @pytest.mark.parametrize(
        "row",
        [
            {"id": None},
            {"id": 1},
            {"age": 1},
            {"id": "c", "age": -1},
            {"id": "c", "age": True},
            {"id": "c", "age": 1.5},
            {"id": "c", "age": 2**63},
            {"id": "c", "unknown": 1},
            {"id": "c", "emb": [0, 0]},
            {"id": "c", "emb": [float("nan"), 0]},
            {"id": "c", "emb": [float("inf"), 0]},
            {"id": "c", "emb": [1e39, 0]},
            {"id": "c", "emb": ["1", "2"]},
            {"id": "c", "emb": 5},
        ],
        ids=str,
    )
    def test_one_bad_row_spoils_the_batch(self, col: upvec.Collection, row: dict) -> None:
        with pytest.raises(errors.InvalidRowError) as caught:
            col.upsert([{"id": "new", "age": 3}, row])
        assert caught.value.rows == (1,)

    def test_duplicate_key_error(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.DuplicateKeyError) as caught:
            col.upsert([{"id": "c"}, {"id": "d"}, {"id": "c"}, {"id": "a"}, {"id": "a"}])
        assert (caught.value.keys, caught.value.rows) == (("c", "a"), (0, 2, 3, 4))

    def test_conflict_error_of_a_unique_key(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.ConflictError, match=r"email 'a@x' is held by .* 'a'") as caught:
            col.upsert([{"id": "c", "email": "c@x"}, {"id": "b", "email": "a@x"}])
        result = caught.value.result
        assert result.reason.tolist() == [None, "unique"]
        assert result.status.tolist() == [upvec.Outcome.inserted, upvec.Outcome.rejected]

    def test_conflict_error_of_a_strict_insert_and_update(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.ConflictError) as caught:
            col.insert([{"id": "c"}, {"id": "a"}])
        assert caught.value.result.reason.tolist() == [None, "exists"]
        with pytest.raises(errors.ConflictError) as caught:
            col.update([{"id": "a", "age": 7}, {"id": "c"}])
        assert caught.value.result.reason.tolist() == [None, "missing"]
        assert caught.value.result.counts["conflict"] == 1

    def test_conflict_error_of_a_changed_primary_key(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.ConflictError, match="primary key cannot change") as caught:
            col.upsert([{"id": "z", "email": "a@x"}], on="email")
        assert caught.value.result.reason.tolist() == ["primary"]

    def test_conflict_error_of_an_unexpected_version(self, col: upvec.Collection) -> None:
        rows = [{"id": "a", "age": 7}, {"id": "b"}, {"id": "c"}]
        with pytest.raises(errors.ConflictError, match="key 'a' has version 1, wanted 0") as caught:
            col.upsert(rows, if_version={"a": 0, "b": 1, "c": 5})
        assert caught.value.result.reason.tolist() == ["version", None, "version"]
        with pytest.raises(ValueError, match="not in the batch"):
            col.upsert(rows, if_version={"zz": 0})

    def test_key_missing_error(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.KeyMissingError, match="no row has the key 'zz'") as caught:
            col["zz"]
        assert caught.value.keys == ("zz",)

    @pytest.mark.parametrize("where", ["nope = 1", "age = 'x'", "age >", "emb = 1", "age"])
    def test_expression_error(self, col: upvec.Collection, where: str) -> None:
        for call in (
            lambda: col.delete(where=where),
            lambda: col.count(where),
            lambda: col.scan(where=where),
            lambda: col.search([1, 0], where=where),
        ):
            with pytest.raises(errors.ExpressionError) as caught:
                call()
            assert caught.value.expression == where

    def test_schema_error_of_an_unknown_key(self, col: upvec.Collection) -> None:
        for call in (lambda: col.upsert([], on="age"), lambda: col.get("a", on="age")):
            with pytest.raises(errors.SchemaError, match="names no key; keys: id, email"):
                call()

    @pytest.mark.parametrize(
        "argument",
        [
            {"progress": True},
            {"batch_rows": 10},
        ],
        ids=lambda argument: next(iter(argument)),
    )
    def test_not_supported_error_names_the_argument(
        self, col: upvec.Collection, argument: dict
    ) -> None:
        with pytest.raises(errors.NotSupportedError) as caught:
            col.upsert([{"id": "c"}], **argument)
        assert caught.value.argument == next(iter(argument))

    def test_limit_error(self, col: upvec.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(apply, "MAX_ROWS", 3)
        with pytest.raises(errors.LimitError) as caught:
            col.upsert([{"id": "c"}, {"id": "d"}])
        assert (caught.value.got, caught.value.want) == (4, 3)

    def test_read_only_error(self, col: upvec.Collection) -> None:
        with upvec.open(col.path, read_only=True) as reader:
            for call in (
                lambda: reader.upsert([{"id": "c"}]),
                lambda: reader.insert([{"id": "c"}]),
                lambda: reader.update([{"id": "a"}]),
                lambda: reader.delete(["a"]),
                reader.checkpoint,
            ):
                with pytest.raises(errors.ReadOnlyError) as caught:
                    call()
                assert caught.value.path == col.path
            assert reader["a"]["age"] == 1

    def test_locked_error(self, col: upvec.Collection) -> None:
        with pytest.raises(errors.LockedError) as caught:
            upvec.open(col.path)
        assert caught.value.path == col.path

    def test_bad_arguments_are_value_errors(self, col: upvec.Collection) -> None:
        for call in (
            lambda: col.upsert([], policy="sometimes"),
            lambda: col.upsert([], policy=upvec.Policy(only=["nope"])),
            lambda: col.upsert([], duplicates="fold it"),
            lambda: col.upsert([], returning="newest"),
            col.delete,
            lambda: col.search([1, 0], k=0),
            lambda: col.search([1, 0], k=None),
            lambda: col.search([1, 0], ef=True),
            lambda: col.search([1, 0], fields=["nope"]),
            lambda: col.get("a", fields=["nope"]),
            lambda: col.scan(batch_rows=0),
            lambda: upvec.Policy("never"),
            lambda: upvec.Policy(absent="gone"),
            lambda: upvec.open(":memory:", SCHEMA, durability="perhaps"),
        ):
            with pytest.raises(ValueError, match=r"want|unknown"):
                call()


def test_closed_error(col: upvec.Collection) -> None:
    scan = col.scan
    col.close()
    col.close()
    for call in (
        lambda: col.upsert([{"id": "c"}]),
        lambda: col.get("a"),
        lambda: col.search([1, 0]),
        lambda: len(col),
        lambda: "a" in col,
        scan,
        col.count,
        col.digest,
        col.stats,
        col.checkpoint,
    ):
        with pytest.raises(errors.ClosedError):
            call()
    assert "closed" in repr(col)


def test_forked_error_and_the_parent_goes_on(col: upvec.Collection) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            for call in (lambda: col.get("a"), lambda: col.upsert([{"id": "c"}])):
                with pytest.raises(errors.ForkedError) as caught:
                    call()
                assert caught.value.pid == os.getppid()
            col.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    col.upsert([{"id": "c"}])
    with pytest.raises(errors.LockedError):
        upvec.open(col.path)


def test_schema_error_when_opening(tmp_path: Path) -> None:
    with pytest.raises(errors.SchemaError, match="a schema would create one"):
        upvec.open(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    upvec.open(tmp_path / "c", SCHEMA).close()
    other = Schema(Field("id", "string", primary=True))
    with pytest.raises(errors.SchemaError, match="has another schema"):
        upvec.open(tmp_path / "c", other)
    with pytest.raises(errors.SchemaError):
        upvec.open(":memory:")


def test_read_only_wants_a_collection_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        upvec.open(tmp_path / "c", read_only=True)
    assert not (tmp_path / "c").exists()


def test_corruption_error_of_a_damaged_manifest_or_log(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for row in ROWS:
            col.upsert(row)
    for name in ("MANIFEST", "log/" + os.listdir(tmp_path / "c" / "log")[0]):
        path = tmp_path / "c" / name
        raw = path.read_bytes()
        path.write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
        for read_only in (False, True):
            with pytest.raises(errors.CorruptionError) as caught:
                upvec.open(tmp_path / "c", read_only=read_only)
            assert str(tmp_path) in str(caught.value.path)
        path.write_bytes(raw)
    with upvec.open(tmp_path / "c") as col:
        assert len(col) == 2


class FailingFiles(Files):
    """Fails a call by name while told to."""

    def __init__(self) -> None:
        self.failing = ""

    def sync_data(self, fd: int) -> None:
        if self.failing == "sync":
            raise OSError(5, "Input/output error")
        super().sync_data(fd)

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        if self.failing == "write":
            raise OSError(28, "No space left on device")
        return super().write_some(fd, data, offset)


def test_poisoned_error_when_a_sync_fails(tmp_path: Path) -> None:
    files = FailingFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(ROWS)
    files.failing = "sync"
    with pytest.raises(errors.PoisonedError) as caught:
        col.upsert([{"id": "c", "email": "c@x"}])
    assert caught.value.unknown == 2
    assert isinstance(caught.value.cause, OSError)
    files.failing = ""
    # Nobody may see what may not be stored, and nobody may build upon it.
    assert (len(col), "c" in col, col.seq) == (2, False, 1)
    with pytest.raises(errors.PoisonedError) as caught:
        col.upsert([{"id": "d"}])
    assert caught.value.unknown is None
    assert col["a"]["age"] == 1
    # Nor is a row refused for the sake of one of which that is unknown.
    with pytest.raises(errors.PoisonedError):
        col.upsert([{"id": "e", "email": "c@x"}])
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert again["a"]["age"] == 1


def test_full_disk_changes_nothing_and_is_over_when_it_is_over(tmp_path: Path) -> None:
    files = FailingFiles()
    with open_directory(str(tmp_path / "c"), SCHEMA, files) as col:
        col.upsert(ROWS)
        before = col.digest()
        files.failing = "write"
        with pytest.raises(OSError, match="No space"):
            col.upsert([{"id": "c", "emb": [1, 1]}])
        assert col.digest() == before
        files.failing = ""
        assert col.upsert([{"id": "c", "emb": [1, 1]}]).seq == 2


def test_poisoned_error_when_a_logged_commit_cannot_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert(ROWS)

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(apply.Engine, "apply", fail)
            with pytest.raises(errors.PoisonedError) as caught:
                col.upsert([{"id": "c"}])
        assert caught.value.unknown == 2
        assert isinstance(caught.value.cause, MemoryError)
        assert len(col) == 2
        with pytest.raises(errors.PoisonedError):
            col.delete(["a"])
    with upvec.open(tmp_path / "c") as col:
        assert sorted(key for rows in col.scan() for key in rows["id"]) == ["a", "b", "c"]
