"""The plot of docs/table1.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

STYLE: Final[Any] = {
    "figure.figsize": (9, 4),
    "savefig.dpi": 110,
    "font.size": 9,
    "figure.constrained_layout.use": True,
}


def draw(curves: Sequence[Mapping[str, Any]], fitted: Mapping[str, float], path: Path) -> None:
    """The best paid node's part of all against q, a panel for each spread of stakes; levels are the paper's tasks."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        spreads = sorted({curve["stake_spread"] for curve in curves})
        figure, panels = plt.subplots(1, len(spreads), sharey=True)
        for axes, spread in zip(panels, spreads, strict=True):
            for q in fitted.values():
                axes.axhline(1 - q, color="0.8", lw=0.8, zorder=0)
            for curve in curves:
                if curve["stake_spread"] == spread:
                    style = "-" if curve["final_share"] else "--"
                    paid = f"{curve['final_share']:.0%} by the final ranking"
                    label = f"persistence {curve['persistence']}, {paid}"
                    colour = {1.0: "C0", 0.9: "C1", 0.5: "C2"}.get(curve["persistence"], "C3")
                    axes.plot(curve["q"], curve["most"], style, color=colour, label=label)
            axes.set_title("equal stakes" if not spread else f"log-normal stakes, deviation {spread}")
            axes.set_xlabel("q")
            axes.set_yscale("log")
        panels[0].set_ylabel("part of the best paid node")
        panels[0].legend(fontsize=7)
        figure.savefig(path)
        plt.close(figure)
