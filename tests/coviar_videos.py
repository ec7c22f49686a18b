"""Videos made on the spot for the loader's tests, and a slow way to load them by FFmpeg alone."""

import shutil
import subprocess
from typing import NamedTuple

import av
import numpy as np

from coviar import motion
from tests.tools import lacking

SIZE = (96, 64)


def pictures(count, size=SIZE, seed=0, speed=(3, 1), cut_at=None):
    """RGB pictures of coloured tiles that pan by `speed` pixels; other tiles from `cut_at` on."""
    rng = np.random.default_rng(seed)
    width, height = size
    for t in range(count):
        if t in (0, cut_at):
            tiles = rng.integers(0, 250, (height // 8 + 2, width // 8 + 2, 3))
            texture = np.kron(tiles, np.ones((8, 8, 1), int))
        moved = np.roll(texture, (speed[1] * t, speed[0] * t), (0, 1))[:height, :width]
        yield (moved + rng.integers(0, 6, moved.shape)).astype(np.uint8)


def write_video(path, frames, codec="mpeg4", container="m4v", gop=12, rate=25, **options):
    """Encode RGB pictures; container: a format of FFmpeg's ("m4v" is the raw stream).

    options: the encoder's own, such as bf="2" (B-frames) or flags="+qpel".
    """
    if codec == "mpeg4":
        options["flags"] = "+qscale" + options.get("flags", "")
        options = {"bf": "0", "global_quality": "236", **options}
    with av.open(str(path), "w", format=container) as output:
        stream = None
        for t, frame in enumerate(frames):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = gop
                stream.codec_context.thread_count = 1
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = t
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


class SlowPicture(NamedTuple):
    """Everything the loader can say about a picture; int64 but for the frames."""

    frame: np.ndarray
    iframe: np.ndarray
    mv: np.ndarray
    residual: np.ndarray
    own_mv: np.ndarray  # relative to the picture before, accumulate=False
    own_residual: np.ndarray
    blocks: list  # (width, height, src_x, src_y, dst_x, dst_y) of each vector


def ffmpeg(*arguments, output=None):
    """Run the command; output: a file for what it prints, such as a video it sends to a pipe."""
    if shutil.which("ffmpeg") is None:
        lacking("the ffmpeg command is not installed (apt-get install ffmpeg)")
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    if output is None:
        subprocess.run(command, check=True)
        return
    with open(output, "wb") as file:
        # Through a pipe, since a file as standard output could be sought in.
        file.write(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def load_slowly(path):
    """{(gop, position): SlowPicture} of a file, by FFmpeg's demuxer and the numpy reference."""
    found = {}
    gop = -1
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for frame in container.decode(stream):
            bgr = _bgr(frame)
            blocks = _blocks(frame)
            rest = motion.identity(*bgr.shape[:2])
            if frame.key_frame:
                gop, position, iframe, before, places = gop + 1, 0, bgr, bgr, rest
            else:
                position += 1
                places = motion.move_blocks(blocks, places)
            own = motion.difference(motion.move_blocks(blocks, rest), before, bgr)
            whole = motion.difference(places, iframe, bgr)
            found[gop, position] = SlowPicture(bgr, iframe, *whole, *own, blocks)
            before = bgr
    return found


def _bgr(frame):
    if frame.height % 2 == 0:
        return frame.to_ndarray(format="bgr24")
    # swscale has another path for odd heights, which blends chroma; the loader has one for all.
    planes = [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]
    return motion.yuv_to_bgr(*planes)


def _blocks(frame):
    vectors = frame.side_data.get("MOTION_VECTORS")
    if vectors is None:
        return []
    columns = ["w", "h", "src_x", "src_y", "dst_x", "dst_y"]
    blocks = vectors.to_ndarray()[columns].tolist()
    return [block for block in blocks if block[2:4] != block[4:6]]
