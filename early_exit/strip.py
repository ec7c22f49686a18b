"""A timeline as a picture: what was seen, its labels, and where the network left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from coviar.files import whole_file
from early_exit.picture import short_name
from early_exit.timeline import Moment, time_text
from early_exit.wise import FULL

PER_ROW = 12
MOST_WINDOWS = 20 * PER_ROW
# Okabe and Ito's colours, which colour-blind readers can tell apart; then paler ones
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"),
    *("#8C6BB1", "#A6761D", "#66A61E", "#FB9A99", "#1B4F72", "#7F7F7F", "#B2DF8A"),
)
_INCHES_PER_WINDOW, _ROW_INCHES = 1.0, 1.95


def draw_strip(path: Path, source: str, moments: Sequence[Moment], costs: dict) -> None:
    """Write a PNG with rows of at most 12 windows. Each has its middle I-frame, a bar in the colour
    of its label, and below that its share of the full network's cost.

    moments: unmerged, at most MOST_WINDOWS. costs: cumulative GMACs by decision point.
    """
    rows = [moments[first : first + PER_ROW] for first in range(0, len(moments), PER_ROW)]
    longest = max(map(len, rows))
    labels = list(dict.fromkeys(moment.label for moment in moments if moment.label))
    colours = {label: _COLOURS[n % len(_COLOURS)] for n, label in enumerate(labels)}
    size = max(6.0, longest * _INCHES_PER_WINDOW) + 0.8, len(rows) * _ROW_INCHES + 0.6
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    figure.suptitle(short_name(source), fontsize=11, parse_math=False)
    for axis, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows):
        _draw_row(axis, row, colours, costs)
        axis.set_xlim(0, longest)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_row(axis, row: Sequence[Moment], colours: dict, costs: dict) -> None:
    """x: windows; y: 0 to 1 the share of the full network, 1.1 to 1.4 the label, then pictures."""
    for x, moment in enumerate(row):
        if moment.problem:
            axis.add_patch(_box(x, 1.1, 0.3, fill=False, hatch="////", edgecolor="0.6"))
            axis.text(x + 0.5, 1.9, "not\ndecoded", ha="center", va="center", fontsize=8)
            continue
        axis.imshow(moment.picture, extent=(x + 0.02, x + 0.98, 1.45, 2.45), aspect="auto")
        axis.add_patch(_box(x, 1.1, 0.3, color=colours[moment.label], lw=0))
        share = moment.gmacs / costs[FULL]
        axis.bar(x + 0.5, share, 0.5, color="0.75")
        axis.text(x + 0.5, 0.04, moment.point.replace("exit", "exit "), ha="center", fontsize=8)
    for first, last in _runs(row):
        _write_label(axis, row[first], first, last)
    axis.set_ylim(0, 2.5)
    axis.set_yticks([0, 1], ["0", "100 %"], fontsize=8)
    axis.set_ylabel("compute", fontsize=8, loc="bottom")
    times = [time_text(moment.start) for moment in row] + [time_text(row[-1].end)]
    axis.set_xticks(np.arange(len(times)), times, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _box(x: float, y: float, height: float, **style) -> Rectangle:
    return Rectangle((x, y), 1, height, **style)


def _runs(row: Sequence[Moment]) -> list:
    """(first, last) of neighbours of one label."""
    runs: list = []
    for number, moment in enumerate(row):
        if moment.problem:
            continue
        if runs and runs[-1][1] == number - 1 and row[number - 1].label == moment.label:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _write_label(axis, moment: Moment, first: int, last: int) -> None:
    most = 14 * (last - first + 1)
    text = moment.label if len(moment.label) <= most else f"{moment.label[: most - 1]}…"
    axis.text(
        *((first + last + 1) / 2, 1.25, text),
        **{"ha": "center", "va": "center", "fontsize": 8, "color": "white", "parse_math": False},
    ).set_path_effects([withStroke(linewidth=1.5, foreground="0.15")])
