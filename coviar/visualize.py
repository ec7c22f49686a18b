"""Draw what the loader sees: a GOP's I-frame, and the motion vectors and residuals that follow it.

    python -m coviar.visualize VIDEO [--gop 3] [--positions 2 5 8 11] [--out PNG]

One column per position. Motion vectors are coloured by direction (hue) and length (saturation), as
optical flow is; the wheel says which way is which. The residual is shown as the network gets it, 0
in mid grey. Both are accumulated: relative to the I-frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from coviar.clip import FRAME, load, load_clip
from coviar.command import run
from coviar.files import check_suffix, whole_file
from coviar.index import read_index

_COLUMNS = 4


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument("--gop", type=int, help="which GOP (default: the one in the middle)")
    parser.add_argument(
        "--positions", type=int, nargs="+", help=f"in the GOP (default: {_COLUMNS} over all of it)"
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="default: VIDEO's name, here")
    return parser


def flow_colours(mv: np.ndarray, longest: float) -> np.ndarray:
    """Motion (..., 2) in pixels as RGB in 0..1: hue is direction, saturation length / `longest`.

    Still is white, right red, and from there clockwise on the screen: down green-yellow, left cyan,
    up violet.
    """
    x, y = mv[..., 0].astype(float), mv[..., 1].astype(float)
    hue = np.arctan2(y, x) / (2 * np.pi) % 1.0
    saturation = np.clip(np.hypot(x, y) / longest, 0, 1)
    return hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1))


def draw_gop(path, gop: int, positions) -> Figure:
    """The figure: a column for the I-frame and the wheel, then one per position."""
    index = read_index(path)
    clip = load_clip(path, [(gop, position) for position in positions], index=index)
    encoded = load_clip(path, [(gop, position) for position in positions], index=index, encode=True)
    longest = max(1.0, np.ceil(np.percentile(np.hypot(clip.mv[..., 0], clip.mv[..., 1]), 99)))

    columns = len(positions) + 1
    shape = index.height / index.width
    figure = Figure(figsize=(2.4 * columns, 2.4 * shape * 3 + 0.5), layout="constrained", dpi=110)
    axes = figure.subplots(3, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    _show(axes[0, 0], encoded.iframe[0], "I-frame")
    draw_wheel(axes[1, 0], longest)
    for column, position in enumerate(positions):
        frame = load(path, gop, position, FRAME, True)[..., ::-1]
        _show(axes[0, column + 1], frame, f"picture {position}")
        _show(axes[1, column + 1], flow_colours(clip.mv[column], longest), "motion vectors")
        _show(axes[2, column + 1], encoded.residual[column][..., ::-1], "residual")
    return figure


def _show(axis, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture)
    axis.set_title(title, fontsize=9)


def draw_wheel(axis, longest: float) -> None:
    """The legend of `flow_colours`: which way is which."""
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    wheel = flow_colours(np.stack([x, y], axis=-1), 1.0)
    outside = np.hypot(x, y) > 1
    axis.imshow(np.dstack([wheel, ~outside]))
    axis.set_title(f"direction; rim: {longest:.0f} pixels", fontsize=9)


def default_positions(length: int) -> list:
    """At most 4 positions of a GOP of `length` pictures, evenly spread; the last one included."""
    last = length - 1
    count = min(_COLUMNS, last)
    return [round(last * (i + 1) / count) for i in range(count)] if count else [0]


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        check_suffix(args.out, ".png")
        index = read_index(args.video)
        gop = index.num_gops // 2 if args.gop is None else args.gop
        if not 0 <= gop < index.num_gops:
            raise IndexError(f"--gop {gop} is not in 0..{index.num_gops - 1}")
        length = index.gop_lengths[gop]
        positions = args.positions or default_positions(length)
        for position in positions:
            if not 0 <= position < length:
                raise IndexError(f"--positions {position} is not in 0..{length - 1} of GOP {gop}")
        figure = draw_gop(args.video, gop, positions)
        out = args.out or Path(Path(args.video).stem + ".png")
        with whole_file(out) as temporary:
            figure.savefig(temporary, format="png")
    except (OSError, ValueError, IndexError) as error:
        parser.error(str(error))
    print(f"{args.video}: GOP {gop}, positions {positions} -> {out}")
    return 0


if __name__ == "__main__":
    run(main, get_args_parser())
