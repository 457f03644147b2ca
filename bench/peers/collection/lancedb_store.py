"""LanceDB: merge_insert by id, an index of vectors and two of scalars, optimize."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["LanceStore"]


class LanceStore(Store):
    """A table; its indexes are made after the load, and brought up to date by optimize()."""

    settings = (
        "merge_insert by id (metadata alone: of those columns); IVF_HNSW_SQ, and BTREE on id and"
        " rank, made after the load; optimize() after updates and deletes, counted as part of them"
    )
    _table: Any = None

    def create(self) -> None:
        import lancedb

        self._db = lancedb.connect(str(self.folder / "lance"))
        self._indexed = False

    def open(self) -> None:
        self.create()
        self._table = self._db.open_table("c")

    def _arrow(self, rows: Records) -> Any:
        import pyarrow as pa

        if rows.vectors.dtype == object:  # of unequal lengths: let the table's schema judge them
            vectors = pa.array([vector.tolist() for vector in rows.vectors])
        else:
            flat = pa.array(np.ascontiguousarray(rows.vectors).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, self.dim)
        return pa.table(
            {
                "id": rows.ids,
                "tenant": rows.tenants,
                "text": rows.texts,
                "rank": rows.ranks,
                "emb": vectors,
            }
        )

    def upsert(self, rows: Records) -> None:
        data = self._arrow(rows)
        if self._table is None:
            self._table = self._db.create_table("c", data)
            return
        merge = self._table.merge_insert("id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(data)

    def update_metadata(self, rows: Records) -> None:
        import pyarrow as pa

        columns = {
            "id": rows.ids,
            "tenant": rows.tenants,
            "text": rows.texts,
            "rank": rows.ranks,
        }
        self._table.merge_insert("id").when_matched_update_all().execute(pa.table(columns))

    def index(self) -> None:
        if not self._indexed:
            self._table.create_index(
                metric="l2", vector_column_name="emb", index_type="IVF_HNSW_SQ"
            )
            self._table.create_scalar_index("id")
            self._table.create_scalar_index("rank")
            self._indexed = True
        self._table.optimize()

    def delete(self, ids: list[str]) -> None:
        for start in range(0, len(ids), 1000):
            listed = ", ".join(f"'{i}'" for i in ids[start : start + 1000])
            self._table.delete(f"id in ({listed})")

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        asked = self._table.search(query).limit(k).select(["id"])
        if below is not None:
            asked = asked.where(f"rank < {below}", prefilter=True)
        found: list[str] = asked.to_arrow()["id"].to_pylist()
        return found

    def count(self) -> int:
        return int(self._table.count_rows())

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        listed = ", ".join(f"'{i}'" for i in ids)
        asked = self._table.search().where(f"id in ({listed})").limit(len(ids) + 1)
        rows = asked.select(["id", "text", "rank"]).to_arrow().to_pylist()
        return {row["id"]: (row["text"], row["rank"]) for row in rows}
