"""One prediction as a picture: what the network saw, how sure it was, where it left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from tqdm import tqdm

from coviar.files import whole_file
from coviar.visualize import draw_wheel, flow_colours
from early_exit.prediction import Prediction
from early_exit.wise import FULL

_LEFT, _PASSED = "#0072B2", "0.78"
_LABEL = {"ha": "center", "fontsize": 9}
_MAX_CLASSES = 10
_PIXELS_PER_LEVEL = 20 / 127.5  # of motion vectors as the network gets them, 128 being still


def draw_prediction(
    path: Path,
    prediction: Prediction,
    class_names: Sequence[str],
    costs: Mapping[str, float],
    top: int,
) -> None:
    """Write a PNG: a column per segment; below, confidences with thresholds and the `top` classes
    (at most 10).

    costs: cumulative GMACs by decision point, {"exit1": ..., "full": ...}.
    """
    segments = len(prediction.clip[0])
    side = min(2.5, max(1.25, 8.8 / segments))  # inches of a picture
    size = max(segments * side, 8.8) + 0.5, 3 * side + 3.6
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    above, below = figure.subfigures(2, 1, height_ratios=[3 * side + 0.7, 2.9])
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    figure.suptitle(_title(prediction, class_names, costs), fontsize=12, parse_math=False)
    longest = _draw_clip(above, prediction)
    wheel, sure, likely = below.subplots(1, 3, width_ratios=[0.7, 2.6, 2])
    wheel.set_axis_off()
    draw_wheel(wheel, longest)
    wheel.set_title(f"motion vectors\nrim: {longest:.0f} pixels", fontsize=9)
    _draw_confidences(sure, prediction, costs)
    _draw_classes(likely, prediction, class_names, top)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def drawn(path: Path, draw: Callable, *content: object) -> bool:
    """Whether `draw` could write the picture; if not, a line on standard error names it."""
    try:
        draw(path, *content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        tqdm.write(f"failed: picture {path}: {reason}", file=sys.stderr)
        return False
    return True


def short_name(name: str) -> str:
    """At most 70 letters of a name: its beginning and its end. Bytes that are no UTF-8 are spelled
    out, because matplotlib draws none."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return name if len(name) <= 70 else f"{name[:34]}...{name[-33:]}"


def _title(prediction: Prediction, class_names: Sequence[str], costs: Mapping[str, float]) -> str:
    label, probability = prediction.top(1)[0]
    name = short_name(Path(prediction.video).name)
    gmacs, full = costs[prediction.point], costs[FULL]
    way = "full network" if prediction.point == FULL else f"left at {_words(prediction.point)}"
    cost = f"{gmacs:.2f} of {full:.2f} GMACs ({100 * gmacs / full:.0f} %)"
    return f"{name}\n{class_names[label]}, {100 * probability:.0f} %; {way}, {cost}"


def _draw_clip(figure: SubFigure, prediction: Prediction) -> float:
    """The three rows of pictures; returns the length in pixels of the strongest colour."""
    # (k, S, S, c) of the k segments read
    iframe, mv, residual = (x.permute(0, 2, 3, 1).numpy() for x in prediction.clip)
    motion = (mv.astype(np.float32) - 128) * _PIXELS_PER_LEVEL
    longest = max(1.0, np.ceil(np.percentile(np.hypot(motion[..., 0], motion[..., 1]), 99)))
    rows = {
        "I-frame": iframe,
        "motion vectors": flow_colours(motion, longest),
        "residual": residual[..., ::-1],
    }
    axes = figure.subplots(3, len(iframe), squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items()):
        for axis, picture in zip(row, pictures):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=9)
    for number, axis in zip(prediction.segments, axes[0]):
        axis.set_title(f"segment {number + 1}", fontsize=9)
    return float(longest)


def _draw_confidences(axis: Axes, prediction: Prediction, costs: Mapping[str, float]) -> None:
    points = list(costs) if prediction.thresholds else [FULL]
    for x, point in enumerate(points):
        threshold = prediction.thresholds.get(point)
        if threshold is not None:
            line = axis.hlines(min(threshold, 1), x - 0.45, x + 0.45, color="black", lw=1.6)
            line.set_label("threshold" if x == 0 else None)
        if point not in prediction.confidences:
            axis.text(x, 0.03, "not run", color="0.5", **_LABEL)
            continue
        value = prediction.confidences[point]
        axis.bar(x, value, 0.7, color=_LEFT if point == prediction.point else _PASSED)
        if value > 0.1:  # inside the bar, at its foot, where no threshold crosses it
            is_dark = point == prediction.point
            axis.text(x, 0.03, f"{value:.2f}", color="white" if is_dark else "black", **_LABEL)
        else:
            axis.text(x, value + 0.03, f"{value:.2f}", **_LABEL)
    ticks = [f"{_words(point)}\n{costs[point]:.2f}" for point in points]
    axis.set_xticks(range(len(points)), ticks, fontsize=9)
    axis.set_xlim(-0.6, max(len(points), 3) - 0.4)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("decision point, GMACs spent by then", fontsize=9)
    axis.set_title("confidence", fontsize=10)
    axis.tick_params(axis="y", labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    if prediction.thresholds:
        axis.legend(fontsize=8, loc="upper right", frameon=False, bbox_to_anchor=(1, 1.16))


def _draw_classes(axis: Axes, prediction: Prediction, class_names: Sequence[str], top: int) -> None:
    likeliest = prediction.top(min(top, _MAX_CLASSES))
    rows = range(len(likeliest))
    percent = [100 * probability for _, probability in likeliest]
    axis.barh(rows, percent, 0.7, color=[_LEFT, *[_PASSED] * (len(percent) - 1)])
    for row, value in zip(rows, percent):
        axis.text(value + 1.5, row, f"{value:.1f}", va="center", fontsize=9)
    names = [class_names[label] for label, _ in likeliest]
    axis.set_yticks(rows, names, fontsize=9, parse_math=False)
    axis.set_ylim(max(len(rows), 3) - 0.4, -0.6)
    axis.set_xlim(0, 118)
    axis.set_xticks([0, 50, 100])
    axis.tick_params(axis="x", labelsize=9)
    axis.set_xlabel("%", fontsize=9)
    where = (
        "after the full network" if prediction.point == FULL else f"at {_words(prediction.point)}"
    )
    axis.set_title(f"probability {where}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _words(point: str) -> str:
    return point.replace("exit", "exit ").replace("@", " @ ")
