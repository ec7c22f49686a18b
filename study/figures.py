"""The figures of a study, one function each: DataFrames in, a matplotlib Figure out.

`study` is one setting of a study (`Study.settings`), all of whose runs may be averaged. Means and
standard deviations run over seeds and splits. Every figure carries what is drawn, n and protocol
below it, and is as wide as one or two columns of a paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from early_exit.wise import FULL
from study import drawing
from study.columns import ALL
from study.drawing import ONE_COLUMN, TWO_COLUMNS, add_caption, add_legend, marks, new_figure
from study.summary import (
    COMBINATION_LABELS,
    SHOWN,
    Study,
    combination_gains,
    label,
    mean_std,
    method_gains,
    where,
)

TOP1 = "test top-1 (%)"
STAR = {"marker": "*", "markersize": 8, "color": "black", "linestyle": ""}
SPREAD = "± is the sample standard deviation over runs (seeds and splits)."
# A network is told by its GMACs; the number of classes may differ and changes them by less.
SAME_NETWORK = 0.01


@drawing.styled
def trade_off(study: Study, peers: pd.DataFrame | None = None) -> Figure:
    """Accuracy against GMACs, a panel for each combination; lines sweep one common threshold.

    peers: published points (results/peers.csv), drawn where they are of the study's data set.
    """
    looks = marks(study.methods)
    figure, axes = new_figure(TWO_COLUMNS, 2.8, 1, 3, sharex=True, sharey=True)
    shown = where(peers, data=study.data) if peers is not None else pd.DataFrame()
    curves, keys = mean_curves(study), []
    for axis, (combination, name) in zip(axes[0], COMBINATION_LABELS.items()):
        for method, look in looks.items():
            own = where(curves, method=method, combination=combination)
            axis.plot(own["gmacs"], own["top1_pct"], **{**look, "marker": ""}, label=method)
            _calibrated_point(axis, study, method, combination, look)
        axis.plot(study.costs[FULL], full_top1(study), **STAR, zorder=4)
        if len(shown):
            keys = drawing.draw_peers(axis, shown)
        drawing.log_axis(axis)
        drawing.exit_lines(axis, study.costs)
        drawing.grid(axis)
        axis.set_title(name)
    axes[0, 0].set_ylabel(TOP1)
    axes[0, 1].set_xlabel("mean GMACs per video (1e9, log scale)")
    add_legend(figure, looks, Line2D([], [], label="full network, no exits", **STAR), *keys)
    note = ""
    if peers is not None and not len(shown):
        known = " and ".join(dict.fromkeys(peers["data"]))
        note = f"Published peers report {known} only, so none is drawn."
    add_caption(
        figure,
        "Lines: one threshold common to all exits, swept, averaged over runs. Markers: thresholds "
        f"calibrated for {study.calibration()}, ± sample standard deviation over runs. "
        "Dotted: cost of leaving at each exit.",
        study.protocol(),
        note,
    )
    return figure


@drawing.styled
def published(peers: pd.DataFrame, studies: Sequence[Study] = ()) -> Figure:
    """Published accuracy against published GMACs per video, a panel for each data set.

    studies: ours; those of the same data sets are drawn as their WISE curves.
    """
    data_sets = list(dict.fromkeys(peers["data"]))
    figure, axes = new_figure(TWO_COLUMNS, 2.6, 1, len(data_sets))
    ours = [study for study in studies if study.data in data_sets]
    looks = marks(list(dict.fromkeys(name for study in ours for name in study.methods)))
    for axis, data in zip(axes[0], data_sets):
        for study in (study for study in ours if study.data == data):
            curves = where(mean_curves(study), combination="wise")
            for method in study.methods:
                own = where(curves, method=method)
                axis.plot(own["gmacs"], own["top1_pct"], **{**looks[method], "marker": ""})
        keys = drawing.draw_peers(axis, where(peers, data=data))
        drawing.log_axis(axis)
        drawing.grid(axis)
        axis.set(title=data, xlabel="GMACs per video (1e9, log scale)")
    axes[0, 0].set_ylabel("top-1 (%)")
    add_legend(figure, looks, *keys, columns=7, marked=False)
    add_caption(
        figure,
        "Hollow marks: published numbers, costs in units of 1e9 (the papers print MACs / 1024³); "
        "protocol and source of each are in results/peers.csv. PKD + WISE chose the epochs of its "
        "exits on test videos and counted exits with a wrong label as free.",
        "Lines: ours with WISE, averaged over runs." if ours else "",
    )
    return figure


@drawing.styled
def accuracy_per_exit(study: Study) -> Figure:
    """Top-1 when every video is decided at one exit, mean and spread, a panel per combination."""
    looks = marks(study.methods)
    figure, axes = new_figure(TWO_COLUMNS, 2.5, 1, 3, sharey=True)
    table = mean_std(study.exits, ["method", "combination", "exit"], "top1_pct")
    for axis, (combination, name) in zip(axes[0], COMBINATION_LABELS.items()):
        for number, (method, look) in enumerate(looks.items()):
            own = where(table, method=method, combination=combination)
            own = own.set_index("exit").loc[study.points]
            x = np.arange(len(own)) + drawing.dodge(number, len(looks), 0.12)
            axis.errorbar(x, own["mean"], own["std"].fillna(0), **look, elinewidth=0.7)
        drawing.exit_axis(axis, study.costs)
        axis.set_title(name)
    axes[0, 0].set_ylabel(TOP1)
    add_legend(figure, looks)
    add_caption(figure, "Every video is decided at that exit.", SPREAD, study.protocol())
    return figure


@drawing.styled
def gains(study: Study) -> Figure:
    """Percentage points won at each exit, paired: PKD over CE, and WISE over vanilla."""
    figure, axes = new_figure(TWO_COLUMNS, 2.6, 1, 2, sharey=True)
    pairs = {name: method_gains(study, "prog_kd", "team_ce", name) for name in COMBINATION_LABELS}
    greys = ("0.25", "0.6", "0.9")
    by_combination = {
        COMBINATION_LABELS[name]: (table, {"facecolor": grey})
        for (name, table), grey in zip(pairs.items(), greys)
    }
    wise = combination_gains(study, "wise", "vanilla")
    by_method = {
        label(name): (where(wise, method=name), {"facecolor": look["color"], "hatch": hatch})
        for (name, look), hatch in zip(marks(study.methods).items(), drawing.HATCHES)
    }
    panels = {"PKD over CE": by_combination, "WISE over vanilla": by_method}
    for axis, (title, groups) in zip(axes[0], panels.items()):
        drawing.gain_bars(axis, study.points, groups)
        drawing.exit_axis(axis, study.costs)
        axis.set_title(title)
        axis.legend(loc="best")
    axes[0, 0].set_ylabel("gain in test top-1 (points)")
    number = len(pairs["vanilla"][["split", "seed"]].drop_duplicates())
    add_caption(
        figure,
        "Bars: mean difference between runs of the same split and seed "
        f"({number} pairs of PKD and CE); dots: each pair; ±: standard deviation over pairs.",
        study.protocol(),
    )
    return figure


@drawing.styled
def exit_shares(study: Study, combination: str = "wise") -> Figure:
    """Share of the test videos that leave at each exit, stacked, against the common threshold."""
    figure, axes = new_figure(TWO_COLUMNS, 2.4, 1, len(study.methods), sharex=True, sharey=True)
    colours = drawing.tones(len(study.points))
    for axis, method in zip(axes[0], study.methods):
        share, top1 = mean_sweep(study, method, combination)
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
        "Areas, from below: videos that leave at exit 1, 2, ... with "
        f"{COMBINATION_LABELS[combination]} and one threshold for all exits, averaged over runs.",
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
    """Where each class's videos go under the runs' policies: called what, and leaving where.

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


