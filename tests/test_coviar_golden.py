"""The loader against the published one: every array it made of four real clips, bit for bit."""

import hashlib
import json

import numpy as np
import pytest

import coviar
from coviar.clip import to_bgr
from coviar.decode import decode

CLIPS = [
    "v_JumpingJack_g11_c01",
    "v_Lunges_g01_c03",
    "v_PullUps_g06_c02",
    "v_TrampolineJumping_g16_c02",
]


@pytest.fixture(scope="module", params=CLIPS)
def clip(request, shared):
    """(path, what the hash file says about it, whole arrays)."""
    folder = shared / "golden" / "coviar"
    facts = json.loads((folder / "hashes.json").read_text())[request.param]
    with np.load(folder / f"{request.param}.npz") as file:
        arrays = dict(file)
    return folder / f"{request.param}.mp4", facts, arrays


def digest(array, dtype):
    return hashlib.sha256(array.astype(dtype).tobytes()).hexdigest()[:16]


def test_every_motion_vector_and_residual(clip):
    path, facts, _ = clip
    index = coviar.read_index(path)
    wanted = {
        tuple(map(int, key.split("/"))): value
        for key, value in facts["arrays"].items()
        if key.split("/")[2] != "0"
    }
    positions = sorted({key[:2] for key in wanted})
    assert len(positions) > 50
    out = None
    for accumulate in (False, True):
        for gop in range(index.num_gops):
            of_gop = [place for place in positions if place[0] == gop]
            out = coviar.load_clip(path, of_gop, accumulate=accumulate, index=index)
            for row, (_, position) in enumerate(of_gop):
                for representation in (1, 2):
                    key = (gop, position, representation, int(accumulate))
                    assert digest(out[representation][row], np.int16) == wanted.pop(key), key
    assert not wanted


def test_every_frame(clip):
    path, facts, _ = clip
    index = coviar.read_index(path)
    wanted = {k: v for k, v in facts["arrays"].items() if k.split("/")[2] == "0"}
    last_of = {gop: length - 1 for gop, length in enumerate(index.gop_lengths)}
    for gop, position, frame in decode(index, last_of):
        expected = wanted.pop(f"{gop}/{position}/0/0", None)
        assert expected in (None, digest(to_bgr(frame), np.uint8)), (gop, position)
    assert not wanted


def test_load_gives_the_whole_golden_arrays(clip):
    path, _, arrays = clip
    assert arrays
    for key, expected in arrays.items():
        found = coviar.load(str(path), *map(int, key.split("_")))
        assert found.dtype == (np.uint8 if key.split("_")[2] == "0" else np.int32)
        np.testing.assert_array_equal(found, expected, err_msg=key)


def test_the_last_picture_is_counted(clip):
    path, facts, _ = clip
    assert coviar.get_num_frames(path) == facts["frames_reported_by_original"] + 1
    assert coviar.get_num_gops(path) == -(-coviar.get_num_frames(path) // 12)


def test_frame_is_its_source_in_the_i_frame_plus_residual(clip):
    path, _, _ = clip
    index = coviar.read_index(path)
    gop = index.num_gops // 2
    y, x = np.mgrid[: index.height, : index.width]
    for position in range(index.gop_lengths[gop]):
        mv = coviar.load(path, gop, position, 1, True)
        residual = coviar.load(path, gop, position, 2, True)
        iframe = coviar.load(path, gop, 0, 0, True)
        rebuilt = iframe[y - mv[..., 1], x - mv[..., 0]] + residual
        np.testing.assert_array_equal(rebuilt, coviar.load(path, gop, position, 0, True))
