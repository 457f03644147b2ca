"""An embedded vector store whose first-class operation is upsert."""

from __future__ import annotations
