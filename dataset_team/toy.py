"""Toy action clips, to run the whole study in minutes and without a download.

    python -m dataset_team.toy OUT

writes OUT/<Class>/v_<Class>_g01_c01.mp4 ... as real GOP-12 MPEG-4 streams, and after them
OUT/train.txt and OUT/test.txt. A video shows a disc on a background, and a pattern that moves
inside the disc. No single modality tells the eight classes apart: the two classes of a pair differ
only in direction, which one picture does not show, and stripes and dots move alike, so motion
vectors do not tell them apart.

    pattern   stripes, dots: in the plane    wheel (spokes)               tunnel (rings)
    motion    left, right                    clockwise, counterclockwise  approach, recede

The light is a hint that is right three times out of four: warm for one direction of a pair, cool
for the other. Groups (three videos, like UCF-101's gXX) differ in colours and background. Videos
differ in place, radius, speed, grain, noise, panning of the background and number of frames. Train
with --no-flip: a mirrored "left" is a "right".
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from coviar.command import run
from coviar.encoder import GOP
from coviar.files import whole_file

# Class: (pattern, motion along the pattern's first axis, along its second axis). The axes are x and
# y for patterns in the plane, angle and logarithm of the radius for the others. Even classes are
# mostly in warm light, odd ones in cool light.
CLASSES = {
    "StripesLeft": ("stripes", -1, 0),
    "StripesRight": ("stripes", 1, 0),
    "DotsLeft": ("dots", -1, 0),
    "DotsRight": ("dots", 1, 0),
    "WheelClockwise": ("wheel", 1, 0),
    "WheelCounterclockwise": ("wheel", -1, 0),
    "TunnelApproach": ("tunnel", 0, 1),
    "TunnelRecede": ("tunnel", 0, -1),
}
VIDEOS_PER_GROUP = 3
TEST_SHARE = 0.3  # of the groups

SPEED = (1.5, 3.5)  # pixels per frame; of the rim where the pattern turns or grows
RADIUS = (0.32, 0.45)  # of the short side
FRAMES_RANGE = (36, 48)
LIGHTS = ((1.2, 1.0, 0.8), (0.8, 1.0, 1.2))  # warm, cool: red, green, blue
TRUE_LIGHT = 0.75
NOISE = (2.0, 8.0)  # standard deviation, grey levels
MAX_PAN = 0.6  # pixels per frame
COARSENESS = 2  # the quantiser
TILE = 64  # the grain repeats after so many steps


class Video(NamedTuple):
    """One video to be made. Its pictures are a function of these values alone."""

    class_name: str
    group: int
    clip: int
    size: tuple[int, int]  # width, height
    seed: int

    @property
    def label(self) -> int:
        return list(CLASSES).index(self.class_name)

    @property
    def name(self) -> str:
        return f"{self.class_name}/v_{self.class_name}_g{self.group:02}_c{self.clip:02}.mp4"

    def rng(self, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.label, *more])


def draw(video: Video) -> Iterator[np.ndarray]:
    """Yield the pictures of a video, (h, w, 3) uint8 RGB."""
    of_group, rng = video.rng(video.group), video.rng(video.group, video.clip)
    width, height = video.size
    num_frames = rng.integers(FRAMES_RANGE[0], FRAMES_RANGE[1] + 1)
    pattern, *direction = CLASSES[video.class_name]
    colours = _two_colours(of_group)
    background = _background(of_group, width + 2 * FRAMES_RANGE[1], height + 2 * FRAMES_RANGE[1])
    light = LIGHTS[(video.label + (rng.random() > TRUE_LIGHT)) % 2]
    pan = rng.uniform(-MAX_PAN, MAX_PAN, 2)

    radius = rng.uniform(*RADIUS) * min(video.size)
    centre = np.array(video.size) / 2 + rng.uniform(-0.1, 0.1, 2) * min(video.size)
    x = np.arange(width, dtype=np.float32)[None] - np.float32(centre[0])
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(centre[1])
    distance = np.hypot(x, y)
    disc = np.clip((radius - distance) / 1.5, 0, 1)[..., None]
    paint = _paint(pattern, rng)
    step = rng.uniform(*SPEED) * np.array(direction)
    if pattern in ("wheel", "tunnel"):
        # Steps of 2 pi / TILE turn, and as many for a growth by e^(2 pi): conformal, no shear.
        first, second = np.arctan2(y, x), np.log(distance + 1)
        first, second = (axis * (2 * TILE / (2 * np.pi)) for axis in (first, second))
        step *= 2 * TILE / (2 * np.pi) / radius
    else:
        first, second = np.broadcast_arrays(x, y)
    noise = rng.normal(0, rng.uniform(*NOISE), (2 * height, 2 * width, 3)).astype(np.float32)

    for t in range(num_frames):
        weight = paint(first - step[0] * t, second - step[1] * t)[..., None]
        left, top = (np.round(FRAMES_RANGE[1] + pan * t)).astype(int)
        behind = background[top : top + height, left : left + width]
        picture = behind + disc * (colours[0] * weight + colours[1] * (1 - weight) - behind)
        left, top = rng.integers(0, (width, height))
        picture += noise[top : top + height, left : left + width]
        yield np.clip(picture * np.float32(light), 0, 255).astype(np.uint8)


def _two_colours(rng: np.random.Generator) -> np.ndarray:
    """A dark and a light colour, (2, 3)."""
    return np.stack([rng.uniform(10, 110, 3), rng.uniform(140, 245, 3)]).astype(np.float32)


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Soft coloured blobs, coarse and fine ones, (height, width, 3) around mid grey."""
    picture = np.full((height, width, 3), 128, np.float32)
    for cell in (12, 48):
        blobs = rng.uniform(-70, 70, (height // cell + 2, width // cell + 2, 3))
        rows, columns = (_stretch(n, size) for n, size in zip(blobs.shape, (height, width)))
        picture += np.einsum("yi,xj,ijc->yxc", rows, columns, blobs, optimize=True)
    return picture


def _stretch(n: int, size: int) -> np.ndarray:
    """Weights (size, n) that interpolate n points linearly to `size`."""
    places = np.linspace(0, n - 1, size)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(n))).astype(np.float32)


