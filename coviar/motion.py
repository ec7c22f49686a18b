"""Motion accumulation and residuals in plain numpy: what kernels.py computes, written to be read.

The tests hold the compiled kernels to these functions; nothing else calls them.
"""

from __future__ import annotations

import numpy as np


def identity(height: int, width: int) -> np.ndarray:
    """The map of an I-frame: every pixel comes from itself. (h, w, 2) int64, x first."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=-1)


def move_blocks(blocks: list, previous: np.ndarray) -> np.ndarray:
    """The map M_p from M_{p-1} (h, w, 2) and the picture's motion vectors.

    blocks: (width, height, src_x, src_y, dst_x, dst_y) of each, the latter four block centres. All
    reads are from `previous`; pixels without a block, or with a source outside, keep their place. A
    block that did not move writes nothing, over another block neither.
    """
    height, width = previous.shape[:2]
    result = previous.copy()
    for block_w, block_h, src_x, src_y, dst_x, dst_y in blocks:
        if (src_x, src_y) == (dst_x, dst_y):
            continue
        for dy in range(-block_h // 2, block_h // 2):
            for dx in range(-block_w // 2, block_w // 2):
                to_x, to_y, from_x, from_y = dst_x + dx, dst_y + dy, src_x + dx, src_y + dy
                if min(to_x, from_x, to_y, from_y) < 0:
                    continue
                if max(to_x, from_x) < width and max(to_y, from_y) < height:
                    result[to_y, to_x] = previous[from_y, from_x]
    return result


def difference(places: np.ndarray, reference: np.ndarray, picture: np.ndarray) -> tuple:
    """Motion vectors (h, w, 2) and residual (h, w, 3), int64, of a picture against a reference.

    places: map (h, w, 2); reference, picture: uint8 (h, w, 3).
    """
    mv = identity(*picture.shape[:2]) - places
    predicted = reference[places[..., 1], places[..., 0]]
    return mv, picture.astype(np.int64) - predicted


def encode_mv(mv: np.ndarray) -> np.ndarray:
    """The network's uint8 motion vectors: -20..20 pixels on 0..255, 0 at 128."""
    return np.clip(np.trunc(mv * (127.5 / 20)) + 128, 0, 255).astype(np.uint8)


def encode_residual(residual: np.ndarray) -> np.ndarray:
    """The network's uint8 residual: -128..127, 0 at 128."""
    return np.clip(residual + 128, 0, 255).astype(np.uint8)


def yuv_to_bgr(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    """BT.601 studio-range 4:2:0 to BGR uint8 (h, w, 3), in swscale's fixed-point arithmetic."""
    height, width = luma.shape
    u = np.repeat(np.repeat(blue.astype(np.int64), 2, 0), 2, 1)[:height, :width] * 8 - 1024
    v = np.repeat(np.repeat(red.astype(np.int64), 2, 0), 2, 1)[:height, :width] * 8 - 1024
    light = (luma.astype(np.int64) * 8 - 128) * 9539 >> 16
    b = light + (u * 16525 >> 16)
    g = light + (u * -3209 >> 16) + (v * -6660 >> 16)
    r = light + (v * 13075 >> 16)
    return np.clip(np.stack([b, g, r], axis=-1), 0, 255).astype(np.uint8)
