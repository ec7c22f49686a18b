"""Figures of the exits: shares that leave, WISE weights, mistakes by class.

As in study.figures, a function takes a study and returns a matplotlib Figure.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from early_exit.wise import FULL
from study import drawing
from study.drawing import TOP1, TWO_COLUMNS, add_caption, new_figure
from study.summary import COMBINATION_LABELS, Study, label, mean_std, mean_sweep, where


@drawing.styled
def exit_shares(study: Study) -> Figure:
    """Share of the test videos that leave at each exit with WISE, stacked, against the common
    threshold."""
    figure, axes = new_figure(TWO_COLUMNS, 2.4, 1, len(study.methods), sharex=True, sharey=True)
    colours = drawing.tones(len(study.points))
    for axis, method in zip(axes[0], study.methods):
        share, top1 = mean_sweep(study, method, "wise")
        edges = {"edgecolor": "white", "linewidth": 0.4, "labels": study.points}
        areas = axis.stackplot(share.index, share.T, colors=colours, **edges)
        for colour, width in (("white", 2.2), ("black", 1.0)):
            axis.plot(top1.index, top1, color=colour, linewidth=width, linestyle="--")
        axis.set(xlim=(0, 1), ylim=(0, 100), title=label(method), xlabel="confidence threshold")
    axes[0, 0].set_ylabel("share of test videos (%)")
    line = Line2D([], [], color="black", linestyle="--", label=TOP1)
    figure.legend(handles=[*areas, line], loc="outside upper center", ncols=len(areas) + 1)
    add_caption(
        figure,
        "Areas, from below: videos that leave at exit 1, 2, ... with WISE and one threshold for "
        "all exits, averaged over runs.",
        study.protocol(),
    )
    return figure


@drawing.styled
def weights(study: Study) -> Figure:
    """Mean WISE weights, a heat map for each method: decision points down, outputs across."""
    methods, points = study.methods, study.points
    outputs = list(where(study.weights, point=FULL)["output"].drop_duplicates())
    rows = -(-len(methods) // 2)
    height = 0.6 + rows * (0.3 + 0.22 * len(points))
    figure, axes = new_figure(TWO_COLUMNS, height, rows, 2, sharex=True, sharey=True)
    table = mean_std(study.weights, ["method", "point", "output"], "beta")
    top = table["mean"].max()
    for axis, method in zip(axes.flat, methods):
        mean = where(table, method=method).pivot(index="point", columns="output", values="mean")
        mean = mean.reindex(index=points, columns=outputs)
        image = axis.imshow(mean, cmap="Greys", vmin=0, vmax=top, aspect="auto")
        _write_cells(axis, mean.to_numpy(), "{:.2f}", dark=0.6 * top, size=6)
        axis.set_xticks(range(len(outputs)), outputs)
        axis.set_yticks(range(len(points)), points)
        axis.tick_params(length=0)
        axis.set_title(label(method))
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("decided at")
    figure.colorbar(image, ax=axes, label="mean WISE weight β", shrink=0.8, pad=0.01)
    add_caption(
        figure,
        "Weight of each output (across) in the decision at each exit (down), averaged over runs; "
        "empty: not computed yet at that exit. Exit 1 has nothing to combine.",
        study.protocol(),
    )
    return figure


@drawing.styled
def confusion(study: Study, method: str = "prog_kd") -> Figure:
    """By class, under the runs' policies: the labels that videos get, and where they leave.

    Raises ValueError when the study has no runs of the method.
    """
    if method not in study.methods:
        raise ValueError(f"no runs of {method!r} here, only of {', '.join(study.methods)}")
    own = where(study.decisions, method=method, left=1)
    classes = sorted(set(own["class_name"]) | set(own["prediction"]))
    percent = 100 * pd.crosstab(own["class_name"], own["prediction"], normalize="index")
    percent = percent.reindex(index=classes, columns=classes, fill_value=0)
    depth = 100 * pd.crosstab(own["class_name"], own["exit"], normalize="index")
    depth = depth.reindex(index=classes, columns=study.points, fill_value=0)
    few = len(classes) <= 20
    size = 6.5 if few else max(3.0, 6 - len(classes) / 30)
    height = 2.1 + (0.17 if few else 1.15 * size / 72) * len(classes)
    figure, axes = new_figure(TWO_COLUMNS, height, 1, 2, sharey=True)
    called, leaving = axes[0]
    image = called.imshow(percent, cmap="Greys", vmin=0, vmax=100, aspect="auto")
    if few:
        shown = percent.where(percent >= 0.5)  # what rounds to 0 is left empty
        _write_cells(called, shown.to_numpy(), "{:.0f}", dark=60, size=size)
    else:
        figure.colorbar(image, ax=called, label="share of the class (%)", pad=0.01, aspect=60)
    called.set_yticks(range(len(classes)), classes, fontsize=size)
    names = classes if few else []
    called.set_xticks(range(len(names)), names)
    for name in called.get_xticklabels():
        name.set(fontsize=size, rotation=40, rotation_mode="anchor", ha="right")
    order = "" if few else " (in the order of the rows)"
    called.set(xlabel=f"called{order}", ylabel="true class", title="% of the class called")
    start = np.zeros(len(classes))
    for point, tone in zip(study.points, drawing.tones(len(study.points))):
        edges = {"edgecolor": "white", "linewidth": 0.4, "label": point}
        leaving.barh(range(len(classes)), depth[point], left=start, color=tone, **edges)
        start += depth[point].to_numpy()
    leaving.set(xlim=(0, 100), xlabel="% of the class", title="leaving at")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.45 / (height - 1.4))}
    leaving.legend(ncols=3, handlelength=1.2, **below)
    runs, right = len(own[["split", "seed"]].drop_duplicates()), 100 * own["correct"].mean()
    add_caption(
        figure,
        f"{label(method)} with {COMBINATION_LABELS[own['combination'].iloc[0]]} under the policy "
        f"each run saved ({runs} runs, {len(own)} decisions, {right:.1f} % right).",
        study.protocol(),
    )
    return figure


def _write_cells(axis: Axes, values: np.ndarray, form: str, dark: float, size: float) -> None:
    """Write numbers into the cells of a heat map, in white on dark cells; NaN stays empty."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > dark else "black"
            place = {"ha": "center", "va": "center", "fontsize": size, "color": colour}
            axis.text(column, row, form.format(value), **place)
