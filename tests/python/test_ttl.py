"""Rows that have outlived their time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Unique, Vector, base, ttl

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("email", "string", nullable=True),
    Field("seen", "timestamp", nullable=True),
    Vector("emb", 2, nullable=True),
    unique=[Unique("email")],
    ttl=("seen", "90d"),
)
NOW = np.datetime64("now", "us")
FRESH, OLD = NOW - np.timedelta64(89, "D"), NOW - np.timedelta64(91, "D")
ROWS = [
    {"id": "fresh", "seen": FRESH, "emb": [0, 1]},
    {"id": "old", "email": "o@x", "seen": OLD, "emb": [0, 0]},
    {"id": "never", "seen": None, "emb": [0, 2]},
]


@pytest.fixture
def col(tmp_path: Path) -> upvec.Collection:
    made = upvec.open(tmp_path / "c", SCHEMA)
    made.upsert(ROWS)
    return made


def test_no_read_shows_an_expired_row(col: upvec.Collection) -> None:
    with col.snapshot() as snap, col.transaction() as tx:
        for reader in (col, snap, tx):
            assert (len(reader), reader.count("id >= ''")) == (2, 2)
            assert "old" not in reader
            assert reader.get(["old", "o@x"]).found.tolist() == [False, False]
            assert reader.get("o@x", on="email").found.tolist() == [False]
            assert next(reader.scan())["id"].tolist() == ["fresh", "never"]
            for exact in (False, True):
                found = reader.search([0, 0], k=3, exact=exact)["id"].tolist()
                assert found == ["fresh", "never"]


def test_storing_over_an_expired_row_is_an_insert(col: upvec.Collection) -> None:
    result = col.upsert([{"id": "old", "emb": [3, 3]}, {"id": "x", "email": "o@x"}])
    assert result.status.tolist() == [upvec.Outcome.INSERTED] * 2
    assert col["old"]["email"] is None
    assert col["x"]["email"] == "o@x"
    assert col.stats()["rows"] == 4  # the expired one is gone


def test_deleting_an_expired_row_finds_nothing(col: upvec.Collection) -> None:
    assert col.delete(["old"]).reason.tolist() == ["missing"]


def test_reaping_is_a_commit_that_stays(col: upvec.Collection) -> None:
    assert (col.reap(), col.reap(), col.seq, col.stats()["rows"]) == (1, 0, 2, 2)
    digest, path = col.digest(), col.path
    col.close()
    with upvec.open(path) as again:
        assert again.digest() == digest


def test_a_row_expires_at_its_moment(
    col: upvec.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upvec import apply, reader

    end = FRESH + np.timedelta64(90, "D")
    for moment, there in ((end - np.timedelta64(1, "us"), True), (end, False)):
        for module in (ttl, reader, apply):
            monkeypatch.setattr(module, "now_us", lambda moment=moment: moment)
        assert ("fresh" in col) is there
        assert col.count() == 1 + there
    assert base.is_expired is ttl.is_expired
