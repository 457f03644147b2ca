"""The one JSON text of a value: keys sorted, no spaces; equal values have equal texts."""

from __future__ import annotations

import json

__all__ = ["encode_json"]

encode_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode
