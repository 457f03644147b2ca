"""Milvus Lite, by pymilvus."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["MilvusStore"]

_MOST = 2000  # rows a call


class MilvusStore(Store):
    """A collection with its vector index."""

    settings = "HNSW (M 16, efConstruction 200), an index on rank; flush() after every call"
    _client: Any

    def create(self) -> None:
        from pymilvus import DataType

        self._connect()
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("tenant", DataType.VARCHAR, max_length=64)
        schema.add_field("text", DataType.VARCHAR, max_length=1024)
        schema.add_field("rank", DataType.INT64)
        schema.add_field("emb", DataType.FLOAT_VECTOR, dim=self.dim)
        params = self._client.prepare_index_params()
        params.add_index(
            "emb", index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 200}
        )
        params.add_index("rank", index_type="INVERTED")
        self._client.create_collection("c", schema=schema, index_params=params)

    def open(self) -> None:
        self._connect()
        self._client.load_collection("c")

    def _connect(self) -> None:
        from pymilvus import MilvusClient

        self._client = MilvusClient(str(self.folder / "milvus.db"))

    def upsert(self, rows: Records) -> None:
        for start in range(0, len(rows), _MOST):
            part = rows.part(start, start + _MOST)
            both = zip(part.ids, part.vectors, part.dicts(), strict=True)
            self._client.upsert("c", [{"id": i, "emb": v, **d} for i, v, d in both])
        self._client.flush("c")

    def update_metadata(self, rows: Records) -> None:
        self.upsert(rows)  # whole rows

    def delete(self, ids: list[str]) -> None:
        for start in range(0, len(ids), _MOST):
            self._client.delete("c", ids=ids[start : start + _MOST])
        self._client.flush("c")

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        found = self._client.search(
            "c", data=[query], limit=k, filter="" if below is None else f"rank < {below}"
        )
        return [str(hit["id"]) for hit in found[0]]

    def count(self) -> int:
        return int(self._client.query("c", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        rows = self._client.get("c", ids=ids, output_fields=["text", "rank"])
        return {row["id"]: (row["text"], int(row["rank"])) for row in rows}

    def close(self) -> None:
        self._client.close()
