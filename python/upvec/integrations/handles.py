"""Collections by path, opened once in a process: a directory has one writer.

Two stores of one path, as the pipelines that index and that query have them, share a handle. It is
closed when all of them have given it back, or are gone.

Thread safety: any thread may call this.
"""

from __future__ import annotations

import os
import threading
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from upvec.checkpoint import MANIFEST
from upvec.collection import Collection
from upvec.collection import open as open_collection
from upvec.schema import Schema

__all__ = ["borrow", "give_back", "is_stored"]

MEMORY: Final = ":memory:"

_lock = threading.Lock()
# By process too: a handle is of no use to a child.
_handles: WeakValueDictionary[tuple[int, str], Collection] = WeakValueDictionary()
_users: WeakKeyDictionary[Collection, int] = WeakKeyDictionary()


def is_stored(path: str) -> bool:
    """Return whether there is a collection in a directory."""
    return path != MEMORY and os.path.exists(os.path.join(path, MANIFEST))


def borrow(path: str, schema: Schema | None = None) -> Collection:
    """Return the handle of a path, opened if nobody has one; ``schema`` is for a new collection.

    Raises
    ------
    SchemaError, LockedError, CorruptionError
        As :func:`upvec.open`.
    """
    if path == MEMORY:
        return open_collection(path, schema)
    key = os.getpid(), os.path.realpath(path)
    with _lock:
        handle = _handles.get(key)
        if handle is None or handle.closed:
            handle = open_collection(path, None if is_stored(path) else schema)
            _handles[key] = handle
            _users[handle] = 0
        _users[handle] += 1
        return handle


def give_back(handle: Collection) -> None:
    """Close a handle, unless others have borrowed it too."""
    with _lock:
        _users[handle] = _users.get(handle, 1) - 1
        if _users[handle] <= 0:
            handle.close()  # with the lock: nobody is to borrow what is being closed
