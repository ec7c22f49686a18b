"""The look of all figures: the widths of a paper's columns, colours and marks."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from coviar.files import whole_file
from study.summary import label

# Inches, of a page with two columns.
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0
CAPTION_SIZE = 6
TOP1 = "test top-1 (%)"
RC = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.4,
    "errorbar.capsize": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}
# Okabe and Ito's palette, which colour-blind readers can tell apart. In grey print marks, dashes
# and hatches differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = (
    "-",
    (0, (4, 1.2)),
    (0, (4, 1.2, 1, 1.2)),
    (0, (1, 1)),
    (0, (6, 2, 1, 2, 1, 2)),
    (0, (2, 2)),
)
PEER_MARKERS = ("X", "P", "d", "h", "<", ">", "p", "8")
HATCHES = ("", "////", "....", "xxxx", "||||", "----")

styled = matplotlib.rc_context(RC)


def marks(names: Sequence[str], study: str = "the figure") -> dict[str, dict]:
    """Colour, marker and dashes of each name, by its place.

    Raises ValueError, naming the study, above 6 names.
    """
    if len(names) > len(COLOURS):
        raise ValueError(
            f"{study} has {len(names)} methods ({', '.join(names)}), and figures have marks for"
            f" {len(COLOURS)}: name the folders of fewer methods to python -m study.collect"
        )
    return {
        name: {"color": colour, "marker": marker, "linestyle": dashes}
        for name, colour, marker, dashes in zip(names, COLOURS, MARKERS, DASHES)
    }


def tones(number: int) -> list[str]:
    """Colours for the decision points, dark to light also in grey print."""
    colours = matplotlib.colormaps["cividis"](np.linspace(0.05, 0.95, number))
    return [matplotlib.colors.to_hex(colour) for colour in colours]


def new_figure(width: float, height: float, rows: int, columns: int, **options):
    """A figure outside pyplot (nothing is kept open) and its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def add_legend(
    figure: Figure, looks: Mapping[str, dict], *extra: Line2D, columns: int = 6, marked: bool = True
) -> None:
    """Keys above the axes, for the methods and for `extra`."""
    keys = [
        Line2D([], [], label=label(name), **(look if marked else {**look, "marker": ""}))
        for name, look in looks.items()
    ]
    figure.legend(handles=[*keys, *extra], loc="outside upper center", ncols=columns)


def add_caption(figure: Figure, *sentences: str) -> None:
    """Small print below the axes: what is drawn, n and protocol."""
    # A letter of this font is 0.54 of its size wide on average.
    characters = int(figure.get_figwidth() * 72 / (0.54 * CAPTION_SIZE))
    text = "\n".join(textwrap.wrap(" ".join(filter(None, sentences)), characters))
    figure.supxlabel(text, fontsize=CAPTION_SIZE, color="0.25", x=0.01, ha="left")


def save(figure: Figure, folder: str | os.PathLike, name: str) -> list[Path]:
    """Write `name`.png (300 dpi) and .pdf with embedded fonts; returns their paths."""
    paths = [Path(folder) / f"{name}.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        # Without a date, the same figure makes the same file.
        dateless = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        with whole_file(path) as temporary, matplotlib.rc_context({"pdf.fonttype": 42}):
            figure.savefig(temporary, dpi=300, metadata=dateless)
    return paths


def grid(axis: Axes) -> None:
    """Faint lines at round numbers of the y axis."""
    axis.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=(1, 2, 5, 10)))
    axis.grid(axis="y", color="0.9", linewidth=0.5)


def log_axis(axis: Axes) -> None:
    """A log x axis with plain numbers; its limits are those of what is drawn already."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    per_decade = (1, 2, 5) if high / low < 100 else (1, 3)
    steps = [m * 10.0**power for power in range(-4, 6) for m in per_decade]
    ticks = [tick for tick in steps if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlim(low, high)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def exit_lines(axis: Axes, places: Mapping[str, float]) -> None:
    """A dotted vertical line where each decision point lies on the x axis, with its number."""
    for number, (point, x) in enumerate(places.items()):
        axis.axvline(x, color="0.75", linestyle=":", linewidth=0.7, zorder=0)
        # Neighbours at two heights, since lines may be close.
        height = 0.06 if number % 2 else 0.005
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        name = point.replace("exit", "")
        axis.text(x, height, name, fontsize=5.5, color="0.4", clip_on=True, **place)


def exit_axis(axis: Axes, costs: Mapping[str, float]) -> None:
    """Name the decision points at 0, 1, 2, ... of the x axis, each with its GMACs below."""
    names = [f"{point}\n{f'{cost:#.3g}'.rstrip('.')}" for point, cost in costs.items()]
    axis.set_xticks(range(len(names)), names)
    axis.set_xlabel("exit and its GMACs per video (1e9)")
    grid(axis)


def dodge(place: int, total: int, width: float) -> float:
    """How far sideways the mark `place` of `total` is drawn, so that none hides another."""
    return width * (place - (total - 1) / 2)


def peer_marks(peers: pd.DataFrame) -> dict[str, dict]:
    """A hollow mark for each published method, with a line through the points of one data set.

    Raises ValueError above 8 methods.
    """
    counts = peers.groupby(["method", "data"], sort=False).size().groupby("method", sort=False)
    most = counts.max()
    if len(most) > len(PEER_MARKERS):
        raise ValueError(
            f"{len(most)} published methods ({', '.join(most.index)}), and figures have marks for"
            f" {len(PEER_MARKERS)}: leave some out of results/peers.csv"
        )
    style = {"color": "0.2", "markerfacecolor": "white", "markeredgewidth": 0.8, "markersize": 4.5}
    style["linewidth"] = 0.6
    return {
        name: {**style, "marker": mark, "linestyle": "-" if most[name] > 1 else ""}
        for name, mark in zip(most.index, PEER_MARKERS)
    }


def peer_keys(looks: Mapping[str, dict]) -> list[Line2D]:
    """Of published methods, for `add_legend`. looks: see `peer_marks`."""
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]


def draw_peers(axis: Axes, peers: pd.DataFrame, looks: Mapping[str, dict]) -> None:
    """Published points. looks: see `peer_marks`."""
    for name, rows in peers.groupby("method", sort=False):
        axis.plot(rows["gmacs"], rows["top1_pct"], label=name, **looks[name])


def gain_bars(axis: Axes, points: Sequence[str], groups: Mapping[str, tuple]) -> None:
    """Mean, spread and single values of `gain` per exit; groups: {name: (table, bar's look)}."""
    width = 0.8 / len(groups)
    for number, (name, (table, look)) in enumerate(groups.items()):
        x = np.arange(len(points)) + dodge(number, len(groups), width)
        by_point = [table.loc[table["exit"] == point, "gain"] for point in points]
        mean = [values.mean() for values in by_point]
        std = [values.std() if len(values) > 1 else 0 for values in by_point]
        axis.bar(x, mean, 0.9 * width, edgecolor="black", linewidth=0.4, label=name, **look)
        axis.errorbar(x, mean, std, color="black", linestyle="", elinewidth=0.6)
        for place, values in zip(x, by_point):
            spots = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.4, "zorder": 3}
            axis.scatter(np.full(len(values), place), values, s=5, **spots)
    axis.axhline(0, color="black", linewidth=0.6)
