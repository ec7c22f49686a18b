"""Files from others are data: none of our readers runs code from one or is led out of a folder."""

import functools
import os
import pickle

import numpy as np
import pytest
import torch

from coviar.index import read_index
from coviar.index_cache import read_indexes
from dataset_team.list_file import ListError
from dataset_team.records import read_list
from early_exit.logits import LogitsFile
from early_exit.policy import load_policy
from early_exit.wise_file import load_weights
from training.checkpoint import load_backbone, load_checkpoint, load_last
from training.run_folder import RunFolder
from training.tensor_file import load_tensors


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def last_of(path):
    return load_last(path.parent)


def result_of(path):
    return RunFolder(path.parent, {}).result


READERS = {
    "checkpoint": (load_checkpoint, "a.pt"),
    "backbone": (load_backbone, "a.pt"),
    "last checkpoint": (last_of, "last.pt"),
    "bank": (load_tensors, "view_0000.pt"),
    "logits": (LogitsFile.load, "logits.pt"),
    "policy": (load_policy, "policy.json"),
    "WISE weights": (functools.partial(load_weights, outputs=["exit1", "iframe"]), "wise.json"),
    "result": (result_of, "result.json"),
}


@pytest.mark.parametrize("write", ["torch", "old torch", "pickle"])
@pytest.mark.parametrize("what", READERS)
def test_a_malicious_pickle_does_not_run(tmp_path, what, write):
    read, name = READERS[what]
    content = {"model": Malicious(tmp_path / "executed"), "config": {}}
    path = tmp_path / name
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(ValueError):
        read(path)
    assert not (tmp_path / "executed").exists()
    if write == "pickle":  # the file would have worked on who trusts it
        pickle.loads(path.read_bytes())
        assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_index_cache_with_a_pickle_is_not_used(tmp_path, toy_data, wrapped):
    path = tmp_path / "index.npz"
    evil = np.array([Malicious(tmp_path / "executed")], dtype=object)
    if wrapped:
        np.savez(path, entries=evil, offsets=evil, sizes=evil)
    else:
        path.write_bytes(pickle.dumps(evil))
    video = next(toy_data.glob("*/*.mp4"))
    (index,) = read_indexes([video], path)
    assert index.gop_lengths == read_index(video).gop_lengths
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../outside/secret.mp4",
        "Class/../../outside/secret.mp4",
        "Class/../../outside/../outside/secret.mp4",
        "./../outside/secret.mp4",
        "{outside}/secret.mp4",
        "//{outside}/secret.mp4",
        "Class//../secret.mp4",
        "~/secret.mp4",
        "",
    ],
)
def test_a_list_cannot_name_what_is_outside_the_data_root(tmp_path, name):
    """Only names that a folder's listing holds are followed: never `..` or `/`."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "Class").mkdir(parents=True)
    outside.mkdir()
    for path in (root / "Class/video.mp4", outside / "secret.mp4"):
        path.write_bytes(b"video")
    (tmp_path / "list.txt").write_text(f"{name.format(outside=outside)} Class 0\n")
    with pytest.raises(ListError, match="list.txt:1"):
        read_list(tmp_path / "list.txt", root)
    (tmp_path / "list.txt").write_text("Class/video.mp4 Class 0\n")
    assert read_list(tmp_path / "list.txt", root)[0].path == str(root / "Class/video.mp4")


def test_links_are_followed_since_they_are_the_owners(tmp_path):
    """A list cannot make a link: a link in the data root is its owner's."""
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2/video.mp4").write_bytes(b"video")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/Class").symlink_to(tmp_path / "disk2")
    (tmp_path / "list.txt").write_text("Class/video.mp4 Class 0\n")
    assert len(read_list(tmp_path / "list.txt", tmp_path / "root")) == 1
