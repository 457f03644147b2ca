"""A checker of histories: could these operations on one register have happened one at a time?

A history is linearizable if each operation can be given one moment between its call and its return
such that, taken in the order of these moments, every operation saw what the ones before it left.
Linearizability is local: a history of many keys is linearizable if and only if that of each key is,
so each is checked by itself.

The method is that of Wing and Gong as Lowe orders it ("Testing for linearizability", 2017): go
through the calls and returns in time, and keep every configuration (value of the register, and
which of the open operations have had their moment) that explains what was seen so far. An operation
must have had its moment when it returns; if no configuration is left, there is no such order.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Operation", "Recorder", "first_violation"]


@dataclass(frozen=True)
class Operation:
    """One call on one register.

    Attributes
    ----------
    kind : {"write", "remove", "read"}
    called, returned : int
        Moments of one clock; an operation that never returned has an infinite one.
    value : hashable
        What was written, or read; ``None`` means that the register is empty.
    found : bool, optional
        What a write or removal said of the register before: True if it was not empty.
    """

    kind: Literal["write", "remove", "read"]
    called: float
    returned: float
    value: Hashable = None
    found: bool | None = None

    def apply(self, state: Hashable) -> tuple[bool, Hashable]:
        """Whether it can have seen `state`, and what it leaves."""
        if self.kind == "read":
            return self.value == state, state
        fits = self.found is None or self.found == (state is not None)
        return fits, self.value if self.kind == "write" else None


# The register's value, and the open operations that have had their moment.
_Configuration = tuple[Hashable, frozenset[int]]


def first_violation(history: Iterable[Operation], initial: Hashable = None) -> Operation | None:
    """The operation whose return no order explains, or None if the history is linearizable.

    Parameters
    ----------
    history : iterable of Operation
        All operations on one register, in any order.
    initial : hashable
        The register's value before; ``None`` if empty.

    Examples
    --------
    >>> written = Operation("write", 0, 1, "a")
    >>> first_violation([written, Operation("read", 2, 3, "a")])
    >>> first_violation([written, Operation("read", 2, 3, None)]).kind
    'read'
    """
    operations = list(history)
    # At one moment calls come before returns: operations that touch count as concurrent.
    events = sorted(
        [(op.called, 0, i) for i, op in enumerate(operations)]
        + [(op.returned, 1, i) for i, op in enumerate(operations)]
    )
    configurations: set[_Configuration] = {(initial, frozenset())}
    open_now: set[int] = set()
    for moment, is_return, at in events:
        if moment == float("inf"):
            break
        if not is_return:
            open_now.add(at)
            continue
        reached = _closure(configurations, operations, open_now)
        open_now.remove(at)
        configurations = {(state, past - {at}) for state, past in reached if at in past}
        if not configurations:
            return operations[at]
    return None


def _closure(
    configurations: set[_Configuration], operations: list[Operation], open_now: set[int]
) -> set[_Configuration]:
    """All configurations that are reached if any of the open operations have their moment now."""
    reached = set(configurations)
    waiting = list(configurations)
    while waiting:
        state, past = waiting.pop()
        for at in open_now - past:
            fits, after = operations[at].apply(state)
            new = (after, past | {at})
            if fits and new not in reached:
                reached.add(new)
                waiting.append(new)
    return reached


class Recorder:
    """Collects the histories of several registers from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histories: dict[Hashable, list[Operation]] = {}

    def record(
        self,
        register: Hashable,
        kind: Literal["write", "remove", "read"],
        call: Callable[[], tuple[Any, bool | None]],
    ) -> None:
        """Make a call that returns (value, found), and note it with its times."""
        called = time.perf_counter_ns()
        value, found = call()
        operation = Operation(kind, called, time.perf_counter_ns(), value, found)
        with self._lock:
            self._histories.setdefault(register, []).append(operation)

    @property
    def histories(self) -> dict[Hashable, list[Operation]]:
        """By register."""
        return self._histories

    def overlaps(self) -> int:
        """How many pairs of operations that follow each other overlap: a test without is none."""
        count = 0
        for history in self._histories.values():
            ordered = sorted(history, key=lambda op: op.called)
            count += sum(b.called < a.returned for a, b in itertools.pairwise(ordered))
        return count