@drawing.styled
def latency(study: Study, timings: pd.DataFrame, combination: str = "wise") -> Figure:
    """Accuracy against measured milliseconds per clip, loading included where it was measured.

    timings: rows of the study's network on one machine, see `matching_timings`.
    """
    ms = timings.set_index("exit")["latency_ms"]
    load = ms.get("load", 0.0)
    looks = marks(study.methods)
    figure, axes = new_figure(ONE_COLUMN, 3.1, 1, 1)
    axis = axes[0, 0]
    for method, look in looks.items():
        share, top1 = mean_sweep(study, method, combination)
        mean_ms = load + share @ ms[study.points] / 100
        axis.plot(mean_ms, top1, **{**look, "marker": ""}, label=method)
    axis.plot(load + ms[FULL], full_top1(study), **STAR)
    if load:
        axis.axvspan(0, load, color="0.93", zorder=0)
    axis.set_xlim(left=0)
    drawing.exit_lines(axis, {point: load + ms[point] for point in study.points})
    drawing.grid(axis)
    axis.set(xlabel="mean latency per clip (ms)", ylabel=TOP1)
    star = Line2D([], [], label="full network, no exits", **STAR)
    add_legend(figure, looks, star, columns=2, marked=False)
    about = timings.iloc[0]
    add_caption(
        figure,
        f"{COMBINATION_LABELS[combination]}, one common threshold swept. Latency: batch "
        f"{about['batch_size']}, {about['precision']}, {about['threads']} threads, "
        f"{about['machine']}.",
        "Grey: loading the clip." if load else "Without loading the clip.",
        study.protocol(),
    )
    return figure


