"""Recall over the turnovers, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.churn.report import Results
from bench.churn.run import PeerChurn, Plan

_COLOURS = {"upvec": "tab:blue", "hnswlib": "tab:orange", "usearch": "tab:green", "svs": "tab:red"}


def plot(results: Results, plan: Plan, title: str, path: Path) -> None:
    """Write one panel for each kind and ef: lines are the turnovers, rings the fresh builds."""
    import matplotlib as mpl

    mpl.use("agg")  # there may be no screen
    from matplotlib import pyplot as plt

    # One batch by nature is no line.
    kinds = {kind: peers for kind, peers in results.items() if _long(peers)}
    if not kinds:
        return
    figure, panels = plt.subplots(
        len(kinds),
        len(plan.efs),
        figsize=(3.2 * len(plan.efs), 1 + 2.1 * len(kinds)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for row, (kind, peers) in zip(panels, kinds.items(), strict=True):
        for panel, ef in zip(row, plan.efs, strict=True):
            for name, result in peers.items():
                _draw(panel, name, result, ef)
            panel.set_title(f"{kind}, ef {ef}", fontsize=9)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
        row[0].set_ylabel("recall@10", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("turnovers (rings: fresh build)", fontsize=8)
    panels[0][0].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _long(peers: dict[str, PeerChurn]) -> bool:
    return any(len(result.updates) > 1 for result in peers.values())


def _draw(panel: Any, name: str, result: PeerChurn, ef: int) -> None:
    colour = _COLOURS.get(name)
    # A turnover with several changes is drawn as it stands at its end.
    ends = {step.turnover: step for step in result.steps}
    panel.plot(
        list(ends),
        [step.quality[ef].recall for step in ends.values()],
        ".-",
        color=colour,
        label=name,
    )
    fresh = {turn: step.fresh[ef].recall for turn, step in ends.items() if step.fresh is not None}
    panel.plot(list(fresh), list(fresh.values()), "o", color=colour, fillstyle="none")
