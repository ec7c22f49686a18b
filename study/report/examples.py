"""Example clips of the page: which test videos, and their pictures from the compressed file."""

from __future__ import annotations

import base64
import io
import os
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from coviar.clip import load_clip
from coviar.index import read_index
from coviar.visualize import flow_colours

WIDTH, QUALITY = 200, 80
# Pixels of motion at full colour, at least: noise in a still clip stays pale.
LONGEST = 4.0
EACH = 3
EXAMPLE_KINDS = {"early": "right, early", "late": "right, late", "wrong": "wrong"}


class Example(NamedTuple):
    """A test video: its kind, its rows of decisions.csv in order (points), where it left."""

    kind: str
    video: str
    class_name: str
    points: list[dict]
    left: int


def choose(decisions: pd.DataFrame, number: int = EACH) -> list[Example]:
    """At most `number` videos of one run of each kind, of different classes where there are such.

    Early is the first half of the decision points. Of the right ones the earliest and the latest
    exits come first, of the wrong ones the most confident, which no threshold catches.
    """
    found: dict[str, list] = {kind: [] for kind in EXAMPLE_KINDS}
    for video, rows in decisions.groupby("video", sort=True):
        points = rows.to_dict("records")
        left = next(d for d, row in enumerate(points) if row["left"])
        sure, right = points[left]["confidence"], points[left]["correct"]
        kind = "wrong" if not right else "early" if 2 * left < len(points) - 1 else "late"
        # The best examples of late exits are those whose earlier exits were wrong.
        before = sum(not row["correct"] for row in points[:left])
        rank = {"early": (left, -sure), "late": (-before, -sure), "wrong": (-sure,)}[kind]
        found[kind].append((rank, Example(kind, video, points[0]["class_name"], points, left)))
    return [example for kind in EXAMPLE_KINDS for example in _varied(found[kind], number)]


def _varied(ranked: list, number: int) -> list[Example]:
    """The best of each class first, then the second best of each, and so on."""
    seen: dict[str, int] = {}
    order = []
    for rank, example in sorted(ranked, key=lambda pair: pair[0]):
        again = seen[example.class_name] = seen.get(example.class_name, -1) + 1
        order.append((again, rank, example))
    return [example for _, _, example in sorted(order, key=lambda item: item[:2])[:number]]


def pictures(path: str | os.PathLike) -> dict[str, str]:
    """{what: data URI} of the middle GOP: its I-frame, motion and residual up to its last picture.

    Raises OSError or ValueError for a file that the loader cannot read.
    """
    index = read_index(path)
    gop = index.num_gops // 2
    where = [(gop, index.gop_lengths[gop] - 1)]
    seen = load_clip(path, where, index=index, encode=True)
    mv = load_clip(path, where, index=index).mv[0]
    longest = max(LONGEST, float(np.percentile(np.hypot(mv[..., 0], mv[..., 1]), 99)))
    return {
        "I-frame": _data_uri(seen.iframe[0]),
        "motion vectors": _data_uri((255 * flow_colours(mv, longest)).round().astype(np.uint8)),
        "residual": _data_uri(seen.residual[0][..., ::-1]),
    }


def _data_uri(rgb: np.ndarray) -> str:
    """A small JPEG of an RGB picture (h, w, 3) uint8 as the value of an <img>'s src."""
    picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)  # (3, h, w)
    height, width = picture.shape[1:]
    size = (max(1, round(height * WIDTH / width)), WIDTH)
    small = functional.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)
    small = small[0].round().to(torch.uint8).permute(1, 2, 0).numpy()
    jpeg = io.BytesIO()
    matplotlib.image.imsave(jpeg, small, format="jpeg", pil_kwargs={"quality": QUALITY})
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
