"""Curves of study.promises over the number of calibration recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from study import drawing

DATA_NAMES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51"}
DRAWN = ("max", "max, clips", "gate", "threshold per exit", "today, no promise")


@drawing.styled
def draw_promises(table: pd.DataFrame, folder: str | os.PathLike, guarantee: float) -> list[Path]:
    """Share of draws with the promise broken, and compute saved, by data set and drop: means over
    the splits. Returns the files written."""
    table = table[(table["guarantee"] == guarantee) & table["method"].isin(DRAWN)]
    drops, looks = (1.0, 2.0), drawing.marks(DRAWN)
    figure, axes = drawing.new_figure(drawing.TWO_COLUMNS, 3.6, 2, 2 * len(drops), sharex=True)
    columns = [(data, drop) for data in DATA_NAMES for drop in drops]
    for (data, drop), (top, bottom) in zip(columns, axes.T):
        part = table[(table["data"] == data) & (table["drop_pct"] == drop)]
        for name, look in looks.items():
            rows = part[part["method"] == name].groupby("recordings").mean(numeric_only=True)
            for axis, column in ((top, "broken_pct"), (bottom, "saved_pct")):
                axis.plot(rows.index, rows[column], **look)
        best = part[part["method"] == "max"]["best_saved_pct"].mean()
        top.axhline(100 * (1 - guarantee), color="0.5", linewidth=0.7)
        bottom.axhline(best, color="0.5", linewidth=0.7)
        top.set_title(f"{DATA_NAMES[data]}, drop of {drop:g}")
        for axis in (top, bottom):
            drawing.log_axis(axis)
            drawing.grid(axis)
        bottom.set_xlabel("recordings to calibrate on")
    axes[0, 0].set_ylabel("promise broken, % of draws")
    axes[1, 0].set_ylabel("compute saved, %")
    drawing.add_legend(figure, looks, columns=len(DRAWN))
    drawing.add_caption(
        figure,
        f"Guarantee {guarantee:g}; means of three splits, 500 draws of recordings each.",
        "Grey lines: the share of broken promises that is allowed, and the most that any threshold",
        "on the largest probability could have saved.",
    )
    return drawing.save(figure, folder, f"promises_{guarantee:g}".replace(".", "_"))
