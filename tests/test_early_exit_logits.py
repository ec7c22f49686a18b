"""Logits files: round trip, joining by name, and clear refusals."""

import numpy as np
import pytest
import torch

from dataset_team.identity import file_digest
from dataset_team.records import Record
from early_exit.groups import stated_groups
from early_exit.logits import LogitsFile
from early_exit.part import LogitsError, Part

META = {
    "data": "toy",
    "split": "split1",
    "seed": 1,
    "method": "team_ce",
    "protocol": "8 segments, 1 clip x 1 crop 64",
    "command": "python save_logits.py",
    "model": {"num_classes": 4, "num_segments": 8},
    "crop_size": 64,
    "exits": [1, 2],
}
OUTPUTS = ["exit1", "exit2", "iframe", "mv", "residual"]
CLASSES = ["a", "b", "c", "d"]


def make_part(videos=6, views=2, seed=0):
    rng = np.random.default_rng(seed)
    return Part(
        [f"a/v_{number}" for number in range(videos)],
        rng.integers(0, 4, videos),
        rng.standard_normal((views, videos, 5, 4)).astype(np.float32),
    )


def make_file(**changes):
    fields = {"meta": META, "outputs": OUTPUTS, "class_names": CLASSES}
    fields["parts"] = {"train_views": make_part(), "test": make_part(seed=1)}
    return LogitsFile(**{**fields, **changes})


def content(**changes):
    """The dict on disk, written without LogitsFile."""
    part = make_part()
    tensors = {
        "names": part.names,
        "labels": torch.from_numpy(part.labels),
        "logits": torch.from_numpy(part.logits),
    }
    good = {"meta": META, "outputs": OUTPUTS, "class_names": CLASSES, "parts": {"test": tensors}}
    return {**good, **changes}


def test_round_trip(tmp_path):
    path = tmp_path / "run" / "logits.pt"
    written = make_file()
    written.save(path)
    read = LogitsFile.load(path)
    assert (read.meta, read.outputs, read.class_names) == (META, OUTPUTS, CLASSES)
    assert read.exits == ["exit1", "exit2"]
    for name in ("train_views", "test"):
        assert read.part(name).names == written.part(name).names
        np.testing.assert_array_equal(read.part(name).labels, written.part(name).labels)
        np.testing.assert_array_equal(read.part(name).logits, written.part(name).logits)
        assert read.part(name).labels.dtype == np.int64
        assert read.part(name).logits.dtype == np.float32


def test_format_on_disk_is_the_documented_one(tmp_path):
    torch.save(content(), tmp_path / "logits.pt")
    read = LogitsFile.load(tmp_path / "logits.pt")
    np.testing.assert_array_equal(read.part("test").logits, make_part().logits)


def test_samples_keep_train_views_apart_and_average_test_views():
    logits = make_file()
    rows, labels = logits.samples("train_views")
    part = logits.part("train_views")
    expected = [
        (part.logits[view, video], part.labels[video]) for view in range(2) for video in range(6)
    ]
    np.testing.assert_array_equal(rows, [row for row, _ in expected])
    np.testing.assert_array_equal(labels, [label for _, label in expected])
    rows, labels = logits.samples("test")
    part = logits.part("test")
    np.testing.assert_allclose(rows, (part.logits[0] + part.logits[1]) / 2, rtol=1e-6)  # float32
    np.testing.assert_array_equal(labels, part.labels)


def test_select_joins_by_name():
    part = make_part()
    names = part.names[::-1][:4]
    picked = part.select(names)
    assert picked.names == names
    for row, name in enumerate(names):
        source = part.names.index(name)
        assert picked.labels[row] == part.labels[source]
        np.testing.assert_array_equal(picked.logits[:, row], part.logits[:, source])
    with pytest.raises(LogitsError, match="1 of 2 videos.*'b/v_9'"):
        part.select(["a/v_0", "b/v_9"])


def test_missing_part_names_the_present_ones():
    with pytest.raises(LogitsError, match="no part 'heldout', only train_views, test"):
        make_file().part("heldout")


def changed(**changes):
    return {"parts": {"test": make_part()._replace(**changes)}}


