"""The trade-off figure: accuracy against cost, for print and for colour-blind readers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

from coviar.files import whole_file

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  the backend comes first
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import NullLocator  # noqa: E402

# Okabe and Ito's palette, distinct to colour-blind readers; darkest first for grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = {"vanilla": ":", "constant": "--", "wise": "-"}
MARKERS = {"vanilla": "s", "constant": "D", "wise": "o"}
NAMES = {"vanilla": "vanilla", "constant": "constant", "wise": "WISE"}


class Curve(NamedTuple):
    """One method with one combination: gmacs and top1_pct by threshold, and the chosen policy's."""

    method: str
    combination: str
    gmacs: Sequence[float]
    top1_pct: Sequence[float]
    policy: tuple[float, float]


class Panel(NamedTuple):
    """One data set. costs: gmacs by decision point; full_top1_pct: the network without exits."""

    title: str
    curves: list[Curve]
    costs: Mapping[str, float]
    full_top1_pct: float


def draw(path: str | os.PathLike, panels: Sequence[Panel]) -> None:
    """Write the figure as PNG, one panel for each data set; raises ValueError above 6 methods."""
    methods = list(dict.fromkeys(curve.method for panel in panels for curve in panel.curves))
    if len(methods) > len(COLOURS):
        raise ValueError(f"the figure has colours for {len(COLOURS)} methods, not {len(methods)}")
    colours = dict(zip(methods, COLOURS))
    width = 2.3 + 4.9 * len(panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 4.2), squeeze=False)
    for axis, panel in zip(axes[0], panels):
        _draw_panel(axis, panel, colours)
    axes[0, 0].set_ylabel("test top-1 (%)")
    keys = [Line2D([], [], color=colours[method], lw=2.2, label=method) for method in methods]
    for name, label in NAMES.items():
        style = {"ls": STYLES[name], "marker": MARKERS[name], "ms": 5, "mec": "white", "mew": 0.8}
        keys.append(Line2D([], [], color="0.2", label=label, **style))
    keys.append(Line2D([], [], color="black", ls="", marker="*", ms=10, label="full network"))
    legend = figure.legend(
        handles=keys,
        title="line: threshold swept\nmarker: calibrated",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        alignment="left",
    )
    legend.get_title().set_fontsize("small")
    figure.tight_layout()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=200, bbox_inches="tight")
    plt.close(figure)


def _draw_panel(axis: plt.Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    points = list(panel.costs)
    for cost in panel.costs.values():
        axis.axvline(cost, color="0.88", lw=0.8, zorder=0)
    for curve in panel.curves:
        colour, style = colours[curve.method], STYLES[curve.combination]
        order = np.argsort(curve.gmacs, kind="stable")
        gmacs, top1 = np.asarray(curve.gmacs)[order], np.asarray(curve.top1_pct)[order]
        axis.plot(gmacs, top1, color=colour, ls=style, lw=1.4)
        marker = MARKERS[curve.combination]
        axis.plot(*curve.policy, marker, color=colour, ms=5, mec="white", mew=0.8, zorder=3)
    axis.plot(panel.costs[points[-1]], panel.full_top1_pct, "*", color="black", ms=10, zorder=4)
    axis.set_xscale("log")
    axis.set_xticks(list(panel.costs.values()))
    axis.set_xticklabels(
        [f"{cost:.3g}\n{point}" for point, cost in panel.costs.items()], fontsize=8
    )
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("mean GMACs per video (log scale; ticks: leaving at one exit)")
    axis.set_title(panel.title)
    axis.grid(axis="y", color="0.92", lw=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
