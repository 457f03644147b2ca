"""Rate against recall, as a picture: of every peer the curve that no build of it beats."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import envelope, logit
from bench.peers.report import OURS
from bench.peers.run import Builds

# What a panel shows of recall; the rest of a curve says little and takes all the room.
_LOWEST, _HIGHEST = 0.8, 0.9995
_TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_MARKERS = "os^vDPX<>"


class MissingPlotError(Exception):
    """The package that draws is not installed."""


@dataclass(frozen=True)
class Panel:
    """One panel: a set, a number of threads and of answers."""

    title: str
    k: int
    builds: Builds


def need_matplotlib() -> None:
    """Raise before anything is measured, not after hours."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPlotError("--plot needs matplotlib: pip install matplotlib")


def plot(panels: Sequence[Panel], columns: int, path: Path) -> None:
    """Write all panels, so many in a row."""
    import matplotlib as mpl

    mpl.use("agg")  # there may be no screen
    from matplotlib import pyplot as plt

    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(5.5 * columns, 0.6 + 4.2 * rows),
        squeeze=False,
        layout="constrained",
    )
    colours = plt.get_cmap("tab20")
    names = list(dict.fromkeys(name for panel in panels for name in panel.builds))
    styles = {
        name: {
            "color": "black" if name == OURS else colours(at % 20),
            "marker": _MARKERS[at % len(_MARKERS)],
            "linewidth": 2.0 if name == OURS else 1.0,
            "zorder": 3 if name == OURS else 2,
        }
        for at, name in enumerate(names)
    }
    flat = list(axes.flat)
    for axis, panel in zip(flat, panels, strict=False):
        _draw(axis, panel, styles)
    for axis in flat[len(panels) :]:
        axis.set_visible(False)
    # Of all panels, as a peer may be missing in some.
    handles = {label: line for axis in flat for line, label in zip(*_legend(axis), strict=True)}
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _legend(axis: Any) -> tuple[list[Any], list[str]]:
    handles, labels = axis.get_legend_handles_labels()
    return handles, labels


def _draw(axis: Any, panel: Panel, styles: dict[str, dict[str, Any]]) -> None:
    for name, results in panel.builds.items():
        points = [point for result in results for point in result.search.get(panel.k, [])]
        upper = [
            (recall, rate)
            for recall, rate in envelope((point.recall, point.rates.median) for point in points)
            if recall >= _LOWEST
        ]
        if upper:
            recalls, rates = zip(*upper, strict=True)
            axis.plot(
                [logit(min(recall, _HIGHEST)) for recall in recalls],
                rates,
                label=name,
                markersize=4,
                **styles[name],
            )
    axis.set_yscale("log")
    axis.set_xticks([logit(tick) for tick in _TICKS], [f"{tick:g}" for tick in _TICKS], fontsize=7)
    axis.tick_params(axis="y", which="both", labelsize=7)
    axis.set_xlabel(f"recall@{panel.k}", fontsize=8)
    axis.set_ylabel("queries/s", fontsize=8)
    axis.set_title(panel.title, fontsize=9)
    axis.grid(alpha=0.3, which="both")
