"""A video of noise, which a predictor takes before the first video whose times count."""

from __future__ import annotations

import av
import numpy as np

from coviar.encoder import QUANTISER, make_encoder


def noise_video(size: tuple[int, int], gop: int) -> bytes:
    """Three pictures, encoded."""
    encoder = make_encoder(None, size, gop, QUANTISER)
    random = np.random.default_rng(0)
    packets = []
    for number in range(3):
        picture = random.integers(0, 256, (*size[::-1], 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    return b"".join(map(bytes, [*packets, *encoder.encode(None)]))
