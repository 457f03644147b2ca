"""A schema of few fields, and rows that tell when they were written."""

from __future__ import annotations

from typing import Any

import numpy as np

import upvec

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("text", "string", nullable=True),
    upvec.Field("seen", "int64", default=0),
    upvec.Vector("emb", 3),
    unique=[upvec.Unique("text")],
    order_by="seen",
)


def rows(first: int, count: int, seen: int) -> dict[str, Any]:
    ids = np.arange(first, first + count)
    return {
        "id": ids,
        "text": [f"{i} at {seen}" for i in ids.tolist()],
        "seen": np.full(count, seen),
        "emb": np.stack([ids % 7, ids * 0 + seen, ids], axis=1).astype(np.float32),
    }
