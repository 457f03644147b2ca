"""Qdrant Edge: a shard with indexes of its payload."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["QdrantStore"]

_MOST = 1000  # points a call


class QdrantStore(Store):
    """An EdgeShard; its keys are UUIDs made of ours, which is kept in the payload."""

    settings = (
        "HNSW (m 16, ef_construct 200), payload indexes on rank and tenant; flush() after every"
        " call; optimize() after the load, updates and deletes, counted as part of them"
    )
    _shard: Any

    def create(self) -> None:
        import qdrant_edge as q

        path = self.folder / "qdrant"
        path.mkdir()
        hnsw = q.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10_000)
        vectors = q.EdgeVectorParams(size=self.dim, distance=q.Distance.Euclid, hnsw_config=hnsw)
        self._shard = q.EdgeShard.create(str(path), q.EdgeConfig(vectors=vectors))
        integer, keyword = q.PayloadSchemaType.Integer, q.PayloadSchemaType.Keyword
        self._shard.update(q.UpdateOperation.create_field_index("rank", integer))
        self._shard.update(q.UpdateOperation.create_field_index("tenant", keyword))

    def open(self) -> None:
        import qdrant_edge as q

        self._shard = q.EdgeShard.load(str(self.folder / "qdrant"))

    def _id(self, key: str) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, key)

    def upsert(self, rows: Records) -> None:
        import qdrant_edge as q

        for start in range(0, len(rows), _MOST):
            part = rows.part(start, start + _MOST)
            both = zip(part.ids, part.vectors, part.dicts(), strict=True)
            points = [q.Point(self._id(i), v.tolist(), {"id": i, **d}) for i, v, d in both]
            self._shard.update(q.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def update_metadata(self, rows: Records) -> None:
        import qdrant_edge as q

        for key, payload in zip(rows.ids, rows.dicts(), strict=True):
            self._shard.update(q.UpdateOperation.set_payload([self._id(key)], payload))
        self._shard.flush()

    def index(self) -> None:
        self._shard.optimize()

    def delete(self, ids: list[str]) -> None:
        import qdrant_edge as q

        self._shard.update(q.UpdateOperation.delete_points([self._id(key) for key in ids]))
        self._shard.flush()

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        import qdrant_edge as q

        only = None
        if below is not None:
            only = q.Filter(must=[q.FieldCondition("rank", range=q.RangeFloat(lt=below))])
        asked = q.SearchRequest(
            q.Query.Nearest(query.tolist()), limit=k, filter=only, with_payload=True
        )
        return [str(point.payload["id"]) for point in self._shard.search(asked)]

    def count(self) -> int:
        import qdrant_edge as q

        return int(self._shard.count(q.CountRequest(exact=True)))

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        found = self._shard.retrieve(
            [self._id(key) for key in ids], with_payload=True, with_vector=False
        )
        payloads = [point.payload for point in found]
        return {p["id"]: (p["text"], int(p["rank"])) for p in payloads}

    def close(self) -> None:
        self._shard.close()
