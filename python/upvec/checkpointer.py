"""When checkpoints are written, and by whom: on request, or in the background.

A checkpoint holds the newest state with the writer's lock, for as long as it takes to copy what is
not immutable (see `image`), and lets writers go on while its files are written.

Thread safety: any thread may call anything; one checkpoint is written at a time.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import ClosedError, PoisonedError, without_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .checkpoint import Contents, Piece
    from .state import State
    from .storage import Storage

    Hold = Callable[[], tuple[State, Contents]]

__all__ = ["Checkpointer"]

_logger = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The handle is being closed."""


class Checkpointer:
    """Writes the checkpoints of one open collection.

    Parameters
    ----------
    hold : bound method
        Takes the writer's lock, and returns the newest state and what is to be written of it.
        Its object is not kept alive.
    automatic : bool
        Whether `begin_if_due` ever begins one.

    Attributes
    ----------
    failure : Exception or None
        What ended the last one that was begun in the background.
    """

    def __init__(self, storage: Storage, hold: Hold, *, automatic: bool) -> None:
        self.failure: Exception | None = None
        self._storage = storage
        self._hold = weakref.WeakMethod(hold)
        self._automatic = automatic
        self._one = threading.Lock()
        self._beginning = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._writing_thread: int | None = None
        self._afterwards: Callable[[], None] | None = None

    def run(self) -> State:
        """Write a checkpoint of the newest state, and return that state.

        Raises
        ------
        OSError
            It was not made; the one before it stays.
        ReadOnlyError, ClosedError, ForkedError, PoisonedError
        """
        with self._alone():
            return self._write()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other checkpoints out, and `stop` from going on."""
        with self._one:
            self._writing_thread = threading.get_ident()
            try:
                yield
            finally:
                self._writing_thread = None
                afterwards, self._afterwards = self._afterwards, None
                if afterwards is not None:
                    afterwards()

    def _write(self) -> State:
        hold = self._hold()
        if hold is None or self._stopping.is_set():
            raise ClosedError("the collection is closed")
        state, contents = hold()
        del hold
        try:
            self._storage.checkpoint(state, self._until_stopped(contents))
        except _StoppedError:
            raise ClosedError("the collection was closed during a checkpoint") from None
        return state

    def begin_if_due(self) -> None:
        """Begin a checkpoint in the background if the log has grown enough since the last one."""
        if not self._automatic or not self._storage.checkpoint_is_due:
            return
        # Several threads may come here at once, and one is enough.
        if not self._beginning.acquire(blocking=False):
            return
        try:
            if self._stopping.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(
                target=self._run_quietly, name="upvec-checkpoint", daemon=True
            )
            thread.start()
            self._thread = thread
        except RuntimeError as error:  # no more threads: what was asked for is stored all the same
            self._fail(error)
        finally:
            self._beginning.release()

    def finish(self) -> None:
        """Write the last checkpoint of a handle that is about to be closed, if it is worth that.

        One that is under way is waited for. A failure is a warning: all is in the log.
        """
        if not self._automatic or not self._storage.checkpoint_pays:
            return
        try:
            with self._alone():
                if self._storage.checkpoint_pays:  # still, after one that was under way
                    self._write()
        except (ClosedError, PoisonedError):
            pass
        except Exception as error:  # noqa: BLE001 - the handle is to be closed all the same
            self._fail(error)

    def stop(self, afterwards: Callable[[], None]) -> None:
        """End what is under way in any thread, and call ``afterwards`` when nothing is.

        The lock of the collection must be held until then. Nothing begins after it. Where this
        very thread is writing a checkpoint (the handle is collected as garbage in the middle of
        it), that is at its end, else before this returns.
        """
        self._stopping.set()
        if self._pid == os.getpid():
            if self._writing_thread == threading.get_ident():
                self._afterwards = afterwards
                return
            with self._one:
                pass
        afterwards()

    def _run_quietly(self) -> None:
        try:
            with self._alone():
                if self._storage.checkpoint_is_due:  # still, after one that was under way
                    self._write()
            self.failure = None
        except ClosedError:
            pass
        except Exception as error:  # noqa: BLE001 - nobody is there to raise it to
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = without_frames(error)
        self._storage.postpone_checkpoint()
        _logger.warning("no checkpoint of %s: %r", self._storage.root, error)
        message = f"no checkpoint of {self._storage.root}, the log goes on growing: {error!r}"
        warnings.warn(message, RuntimeWarning, stacklevel=1)

    def _until_stopped(self, contents: Contents) -> Contents:
        def pieces(of: Iterable[Piece]) -> Iterator[Piece]:
            for piece in of:
                if self._stopping.is_set():
                    raise _StoppedError
                yield piece

        return {name: pieces(of) for name, of in contents.items()}
