"""The plots of docs/watermark-results.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from experiments.attacks import ATTACKS
from experiments.stolen_model.analysis import EXTRACTION, THRESHOLD, Row, auc, nulls, roc, schemes_of, scores
from experiments.stolen_model.channels import CHANNELS

STYLE: Final[Any] = {
    "figure.figsize": (9, 4),
    "savefig.dpi": 110,
    "font.size": 9,
    "figure.constrained_layout.use": True,
}


def plots(name: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every plot of a workload for which there are records."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn = [plot(name, rows, folder) for plot in (plot_roc, plot_p_values, plot_strength)]
    return [path for path in drawn if path]


def plot_roc(name: str, rows: Sequence[Row], folder: Path) -> Path | None:
    """Stolen against independent models: one panel for modified ones, one for extracted ones."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, sharey=True)
    drawn = False
    for axes, family, title in zip(panels, (None, EXTRACTION), ("modified", "extracted"), strict=True):
        for scheme in schemes_of(rows):
            stolen = scores(rows, scheme, stolen=True, family=family)
            independent = scores(rows, scheme, stolen=False)
            if stolen and independent:
                ours = scheme in CHANNELS
                label = f"{scheme} ({auc(stolen, independent):.3f}, {len(stolen)} : {len(independent)})"
                axes.plot(*roc(stolen, independent), lw=2.2 if ours else 1.2, ls="-" if ours else "--", label=label)
                drawn = True
        axes.set_title(f"{title} models")
        axes.set_xlabel("independent models accused")
        if axes.lines:
            axes.legend(loc="lower right")
    panels[0].set_ylabel("stolen models accused")
    figure.suptitle(f"{name} (area under the curve, stolen : independent models)")
    return _saved(figure, folder / f"{name}-roc.png", drawn)


def plot_p_values(name: str, rows: Sequence[Row], folder: Path) -> Path | None:
    """The p-values of innocents (with many keys) and of thieves, one panel a channel."""
    import matplotlib.pyplot as plt

    found = {channel: null for channel, null in nulls(rows) if channel in CHANNELS}
    if not found:
        return None
    figure, panels = plt.subplots(1, len(found), squeeze=False)
    for axes, (channel, null) in zip(panels[0], found.items(), strict=True):
        thieves = [
            -score for family in (None, EXTRACTION) for score in scores(rows, channel, stolen=True, family=family)
        ]
        bins = [*range(-160, 1, 4)]
        clipped = [max(-160.0, value) for value in thieves]
        for values, label in ((null.log2_ps, "innocents, many keys"), (clipped, "attacked models")):
            if values:
                weights = [1 / len(values)] * len(values)
                axes.hist(values, bins=bins, weights=weights, alpha=0.6, label=f"{label} ({len(values)})")
        axes.axvline(THRESHOLD, color="black", lw=1, ls=":")
        axes.set_xlabel(f"log2 p, {channel} (below -160: at the left edge)")
        axes.set_ylabel("share")
        axes.legend()
    figure.suptitle(name)
    return _saved(figure, folder / f"{name}-p-values.png", True)


def plot_strength(name: str, rows: Sequence[Row], folder: Path) -> Path | None:
    """What is left of a mark, and of the model's quality, against the strength of an attack."""
    import matplotlib.pyplot as plt

    curves: dict[tuple[str, str], dict[float, list[Row]]] = {}
    for row in rows:
        if row.attack and (found := re.fullmatch(r"([^@]+)@(\w+)=(.+)", row.what)):
            curves.setdefault((found[1], found[2]), {}).setdefault(float(found[3]), []).append(row)
    for (attack, parameter), points in curves.items():
        standard: Any = ATTACKS[attack].run[parameter]
        points.setdefault(float(standard), []).extend(row for row in rows if row.what == attack and row.mark == "ours")
    if not curves:
        return None
    figure, panels = plt.subplots(1, len(curves), squeeze=False, figsize=(3.2 * len(curves), 3.4))
    for axes, ((attack, parameter), points) in zip(panels[0], curves.items(), strict=True):
        for channel in CHANNELS:
            _line(axes, points, channel)
        other = axes.twinx()
        levels = sorted(points)
        other.plot(
            levels, [_middle([r.record.get("quality") for r in points[x]]) for x in levels], "k:", label="quality"
        )
        axes.set_title(attack)
        axes.set_xlabel(parameter)
        axes.set_ylim(0, 1.05)
        axes.legend(loc="lower left")
    panels[0][0].set_ylabel("share of the mark found\n(dotted: quality)")
    return _saved(figure, folder / f"{name}-strength.png", True)


def _line(axes: Any, points: dict[float, list[Row]], channel: str) -> None:
    shares = {}
    for level in sorted(points):
        found = [reading["retention"] for row in points[level] if (reading := row.reading(channel))]
        if found:
            shares[level] = found
    if shares:
        axes.plot(list(shares), [median(found) for found in shares.values()], marker="o", ms=3, label=channel)
        low, high = ([pick(found) for found in shares.values()] for pick in (min, max))
        axes.fill_between(list(shares), low, high, alpha=0.2)


def _middle(values: Sequence[float | None]) -> float:
    here = [value for value in values if value is not None]
    return median(here) if here else float("nan")


def _saved(figure: Any, path: Path, drawn: bool) -> Path | None:
    import matplotlib.pyplot as plt

    if drawn:
        figure.savefig(path)
    plt.close(figure)
    return path if drawn else None
