"""Following a writer in the background, from a collection that was opened for reading.

Thread safety: any thread may call anything.
"""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from .errors import ClosedError, without_frames

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Follower"]

_logger = logging.getLogger(__name__)


class Follower:
    """Calls ``refresh``, a bound method, every ``interval_s`` seconds until `stop`.

    The object of the method is not kept alive: when it is gone, so is the thread.

    Attributes
    ----------
    failure : Exception or None
        What ended the following.
    """

    def __init__(self, refresh: Callable[[], Any], interval_s: float) -> None:
        self.failure: Exception | None = None
        self._refresh = weakref.WeakMethod(refresh)
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="upvec-follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop. Does not wait for a refresh that is under way."""
        self._stopping.set()

    def _follow(self) -> None:
        while not self._stopping.wait(self._interval_s):
            refresh = self._refresh()
            if refresh is None:
                return
            try:
                refresh()
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001 - nobody is there to raise it to
                self.failure = without_frames(error)
                _logger.warning("not followed any further: %r", error)
                message = f"not followed any further, refresh() says why: {error!r}"
                warnings.warn(message, RuntimeWarning, stacklevel=1)
                return
            del refresh
