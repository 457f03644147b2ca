"""sqlite-vec: a vec0 table, which measures every row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["SqliteStore"]


class SqliteStore(Store):
    """A virtual table with metadata columns, and an index of its row ids by key."""

    settings = (
        "vec0 with metadata columns; journal_mode WAL, synchronous FULL; a transaction a call"
    )
    _db: Any

    def create(self) -> None:
        self._connect()
        self._db.execute(
            f"create virtual table c using vec0(id text primary key, emb float[{self.dim}],"
            " rank integer, tenant text, +body text)"
        )

    def open(self) -> None:
        self._connect()

    def _connect(self) -> None:
        import sqlite_vec

        try:
            import pysqlite3.dbapi2 as sqlite3  # where Python's own loads no extensions
        except ImportError:
            import sqlite3
        self._db = sqlite3.connect(str(self.folder / "c.sqlite"), isolation_level=None)
        self._db.enable_load_extension(True)
        sqlite_vec.load(self._db)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def upsert(self, rows: Records) -> None:
        vectors = [vector.tobytes() for vector in np.ascontiguousarray(rows.vectors)]
        columns = zip(rows.ids, vectors, rows.ranks.tolist(), rows.tenants, rows.texts, strict=True)
        with self._transaction():
            self._db.executemany("delete from c where id = ?", [(i,) for i in rows.ids])
            self._db.executemany(
                "insert into c (id, emb, rank, tenant, body) values (?, ?, ?, ?, ?)", columns
            )

    def update_metadata(self, rows: Records) -> None:
        columns = zip(rows.ranks.tolist(), rows.tenants, rows.texts, rows.ids, strict=True)
        with self._transaction():
            self._db.executemany(
                "update c set rank = ?, tenant = ?, body = ? where id = ?", columns
            )

    def delete(self, ids: list[str]) -> None:
        with self._transaction():
            self._db.executemany("delete from c where id = ?", [(i,) for i in ids])

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        where, values = "emb match ? and k = ?", [query.tobytes(), k]
        if below is not None:
            where, values = f"{where} and rank < ?", [*values, below]
        found = self._db.execute(f"select id from c where {where} order by distance", values)
        return [row[0] for row in found.fetchall()]

    def count(self) -> int:
        return int(self._db.execute("select count(*) from c").fetchone()[0])

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        found = {}
        for one in ids:
            row = self._db.execute("select body, rank from c where id = ?", (one,)).fetchone()
            if row is not None:
                found[one] = (row[0], int(row[1]))
        return found

    def close(self) -> None:
        self._db.close()