def matching_timings(study: Study, timings: pd.DataFrame) -> pd.DataFrame | None:
    """Rows of results/latency.csv that timed the study's network clip by clip; None without any.

    The network is told by its exits and their GMACs. Of several machines, precisions and numbers of
    threads the one with the fastest full network is taken.
    """
    found = []
    one = ["arch", "motion_arch", "num_segments", "crop_size", "precision", "threads", "machine"]
    for _, rows in timings[timings["batch_size"] == 1].groupby(one, sort=False):
        gmacs = rows[rows["exit"] != "load"].set_index("exit")["gmacs"]
        if set(gmacs.index) == set(study.points) and all(
            abs(gmacs[point] / cost - 1) < SAME_NETWORK for point, cost in study.costs.items()
        ):
            found.append(rows)
    full = [where(rows, exit=FULL)["latency_ms"].iloc[0] for rows in found]
    return found[int(np.argmin(full))] if found else None


def mean_curves(study: Study) -> pd.DataFrame:
    """method, combination, threshold, gmacs, top1_pct: the sweep, averaged at equal thresholds."""
    by = ["method", "combination", "threshold"]
    return (
        where(study.trade_off, exit=ALL).groupby(by, as_index=False)[["gmacs", "top1_pct"]].mean()
    )


def mean_sweep(study: Study, method: str, combination: str) -> tuple[pd.DataFrame, pd.Series]:
    """By threshold, averaged over runs: share_pct leaving at each decision point, and top1_pct."""
    own = where(study.trade_off, method=method, combination=combination)
    share = own[own["exit"] != ALL].pivot_table("share_pct", "threshold", "exit")
    top1 = where(own, exit=ALL).groupby("threshold")["top1_pct"].mean()
    return share[study.points], top1


def full_top1(study: Study) -> float:
    """Mean top-1 of the network without exits."""
    return where(study.exits, exit=FULL, combination="vanilla")["top1_pct"].mean()


def _calibrated_point(axis: Axes, study: Study, method: str, combination: str, look: dict) -> None:
    rule = SHOWN["rule"]
    table = where(study.policies, exit=ALL, rule=rule, method=method, combination=combination)
    mean, std = (getattr(table[["gmacs", "top1_pct"]], name)() for name in ("mean", "std"))
    mark = {"color": look["color"], "marker": look["marker"], "markersize": 5, "linestyle": ""}
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6, "elinewidth": 0.6, "zorder": 3}
    spread = {"xerr": np.nan_to_num(std["gmacs"]), "yerr": np.nan_to_num(std["top1_pct"])}
    axis.errorbar(mean["gmacs"], mean["top1_pct"], **spread, **mark, **edge)


def _write_cells(axis: Axes, values: np.ndarray, form: str, dark: float, size: float) -> None:
    """Numbers into the cells of a heat map, white where it is dark; NaN stays empty."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > dark else "black"
            place = {"ha": "center", "va": "center", "fontsize": size, "color": colour}
            axis.text(column, row, form.format(value), **place)
