"""Compressed video in, arrays out: I-frames, motion vectors and residuals without full decoding.

from coviar import load_clip, read_index
clip = load_clip("video.mp4", [(0, 5), (3, 5)])   # GOP 0 and 3, position 5
clip.iframe, clip.mv, clip.residual               # (2, h, w, 3), (2, h, w, 2), (2, h, w, 3)

`read_any_index` does the same for files of any codec.

from coviar import read_vectors
for picture in read_vectors("video.mkv", dense=True):   # vectors in the file
    picture.vectors, picture.mv, picture.mask           # (n,), (h, w, 2), (h, w)
"""

from coviar.clip import Clip, get_num_frames, get_num_gops, load, load_clip
from coviar.decode import CorruptVideoWarning
from coviar.exported import read_vectors
from coviar.index import VideoIndex, read_index
from coviar.index_cache import read_indexes
from coviar.source_index import SourceIndex, read_any_index

__all__ = [
    "Clip",
    "CorruptVideoWarning",
    "SourceIndex",
    "VideoIndex",
    "get_num_frames",
    "get_num_gops",
    "load",
    "load_clip",
    "read_any_index",
    "read_index",
    "read_indexes",
    "read_vectors",
]
