"""From a picture as it is stored to one as the viewer sees it, in the size the network takes.

Interlaced pictures are deinterlaced, the display matrix is followed, range and matrix of the
colours become those of MPEG-4 as the loader reads it (BT.601, limited range).
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.filter import Graph

from coviar.container import display_matrix

FITS = ("stretch", "pad", "crop")
_USUAL_SHAPES = (1.2, 2.0)  # width : height that the published geometry squashes without a word

_TURNS = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (-1, 0, 0, -1): (("hflip", ""), ("vflip", "")),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (-1, 0, 0, 1): (("hflip", ""),),
    (1, 0, 0, -1): (("vflip", ""),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}
_LIMITED, _FULL = 1, 2
# FFmpeg's AVColorSpace to swscale's names
UNDECLARED, _RGB = 2, 0
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_HD_LINES = 720


def range_and_matrix(frame: av.VideoFrame) -> tuple:
    """("limited" or "full", swscale's name of the matrix) of a picture's colours.

    What is not declared follows the convention: limited range, BT.709 from 720 lines on and BT.601
    below. ValueError for a matrix that cannot be converted.
    """
    is_full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    matrix = int(frame.colorspace)
    if matrix in (UNDECLARED, _RGB):
        name = "bt709" if frame.height >= _HD_LINES else "bt601"
    elif matrix in _MATRICES:
        name = _MATRICES[matrix]
    else:
        raise ValueError(f"its colours are of a matrix (number {matrix}) that cannot be converted")
    if frame.format.is_rgb:
        return "full", "bt601"
    return "full" if is_full else "limited", name


def shown_shape(frame: av.VideoFrame, pixel_shape) -> float:
    """Width / height as shown: of the turned picture, its pixels not taken for square."""
    shape = frame.width / frame.height * float(pixel_shape or 1)
    return shape if display_matrix(frame)[0] else 1 / shape


class Converter:
    """Turns the pictures of one video into yuv420p of `size` (width, height).

    fit: "stretch" to the size, whatever the shape (as published); "pad" with black; "crop" to the
    middle. pixel_shape: width / height of a stored pixel. `note` says when a stretched picture is
    of a shape far from the published ones.
    """

    def __init__(self, size: tuple, fit: str = "stretch", pixel_shape=None):
        self.size, self.fit, self.pixel_shape = size, fit, pixel_shape
        self.note = None
        self.deinterlace = False
        self._kind = self._graph = None

    def prepare(self, frame: av.VideoFrame) -> list:
        """Make ready for a picture; the pictures that this pushes out of the old filters.
        ValueError for what cannot be converted."""
        self.deinterlace = self.deinterlace or bool(frame.interlaced_frame)
        colours = range_and_matrix(frame)
        kind = (frame.width, frame.height, frame.format.name, colours, display_matrix(frame))
        if (kind, self.deinterlace) == self._kind:
            return []
        left = self.finish()
        self._kind = kind, self.deinterlace
        shape = shown_shape(frame, self.pixel_shape)
        if self.fit == "stretch" and not _USUAL_SHAPES[0] <= shape <= _USUAL_SHAPES[1]:
            self.note = (
                f"pictures of {shape:.2f}:1 are stretched to {self.size[0]}x{self.size[1]}; "
                "--fit pad or --fit crop keeps their shape"
            )
        is_plain = colours == ("limited", "bt601") and kind[4] == (1, 0, 0, 1)
        if is_plain and not self.deinterlace and self.fit == "stretch":
            self._graph = None
        else:
            self._graph = self._make_graph(frame, colours, shape)
        return left

    def __call__(self, frame: av.VideoFrame) -> list:
        """The pictures that are ready after this one, usually one."""
        left = self.prepare(frame)
        if self._graph is None:
            # Bit-equal to the published command (chroma before FFmpeg 8); its scale filter is not.
            return [*left, frame.reformat(*self.size, format="yuv420p", interpolation="BICUBIC")]
        self._graph.push(frame)
        return left + _pull(self._graph)

    def finish(self) -> list:
        """What is still in the filters."""
        graph, self._graph, self._kind = self._graph, None, None
        if graph is None:
            return []
        graph.push(None)
        return _pull(graph)

    def _make_graph(self, frame, colours, shape) -> Graph:
        value_range, matrix = colours
        # Filters pad and crop to even sizes only, where two pixels share a colour.
        even = tuple(side + side % 2 for side in self.size)
        steps = [("bwdif", "mode=send_frame:deint=interlaced")] if self.deinterlace else []
        steps += _TURNS[display_matrix(frame)]
        if self.fit == "stretch":
            inner = self.size
        elif self.fit == "pad":
            inner = _inside(even, shape)
        else:
            inner = _around(even, shape)
        steps.append(
            (
                "scale",
                f"{inner[0]}:{inner[1]}:flags=bicubic:in_color_matrix={matrix}"
                f":in_range={value_range}:out_color_matrix=bt601:out_range=limited",
            )
        )
        steps.append(("format", "yuv420p"))
        if self.fit == "pad":
            steps.append(("pad", f"{even[0]}:{even[1]}:(ow-iw)/2:(oh-ih)/2:black"))
        elif self.fit == "crop":
            steps.append(("crop", f"{even[0]}:{even[1]}"))
        if self.fit != "stretch" and even != self.size:
            steps.append(("crop", f"{self.size[0]}:{self.size[1]}:0:0:exact=1"))
        graph = Graph()
        last = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format.name,
            time_base=Fraction(1, 25),  # of no effect: one picture in, one out
        )
        for name, arguments in [*steps, ("buffersink", None)]:
            node = graph.add(name, arguments)
            last.link_to(node)
            last = node
        graph.configure()
        return graph


def _inside(size: tuple, shape: float) -> tuple:
    width, height = size
    if shape * height > width:
        return width, max(2, round(width / shape / 2) * 2)
    return max(2, round(height * shape / 2) * 2), height


def _around(size: tuple, shape: float) -> tuple:
    width, height = size
    if shape * height > width:
        return max(width, round(height * shape / 2) * 2), height
    return width, max(height, round(width / shape / 2) * 2)


def _pull(graph: Graph) -> list:
    frames = []
    while True:
        try:
            frames.append(graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return frames
