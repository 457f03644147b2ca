"""Figures of stores as tables, and what the figures do not say as notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.peers.report import table

from .worker import SHARES

__all__ = ["faults_of", "report"]

Figures = dict[str, Any]
_STEPS = ("load rows/s", "update rows/s", "metadata rows/s")
_ODD = ("a key twice in a batch", "a wrong dimension", "NaN in a vector")


def report(stores: dict[str, Figures]) -> str:
    """Return the tables, and below them why a figure is missing and how each store is set up."""
    tables = [_writing(stores), _searching(stores), _keeping(stores), _behaving(stores)]
    parts = [table(rows) for rows in tables]
    notes = [f"- {name}: {note}" for name, figures in stores.items() for note in _notes(figures)]
    if notes:
        parts.append("\n".join(notes))
    setups = [
        f"- {name} {figures.get('version', '')}: {figures.get('settings', '')}"
        for name, figures in stores.items()
    ]
    return "\n\n".join([*parts, "\n".join(setups)])


def faults_of(figures: Figures) -> list[str]:
    """Return all that is wrong with a store: steps that failed, rows that are lost or stale."""
    faults = [note for note in _notes(figures) if "—" not in note]
    told, _, of = str(figures.get("after kill", "0 of 0")).partition(" of ")
    return faults if told == of else [*faults, f"after kill -9: {told} of {of}"]


def _cell(figures: Figures, name: str, part: str | None = None, form: str = ",.0f") -> str:
    value = figures.get(name)
    if isinstance(value, dict):
        if "timeout" in value:
            return "timeout"
        if "error" in value:
            return "error"
        value = value.get(part) if part else None
    return "—" if value is None else format(value, form)


def _writing(stores: dict[str, Figures]) -> list[list[str]]:
    head = ["load", "update", "metadata", "delete", "p50 ms", "p99 ms", "syncs", "found at once"]
    rows = [["rows/s", *head]]
    for name, figures in stores.items():
        cells = [_cell(figures, step) for step in (*_STEPS, "delete rows/s")]
        cells += [_cell(figures, "single", part, ",.2f") for part in ("p50 ms", "p99 ms")]
        cells += [_cell(figures, "syncs", None, ".1f")]
        cells += [_cell(figures, "single", "found at once", ".1%").replace("%", " %")]
        rows.append([name, *cells])
    return rows


def _searching(stores: dict[str, Figures]) -> list[list[str]]:
    shares = ["all" if share is None else f"{100 * share:g} %" for share in SHARES]
    rows = [["queries/s at recall@10", *shares]]
    for name, figures in stores.items():
        cells = []
        for share in SHARES:
            rate = _cell(figures, f"search {share}", "q/s")
            recall = _cell(figures, f"search {share}", "recall", ".3f")
            cells.append(rate if rate == recall else f"{rate} at {recall}")
        rows.append([name, *cells])
    return rows


def _keeping(stores: dict[str, Figures]) -> list[list[str]]:
    rows = [["", "close s", "reopen s", "right", "disk MiB", "peak RSS MiB", "after kill -9"]]
    for name, figures in stores.items():
        again = figures.get("reopened", {})
        right = "—" if "error" in again else "no" if again.get("wrong") else again.get("checked")
        cells = [_cell(figures, "close s", None, ".2f"), _cell(again, "reopen s", None, ".2f")]
        cells += [str(right), _cell(figures, "disk MiB"), _cell(figures, "rss MiB")]
        rows.append([name, *cells, str(figures.get("after kill", "—"))])
    return rows


def _behaving(stores: dict[str, Figures]) -> list[list[str]]:
    rows = [["", *_ODD]]
    for name, figures in stores.items():
        behaves = figures.get("behaves", {})
        rows.append([name, *(str(behaves.get(what, "—")) for what in _ODD)])
    return rows


def _notes(figures: Figures) -> Iterator[str]:
    if "error" in figures:
        yield str(figures["error"])
    for name, value in figures.items():
        if not isinstance(value, dict):
            continue
        for kind in ("error", "timeout"):
            if kind in value:
                yield f"{name}: {kind}, {value[kind]}"
        if "unable" in value:
            yield f"{name}: —, {value['unable']}"
    for wrong in figures.get("reopened", {}).get("wrong", []):
        yield f"reopened: {wrong}"
