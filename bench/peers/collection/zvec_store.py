"""zvec: an HNSW index of vectors, inverted indexes of fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["ZvecStore"]

_MOST = 1000  # documents a call


class ZvecStore(Store):
    """A collection; flushed after every call, optimized after much was written."""

    settings = (
        "HNSW (m 16, ef_construction 200), inverted indexes on rank and tenant; flush() after every"
        " call; optimize() after the load, updates and deletes, counted as part of them"
    )
    _col: Any

    def create(self) -> None:
        import zvec

        kind, inverted = zvec.DataType, zvec.InvertIndexParam(enable_range_optimization=True)
        hnsw = zvec.HnswIndexParam(metric_type=zvec.MetricType.L2, m=16, ef_construction=200)
        schema = zvec.CollectionSchema(
            name="records",
            fields=[
                zvec.FieldSchema("tenant", kind.STRING, index_param=zvec.InvertIndexParam()),
                zvec.FieldSchema("text", kind.STRING),
                zvec.FieldSchema("rank", kind.INT64, index_param=inverted),
            ],
            vectors=zvec.VectorSchema("emb", kind.VECTOR_FP32, self.dim, index_param=hnsw),
        )
        self._col = zvec.create_and_open(path=str(self.folder / "zvec"), schema=schema)

    def open(self) -> None:
        import zvec

        self._col = zvec.open(str(self.folder / "zvec"))

    def upsert(self, rows: Records) -> None:
        self._write(rows, self._col.upsert, with_vectors=True)

    def update_metadata(self, rows: Records) -> None:
        self._write(rows, self._col.update, with_vectors=False)

    def _write(self, rows: Records, write: Any, *, with_vectors: bool) -> None:
        import zvec

        for start in range(0, len(rows), _MOST):
            part = rows.part(start, start + _MOST)
            both = zip(part.ids, part.dicts(), part.vectors, strict=True)
            docs = [
                zvec.Doc(id=i, fields=d, vectors={"emb": v} if with_vectors else {})
                for i, d, v in both
            ]
            for status in write(docs):
                if not status.ok():
                    raise RuntimeError(f"zvec: {status}")
        self._col.flush()

    def index(self) -> None:
        self._col.optimize()

    def delete(self, ids: list[str]) -> None:
        for start in range(0, len(ids), _MOST):
            self._col.delete(ids[start : start + _MOST])
        self._col.flush()

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        import zvec

        found = self._col.query(
            zvec.Query(field_name="emb", vector=query),
            topk=k,
            filter=None if below is None else f"rank < {below}",
            output_fields=[],
        )
        return [str(doc.id) for doc in found]

    def count(self) -> int:
        return int(self._col.stats.doc_count)

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        found = self._col.fetch(ids, output_fields=["text", "rank"], include_vector=False)
        return {i: (doc.field("text"), int(doc.field("rank"))) for i, doc in found.items()}

    def close(self) -> None:
        self._col.close()
