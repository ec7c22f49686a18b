"""The motion vectors that are in a video file, as its encoder wrote them, without a re-encoding.

    python -m coviar.vectors VIDEO OUT.npz [--start 0] [--stop 100] [--picture OUT.png]

OUT.npz holds, for n pictures in the order they are shown:

    index, time, type   (n,): number of the picture, seconds (nan: the file does not say), I, P, B
    vectors             of all pictures in one array: source, w, h, src_x, src_y, dst_x, dst_y,
                        motion_scale, motion_x, motion_y (see coviar.exported.read_vectors)
    first               (n + 1,): the vectors of picture i are vectors[first[i] : first[i + 1]]
    size                width and height of a picture in pixels

--picture draws the picture that moves most: its motion vectors by colour, and itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields

from coviar.command import run
from coviar.exported import VECTOR, PictureVectors, dense_field, read_vectors
from coviar.files import check_suffix, whole_file
from coviar.source import decode_source

_PACKED = repack_fields(VECTOR)  # without the bytes between FFmpeg's fields


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument("out", type=Path, metavar="OUT.npz")
    parser.add_argument("--start", type=int, default=0, help="first picture (0)")
    parser.add_argument("--stop", type=int, help="the picture to stop before (default: the end)")
    parser.add_argument(
        "--picture", type=Path, metavar="OUT.png", help="draw one picture's vectors"
    )
    return parser


def write_vectors(
    path: str | os.PathLike, out: str | os.PathLike, start: int = 0, stop: int | None = None
) -> tuple:
    """Write the vectors of pictures start..stop-1 to the .npz file `out`, whole or not at all.

    Returns the number of pictures, of vectors, and the PictureVectors of the picture that moves
    most. Errors as `read_vectors`.
    """
    facts, counts, most, largest = [], [0], None, -1.0
    with whole_file(out) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as rows:
        for picture in read_vectors(path, start, stop):
            facts.append((picture.index, picture.time, picture.type))
            counts.append(len(picture.vectors))
            rows.write(picture.vectors.astype(_PACKED).tobytes())
            if _total_motion(picture.vectors) > largest:
                most, largest = picture, _total_motion(picture.vectors)
        first = np.cumsum(counts)
        arrays = dict(zip(("index", "time", "type"), map(np.array, zip(*facts))))
        arrays.update(first=first, size=np.array(most.size))
        arrays["time"] = arrays["time"].astype(float)  # None to nan
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values)
            with archive.open("vectors.npy", "w", force_zip64=True) as member:
                descr = np.lib.format.dtype_to_descr(_PACKED)
                header = {"descr": descr, "fortran_order": False, "shape": (int(first[-1]),)}
                np.lib.format.write_array_header_1_0(member, header)
                rows.seek(0)
                shutil.copyfileobj(rows, member, 1 << 20)
    return len(facts), int(first[-1]), most


def _total_motion(vectors: np.ndarray) -> float:
    lengths = np.hypot(vectors["motion_x"], vectors["motion_y"]) / vectors["motion_scale"]
    return float((lengths * vectors["w"] * vectors["h"]).sum())


def draw_vectors(path: str | os.PathLike, picture: PictureVectors):
    """The figure of a picture with its vectors as arrows, the same by colour, and the wheel."""
    from matplotlib.figure import Figure

    from coviar.visualize import draw_wheel, flow_colours

    frame = next(islice(decode_source(path), picture.index, None))
    mv, mask = dense_field(picture.vectors, frame.width, frame.height)
    longest = max(1.0, np.ceil(np.percentile(np.hypot(mv[..., 0], mv[..., 1]), 99)))
    shape = frame.height / frame.width
    figure = Figure(figsize=(12, 4.6 * shape + 0.4), layout="constrained", dpi=110)
    left, middle, right = figure.subplots(1, 3, width_ratios=[4, 4, 1.5])
    left.imshow(frame.to_ndarray(format="rgb24"))
    blocks = picture.vectors[picture.vectors["source"] < 0]
    if not len(blocks):
        blocks = picture.vectors
    motion = -np.stack([blocks["motion_x"], blocks["motion_y"]]) / blocks["motion_scale"]
    left.quiver(
        *(blocks["dst_x"], blocks["dst_y"], *motion),
        **{
            "angles": "xy",
            "scale_units": "xy",
            "scale": 1,
            "color": "yellow",
            "width": 0.003,
            "minlength": 0,
        },
    )
    left.set_title(f"picture {picture.index}, {picture.type}", fontsize=9)
    middle.imshow(np.where(mask[..., None] == 0, 0.5, flow_colours(mv, longest)))
    middle.set_title("motion vectors; grey: none", fontsize=9)
    for axis in (left, middle, right):
        axis.set_axis_off()
    draw_wheel(right, longest)
    return figure


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    for option, number in (("--start", args.start), ("--stop", args.stop or 0)):
        if number < 0:
            parser.error(f"{option} {number} is below 0; pictures are counted from 0")
    try:
        check_suffix(args.out, ".npz")
        check_suffix(args.picture, ".png")
        pictures, vectors, most = write_vectors(args.video, args.out, args.start, args.stop)
        if args.picture:
            figure = draw_vectors(args.video, most)
            with whole_file(args.picture) as temporary:
                figure.savefig(temporary, format="png")
    except (OSError, ValueError, IndexError) as error:
        parser.error(str(error))
    print(f"{args.video}: {vectors} vectors of {pictures} pictures -> {args.out}")
    if args.picture:
        print(f"picture {most.index}, which moves most -> {args.picture}")
    return 0


if __name__ == "__main__":
    run(main, get_args_parser())