def _paint(
    pattern: str, rng: np.random.Generator
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The pattern as a function of two coordinates: weight of the first colour, 0..1."""
    grain = rng.uniform(-0.2, 0.2, (TILE, TILE)).astype(np.float32)
    grain = grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, (1, 1), (0, 1))
    period = rng.uniform(12, 18) if pattern in ("stripes", "dots") else TILE / rng.integers(4, 7)
    slant = rng.uniform(-0.5, 0.5)

    def paint(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        wave = 2 * np.pi / period
        if pattern == "stripes":
            value = np.sin(wave * (first + slant * second))
        elif pattern == "dots":
            value = 2 * np.sin(wave * first) * np.sin(wave * second)
        else:
            value = np.sin(wave * (first if pattern == "wheel" else second))
        cells = grain[second.astype(int) % TILE, first.astype(int) % TILE]
        return np.clip(0.5 + 1.2 * value + cells, 0, 1)

    return paint


def encode(pictures: Iterable[np.ndarray], path: Path) -> None:
    """Write pictures as a raw MPEG-4 Part 2 stream: GOP 12, no B-frames, constant quantiser."""
    options = {"flags": "+qscale", "global_quality": str(118 * COARSENESS)}  # 118: FF_QP2LAMBDA
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="m4v") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("mpeg4", rate=Fraction(25), options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = GOP
                stream.codec_context.max_b_frames = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _make(job: tuple[Video, str]) -> None:
    video, out = job
    encode(draw(video), Path(out) / video.name)


def make_toy(
    out: str | os.PathLike,
    videos_per_class: int = 30,
    size: tuple[int, int] = (160, 128),
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write the videos and then the two lists; return the lists' paths, (train, test)."""
    num_groups = videos_per_class // VIDEOS_PER_GROUP
    test_groups = max(1, round(TEST_SHARE * num_groups))
    videos = [
        Video(class_name, group, clip, size, seed)
        for class_name in CLASSES
        for group in range(1, num_groups + 1)
        for clip in range(1, VIDEOS_PER_GROUP + 1)
    ]
    jobs = [(video, str(out)) for video in videos]
    with ProcessPoolExecutor() as pool:
        for _ in tqdm(pool.map(_make, jobs, chunksize=4), "toy videos", len(jobs), disable=None):
            pass
    parts = {
        "train.txt": [video for video in videos if video.group > test_groups],
        "test.txt": [video for video in videos if video.group <= test_groups],
    }
    for list_name, part in parts.items():
        with whole_file(Path(out) / list_name) as temporary:
            lines = [f"{v.name} {v.class_name} {v.label}\n" for v in part]
            temporary.write_text("".join(lines), encoding="utf-8")
    train, test = (Path(out) / list_name for list_name in parts)
    return train, test


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_team.toy", description="Make toy action clips and their lists."
    )
    parser.add_argument("out", metavar="OUT", help="folder for the videos and the two lists")
    parser.add_argument(
        "--videos-per-class",
        type=int,
        default=30,
        help=f"a multiple of {VIDEOS_PER_GROUP} from {3 * VIDEOS_PER_GROUP} on (default: 30)",
    )
    parser.add_argument("--size", default="160x128", help="WIDTHxHEIGHT, even (default: 160x128)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other videos")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.videos_per_class % VIDEOS_PER_GROUP or args.videos_per_class < 3 * VIDEOS_PER_GROUP:
        parser.error(
            f"--videos-per-class must be a multiple of {VIDEOS_PER_GROUP} and at least "
            f"{3 * VIDEOS_PER_GROUP}: a group each to train, hold out and test"
        )
    match = re.fullmatch(r"(\d+)x(\d+)", args.size)
    size = tuple(map(int, match.groups())) if match else (0, 0)
    if min(size) < 32 or size[0] % 2 or size[1] % 2:
        parser.error(f"--size must be WIDTHxHEIGHT, even and from 32 on, found {args.size!r}")
    if args.seed < 0:
        parser.error("--seed must not be negative")
    start = time.perf_counter()
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        train, test = make_toy(args.out, args.videos_per_class, size, args.seed)
    except OSError as error:
        parser.error(f"{error}; name a folder that can be written")
    result = {
        "videos": len(CLASSES) * args.videos_per_class,
        "train_list": str(train),
        "test_list": str(test),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(f"result: {json.dumps(result)}")


if __name__ == "__main__":
    run(main, get_args_parser())
