"""Runbooks: the format of the streaming track of NeurIPS'23, read, checked and written.

A file has one mapping per data set: ``max_pts``, and steps numbered from 1. Ranges are half-open. A
*tag* is what answers name; an *id* is a row of the data set. Inserting gives every tag the row of
the same number; replacing gives tag t the row ``ids_start + (t - tags_start)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ABSENT = -1
# What a data set may say besides its steps.
_OTHER = ("max_pts", "gt_url", "clusters")


class RunbookError(ValueError):
    """A runbook that cannot be replayed."""


@dataclass(frozen=True)
class Span:
    """The numbers from start to before end."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def numbers(self) -> npt.NDArray[np.int64]:
        return np.arange(self.start, self.end)


@dataclass(frozen=True)
class Insert:
    tags: Span


@dataclass(frozen=True)
class Delete:
    tags: Span


@dataclass(frozen=True)
class Replace:
    tags: Span
    ids: Span


@dataclass(frozen=True)
class Search:
    pass


Operation = Insert | Delete | Replace | Search


@dataclass(frozen=True)
class Runbook:
    """The steps for one data set.

    Attributes
    ----------
    name : str
        Of the data set, as the file has it.
    max_pts : int
        Tags and ids are below this.
    steps : list of Operation
        Step i is ``steps[i - 1]``.
    clusters : int or None
        The data set's rows are to be put in the order of so many clusters first. This project's
        own; the files of the track come with data sets in the right order.
    """

    name: str
    max_pts: int
    steps: list[Operation]
    clusters: int | None = None

    def validate(self) -> None:
        """Raise RunbookError at the first step that cannot be taken."""
        tags = Tags(self)
        for number, step in enumerate(self.steps, start=1):
            tags.apply(number, step)


class Tags:
    """Which row every tag has, through the steps of a runbook."""

    def __init__(self, book: Runbook) -> None:
        self._book = book
        self.rows = np.full(book.max_pts, ABSENT)

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which tags are there; bool (max_pts,)."""
        return np.asarray(self.rows != ABSENT)

    def apply(self, number: int, step: Operation) -> None:
        """Take a step, or say why it cannot be taken."""
        if isinstance(step, Search):
            self._require(number, bool(self.live.any()), "searches, but nothing is there")
            return
        self._require_range(number, "tags", step.tags)
        tags = step.tags.numbers()
        live = self.live[tags]
        if isinstance(step, Insert):
            self._require(
                number, not live.any(), f"inserts tag {_first(tags, live)}, which is live"
            )
            self.rows[tags] = tags
            return
        verb = "deletes" if isinstance(step, Delete) else "replaces"
        self._require(
            number, bool(live.all()), f"{verb} tag {_first(tags, ~live)}, which is not there"
        )
        if isinstance(step, Delete):
            self.rows[tags] = ABSENT
            return
        self._require_range(number, "ids", step.ids)
        lengths = f"{len(step.tags)} tags and {len(step.ids)} ids"
        self._require(number, len(step.tags) == len(step.ids), f"has {lengths}; want as many")
        self.rows[tags] = step.ids.numbers()

    def _require_range(self, number: int, what: str, span: Span) -> None:
        fine = 0 <= span.start < span.end <= self._book.max_pts
        want = f"want 0 <= start < end <= max_pts, {self._book.max_pts}"
        self._require(number, fine, f"has {what} {span.start} to {span.end}; {want}")

    def _require(self, number: int, fine: bool, fault: str) -> None:
        if not fine:
            raise RunbookError(f"{self._book.name}, step {number} {fault}")


def _first(tags: npt.NDArray[np.int64], where: npt.NDArray[np.bool_]) -> int | None:
    return int(tags[where][0]) if where.any() else None


def load(path: Path) -> dict[str, Runbook]:
    """Read a file: its runbooks by the name of the data set. Raises RunbookError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RunbookError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise RunbookError(f"{path} is empty or a list; want a mapping by data set")
    return {str(name): parse(str(name), steps) for name, steps in content.items()}


def save(path: Path, book: Runbook) -> None:
    """Write a file of one runbook, as `load` reads it."""
    import yaml

    content: dict[Any, Any] = {"max_pts": book.max_pts}
    if book.clusters is not None:
        content["clusters"] = book.clusters
    content |= {number: _plain(step) for number, step in enumerate(book.steps, start=1)}
    path.write_text(yaml.safe_dump({book.name: content}, sort_keys=False))


def parse(name: str, content: Any) -> Runbook:
    """Make a runbook of what one data set has in a file, and validate it."""
    if not isinstance(content, dict):
        raise RunbookError(f"{name} is a {type(content).__name__}; want a mapping of steps")
    numbered = {int(key): step for key, step in content.items() if str(key).isdecimal()}
    odd = [key for key in content if not str(key).isdecimal() and key not in _OTHER]
    if odd:
        raise RunbookError(f"{name} has {odd[0]!r}; want numbers of steps, or {', '.join(_OTHER)}")
    if not numbered:
        raise RunbookError(f"{name} has no steps")
    missing = next((n for n in range(1, len(numbered) + 1) if n not in numbered), None)
    if missing is not None:
        raise RunbookError(f"{name} has {len(numbered)} steps, but no step {missing}")
    clusters = content.get("clusters")
    book = Runbook(
        name=name,
        max_pts=_number(f"{name}", content, "max_pts"),
        steps=[_operation(f"{name}, step {n}", numbered[n]) for n in range(1, len(numbered) + 1)],
        clusters=None if clusters is None else _number(name, content, "clusters"),
    )
    book.validate()
    return book


def _operation(where: str, step: Any) -> Operation:
    if not isinstance(step, dict) or "operation" not in step:
        raise RunbookError(f"{where} is {step!r}; want a mapping with an operation")
    operation = step["operation"]
    if operation == "search":
        return Search()
    if operation in ("insert", "delete"):
        tags = Span(_number(where, step, "start"), _number(where, step, "end"))
        return Insert(tags) if operation == "insert" else Delete(tags)
    if operation == "replace":
        tags = Span(_number(where, step, "tags_start"), _number(where, step, "tags_end"))
        ids = Span(_number(where, step, "ids_start"), _number(where, step, "ids_end"))
        return Replace(tags, ids)
    raise RunbookError(f"{where} is a {operation!r}; want insert, delete, replace or search")


def _number(where: str, content: dict[Any, Any], name: str) -> int:
    # Some files of the track put their numbers in quotes.
    value = content.get(name)
    if isinstance(value, bool) or not str(value).isdecimal():
        raise RunbookError(f"{where} has {name} = {value!r}; want a whole number")
    return int(str(value))


def _plain(step: Operation) -> dict[str, Any]:
    if isinstance(step, Search):
        return {"operation": "search"}
    if isinstance(step, Replace):
        tags = {"tags_start": step.tags.start, "tags_end": step.tags.end}
        ids = {"ids_start": step.ids.start, "ids_end": step.ids.end}
        return {"operation": "replace"} | tags | ids
    name = "insert" if isinstance(step, Insert) else "delete"
    return {"operation": name, "start": step.tags.start, "end": step.tags.end}
