"""Figures of accuracy and what it costs: a function takes a study and returns a Figure.

`study` is one setting of a study (`Study.settings`), all of whose runs may be averaged. Means and
standard deviations run over seeds and splits. Every figure has a caption that says what is drawn,
n and protocol, and is as wide as one or two columns of a paper.
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
from study.drawing import (
    ONE_COLUMN,
    TOP1,
    TWO_COLUMNS,
    add_caption,
    add_legend,
    marks,
    new_figure,
)
from study.summary import (
    COMBINATION_LABELS,
    SHOWN,
    Study,
    combination_gains,
    full_top1,
    label,
    mean_curves,
    mean_std,
    mean_sweep,
    method_gains,
    where,
)

STAR = {"marker": "*", "markersize": 8, "color": "black", "linestyle": ""}
SPREAD = "± is the sample standard deviation over runs (seeds and splits)."
# Networks whose GMACs differ by less are the same but for the number of classes.
SAME_NETWORK = 0.01


@drawing.styled
def trade_off(study: Study, peers: pd.DataFrame | None = None) -> Figure:
    """Accuracy against GMACs, a panel for each combination; lines sweep one common threshold.

    peers: published points (results/peers.csv), drawn where they are of the study's data set.
    """
    looks = marks(study.methods, study.name)
    figure, axes = new_figure(TWO_COLUMNS, 2.8, 1, 3, sharex=True, sharey=True)
    shown, peer_looks = pd.DataFrame(), {}
    if peers is not None:
        shown, known = where(peers, data=study.data), drawing.peer_marks(peers)
        peer_looks = {name: known[name] for name in dict.fromkeys(shown["method"])}
    curves = mean_curves(study)
    for axis, (combination, name) in zip(axes[0], COMBINATION_LABELS.items()):
        for method, look in looks.items():
            own = where(curves, method=method, combination=combination)
            axis.plot(own["gmacs"], own["top1_pct"], **{**look, "marker": ""}, label=method)
            _calibrated_point(axis, study, method, combination, look)
        axis.plot(study.costs[FULL], full_top1(study), **STAR, zorder=4)
        if len(shown):
            drawing.draw_peers(axis, shown, peer_looks)
        drawing.log_axis(axis)
        drawing.exit_lines(axis, study.costs)
        drawing.grid(axis)
        axis.set_title(name)
    axes[0, 0].set_ylabel(TOP1)
    axes[0, 1].set_xlabel("mean GMACs per video (1e9, log scale)")
    star = Line2D([], [], label="full network, no exits", **STAR)
    add_legend(figure, looks, star, *drawing.peer_keys(peer_looks))
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
    methods = list(dict.fromkeys(name for study in ours for name in study.methods))
    looks = marks(methods, " and ".join(study.name for study in ours))
    peer_looks = drawing.peer_marks(peers)
    for axis, data in zip(axes[0], data_sets):
        for study in (study for study in ours if study.data == data):
            curves = where(mean_curves(study), combination="wise")
            for method in study.methods:
                own = where(curves, method=method)
                axis.plot(own["gmacs"], own["top1_pct"], **{**looks[method], "marker": ""})
        drawing.draw_peers(axis, where(peers, data=data), peer_looks)
        drawing.log_axis(axis)
        drawing.grid(axis)
        axis.set(title=data, xlabel="GMACs per video (1e9, log scale)")
    axes[0, 0].set_ylabel("top-1 (%)")
    add_legend(figure, looks, *drawing.peer_keys(peer_looks), columns=7, marked=False)
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
    looks = marks(study.methods, study.name)
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
        for (name, look), hatch in zip(marks(study.methods, study.name).items(), drawing.HATCHES)
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
def latency(study: Study, timings: pd.DataFrame) -> Figure:
    """Accuracy of WISE against measured milliseconds per clip, with loading if it was measured.

    timings: rows of the study's network on one machine, see `matching_timings`.
    """
    ms = timings.set_index("exit")["latency_ms"]
    load = ms.get("load", 0.0)
    looks = marks(study.methods, study.name)
    figure, axes = new_figure(ONE_COLUMN, 3.1, 1, 1)
    axis = axes[0, 0]
    for method, look in looks.items():
        share, top1 = mean_sweep(study, method, "wise")
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
        "WISE, one common threshold swept. Latency: batch "
        f"{about['batch_size']}, {about['precision']}, {about['threads']} threads, "
        f"{about['machine']}.",
        "Grey: loading the clip." if load else "Without loading the clip.",
        study.protocol(),
    )
    return figure


def matching_timings(study: Study, timings: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of results/latency.csv of the study's network, clip by clip; None without any.

    A network is recognised by its exits and their GMACs. Of several machines, precisions and
    numbers of threads the one with the fastest full network is taken.
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


def _calibrated_point(axis: Axes, study: Study, method: str, combination: str, look: dict) -> None:
    rule = SHOWN["rule"]
    table = where(study.policies, exit=ALL, rule=rule, method=method, combination=combination)
    mean, std = (getattr(table[["gmacs", "top1_pct"]], name)() for name in ("mean", "std"))
    mark = {"color": look["color"], "marker": look["marker"], "markersize": 5, "linestyle": ""}
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6, "elinewidth": 0.6, "zorder": 3}
    spread = {"xerr": np.nan_to_num(std["gmacs"]), "yerr": np.nan_to_num(std["top1_pct"])}
    axis.errorbar(mean["gmacs"], mean["top1_pct"], **spread, **mark, **edge)