NOT_FINITE = make_part().logits.copy()
NOT_FINITE[1, 3, 0, 0] = np.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (changed(names=["a/v_0"] * 6), "'a/v_0' appears 6 times"),
        (changed(names=list(range(6))), "names must be strings"),
        (changed(logits=make_part().logits[0]), "expected .views, 6 names, 5 outputs, 4 classes"),
        (changed(logits=make_part().logits[:0]), "logits have the shape"),
        (changed(logits=make_part().logits.astype(int)), "expected floats"),
        (changed(logits=NOT_FINITE), "logits of 'a/v_3' are not finite"),
        (changed(labels=np.full(6, 4)), "labels reach from 4 to 4, but there are 4 classes"),
        (changed(labels=np.zeros(6)), "expected integers"),
        (changed(labels=np.zeros(5, int)), "expected integers of shape .6,."),
        (changed(logits=[[1.0], [1.0, 2.0]]), "does not hold names, labels and logits"),
        ({"parts": {"validation": make_part()}}, "unknown part 'validation'"),
        ({"parts": {}}, "there is no part"),
        ({"parts": {"test": make_part(videos=0)}}, "holds no video"),
        ({"outputs": OUTPUTS[::-1]}, "outputs are"),
        ({"meta": {**META, "exits": [2, 1]}}, "rising numbers"),
        ({"meta": {**META, "exits": 3}}, "rising numbers"),
        ({"meta": {key: META[key] for key in META if key != "seed"}}, "meta lacks seed"),
        ({"meta": {**META, "seed": np.float64(1)}}, "plain values"),
    ],
)
def test_malformed_content_is_refused(changes, message):
    with pytest.raises(LogitsError, match=message):
        make_file(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"test": {"names": []}}}, "part 'test' has the keys"),
        ({"parts": [1]}, "'parts' is not a dict"),
        ({"outputs": "exit1"}, "'outputs' is not a list of strings"),
        ({"extra": 1}, "has the keys"),
        ({"meta": None}, "meta is a NoneType"),
    ],
)
def test_malformed_file_is_refused_with_its_name(tmp_path, changes, message):
    path = tmp_path / "logits.pt"
    torch.save(content(**changes), path)
    with pytest.raises(LogitsError, match=message) as error:
        LogitsFile.load(path)
    assert str(path) in str(error.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "logits.pt"
    with pytest.raises(FileNotFoundError, match="save_logits.py"):
        LogitsFile.load(path)
    torch.save([1, 2], path)
    with pytest.raises(LogitsError, match="holds a list where a dict is expected"):
        LogitsFile.load(path)
    whole = tmp_path / "whole.pt"
    make_file().save(whole)
    for junk in (b"", b"not a file of torch", whole.read_bytes()[:500]):
        path.write_bytes(junk)
        with pytest.raises(LogitsError, match="not a logits file"):
            LogitsFile.load(path)


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "logits.pt"
    make_file().save(path)
    before = file_digest(path)

    def broken(content, temporary):
        temporary.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        make_file().save(path)
    assert file_digest(path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["logits.pt"]


def test_stated_recordings_are_kept_in_the_file(tmp_path):
    records = [Record(f"a/v_{n}", "", "a", 0, None, f"day{n // 2}") for n in range(5)]
    groups = stated_groups([*records, Record("a/v_a_g01_c01", "", "a", 0, "g01")])
    assert groups == ["day0", "day0", "day1", "day1", "day2", "a/g01"]
    assert stated_groups([Record("a/v_a_g01_c01", "", "a", 0, "g01")]) is None
    file = make_file(parts={"test": make_part()._replace(groups=groups), "train": make_part()})
    file.save(tmp_path / "logits.pt")
    found = LogitsFile.load(tmp_path / "logits.pt")
    assert found.groups("test") == groups
    assert found.groups("train") == [f"a/v_{n}" for n in range(6)]
    for wrong in (groups[1:], [1] * 6):
        with pytest.raises(LogitsError, match="'test': groups must be 6 strings"):
            make_file(parts={"test": make_part()._replace(groups=wrong)})
