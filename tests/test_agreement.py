"""Lists, checkpoint and options that contradict each other are refused before anything is done."""

import json
import re
import shutil
from pathlib import Path

import pytest

import save_logits
import train_i_frame
import train_team_net
from early_exit.logits import LogitsFile
from early_exit.promised_policy import epochs_chosen_on
from training.checkpoint import load_checkpoint, save_checkpoint
from training.splits import DataSettings, open_splits
from training.trained import load_trained

pytestmark = pytest.mark.usefixtures("tiny_resnets")


@pytest.fixture
def data(toy_data, tmp_path):
    """A copy of the toy data that a test may change: folder, training lines, test lines."""
    folder = tmp_path / "data"
    shutil.copytree(toy_data, folder)
    return folder, *(lines(folder / name) for name in ("train.txt", "test.txt"))


def lines(path):
    return path.read_text().splitlines()


def write(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))


def open_data(folder, **changes):
    settings = {
        **{"data_name": "toy", "data_root": folder, "split": "split1", "heldout": 0.15},
        **{"train_list": folder / "train.txt", "test_list": folder / "test.txt"},
        **{"select_on": "test", "independent_crops": False, "no_flip": True, "clips": 1},
        **{"crops": 1, "on_bad_video": "error", "index_dir": None},
    }
    return open_splits(DataSettings(**{**settings, **changes}), 1, 32, 0)


def video_of(folder, line):
    """The file that a line of a list names, whatever its suffix there."""
    return next(folder.glob(f"{Path(line.split()[0]).with_suffix('')}.*"))


def relisted(line, name):
    _, class_name, label = line.split()
    return f"{name} {class_name} {label}"


@pytest.mark.parametrize("kind", ["link", "hard link", "spelling"])
def test_one_file_trains_and_tests_under_no_name(data, kind):
    folder, train, test = data
    video = video_of(folder, train[0])
    name = f"{video.parent.name}/again{video.suffix}"
    if kind == "link":
        (folder / name).symlink_to(video)
    elif kind == "hard link":
        (folder / name).hardlink_to(video) if hasattr(video, "hardlink_to") else pytest.skip("3.9")
    else:
        name = f"./{video.parent.name}//{video.name}"
    write(folder / "test.txt", [*test, relisted(train[0], name)])
    with pytest.raises(ValueError, match="stand in both .*; a test video must not train"):
        open_data(folder)


def test_a_copied_test_video_is_a_leak_but_for_published_splits(data):
    folder, train, test = data
    video = video_of(folder, train[0])
    name = f"{video.parent.name}/v_copy{video.suffix}"
    shutil.copy(video, folder / name)
    write(folder / "test.txt", [*test, relisted(train[0], name)])
    with pytest.raises(ValueError, match="equal byte for byte: a leak, first .*v_copy"):
        open_data(folder)


def test_classes_without_a_training_video_are_named(data, capsys):
    folder, train, _ = data
    gone = train[0].split()[1]
    write(folder / "train.txt", [row for row in train if row.split()[1] != gone])
    open_data(folder)
    assert f"1 class(es) have no training video: {gone} (" in capsys.readouterr().out


def test_a_class_of_one_recording_cannot_be_held_out(data):
    folder, train, _ = data
    one = train[0].split()[1]
    write(folder / "train.txt", [row for row in train[1:] if row.split()[1] != one] + train[:1])
    with pytest.raises(ValueError, match="train.txt: class .* one group only.*--select-on test"):
        open_data(folder, select_on="heldout")


@pytest.mark.parametrize("change", [str.lower, "Other_{}".format, lambda _: "Other"])
def test_a_label_has_one_class_in_both_lists(data, change):
    folder, _, test = data
    gone = test[0].split()[1]
    rows = [
        (video, change(c) if c == gone else c, label) for video, c, label in map(str.split, test)
    ]
    write(folder / "test.txt", map(" ".join, rows))
    if change is str.lower:  # a spelling of the same class
        open_data(folder)
    else:
        with pytest.raises(
            ValueError, match=f"test.txt: label .* the training list it is '{gone}'"
        ):
            open_data(folder)


def run(module, options, *more):
    parser = module.get_args_parser()
    module.main(parser.parse_args([*options, *map(str, more)]), parser)


def refused(module, options, *more):
    with pytest.raises(SystemExit) as ended:
        run(module, options, *more)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "option, words",
    [
        (("--crop-size", 64), "was trained with crop_size 32, the options say 64"),
        (("--num_segments", 2), "was trained with num_segments 1, the options say 2"),
        (("--arch", "resnet34"), "was trained with arch resnet18, the options say resnet34"),
    ],
)
def test_evaluating_otherwise_than_trained_is_refused(frozen_toy, capsys, option, words):
    options, best = frozen_toy
    refused(train_team_net, options, "--evaluate", "--pretrained", best, *option)
    assert words in capsys.readouterr().err


def test_evaluating_takes_the_crop_of_the_checkpoint(frozen_toy, capsys):
    options, best = frozen_toy
    run(train_team_net, options, "--evaluate", "--pretrained", best)
    result = json.loads(capsys.readouterr().out.split("result: ")[1])
    assert "1 crop of 32 pixels" in result["protocol"]


def exits_options(frozen_toy, folder, runs):
    options, best = frozen_toy
    words = ["--data-root", folder, "--train-list", folder / "train.txt"]
    words += ["--test-list", folder / "test.txt", "--checkpoint_dir", runs, "--pretrained", best]
    return [*options, *map(str, words), "--epochs", "1", "--views", "1"]


def test_an_edited_list_is_another_run_and_a_moved_one_is_not(frozen_toy, data, tmp_path, capsys):
    folder, train, _ = data
    options = exits_options(frozen_toy, folder, tmp_path / "runs")
    run(train_i_frame, options)
    moved = tmp_path / "elsewhere.txt"
    write(moved, train)
    capsys.readouterr()
    run(train_i_frame, options, "--resume", "--train-list", moved)
    assert "result: " in capsys.readouterr().out
    write(folder / "train.txt", train[1:])
    refused(train_i_frame, options, "--resume")
    assert "train" in capsys.readouterr().err


def test_exits_are_evaluated_on_the_segments_and_crops_they_learned(
    frozen_toy, data, tmp_path, capsys
):
    """A published backbone tells neither."""
    folder, best = data[0], tmp_path / "published.pt"
    content = load_checkpoint(frozen_toy[1])
    del content["crop_size"]
    save_checkpoint(best, content)
    options = [*exits_options(frozen_toy, folder, tmp_path / "runs"), "--pretrained", str(best)]
    run(train_i_frame, options, "--crop-size", "32")
    capsys.readouterr()
    refused(train_i_frame, options, "--evaluate", "--crop-size", "64")
    assert "trained with --crop-size 32, here it is 64: name" in capsys.readouterr().err
    run(train_i_frame, options, "--evaluate", "--crop-size", "32")
    exits = tmp_path / "runs/toy/i_frame/split1_seed1/best.pt"
    save_checkpoint(exits, {**load_checkpoint(exits), "num_segments": 4})
    capsys.readouterr()
    refused(train_i_frame, options, "--evaluate", "--crop-size", "32")
    assert "trained with --num_segments 4, the network has 1: name" in capsys.readouterr().err
    save_checkpoint(exits, content)
    refused(train_i_frame, options, "--evaluate", "--crop-size", "32")
    assert "holds no exits" in capsys.readouterr().err


EXITS = "toy/i_frame/split1_seed1"
LAST = ["--select-on", "last"]
WHOLE = [*LAST, "--heldout", "0"]


@pytest.mark.parametrize(
    "trained, asked, words",
    [
        ([], ["--select-on", "last"], "--select-on heldout, here it is last: give --select-on h"),
        (["--select-on", "test"], [], "--select-on test, here it is heldout: give --select-on t"),
        (LAST, WHOLE, "videos held out, here they are 0, .*: give the --train-list, --heldout"),
        (WHOLE, LAST, "with 0 videos held out, here they are"),
    ],
)
def test_exits_chosen_on_other_videos_are_refused(
    frozen_toy, data, tmp_path, capsys, trained, asked, words
):
    """Their logits would state a wrong protocol. A file of an earlier version does not tell."""
    options = exits_options(frozen_toy, data[0], tmp_path)
    run(train_i_frame, options, *trained)
    exits = tmp_path / EXITS / "best.pt"
    assert bool(load_checkpoint(exits)["heldout"]) == (trained in ([], LAST))
    save = [*options[: options.index("--epochs")], "--views", "0", "--method", "i_frame"]
    capsys.readouterr()
    for script, given in ((train_i_frame, [*options, "--evaluate"]), (save_logits, save)):
        refused(script, given, *asked)
        message = capsys.readouterr().err
        assert re.search(f"{re.escape(str(exits))} was trained .*{words}", message), message
        run(script, given, *trained)
    older = load_checkpoint(exits)
    save_checkpoint(exits, {k: v for k, v in older.items() if k not in ("select_on", "heldout")})
    run(train_i_frame, [*options, "--evaluate"], *asked)


def test_logits_name_what_chose_their_backbone(frozen_toy, data, tmp_path, capsys):
    """In the protocol, which promises read; without exits the backbone's flags are asked for."""
    folder = data[0]
    content = load_checkpoint(frozen_toy[1])
    options = exits_options(frozen_toy, folder, tmp_path / "runs")
    save = [*options[: options.index("--epochs")], "--views", "0", *LAST]
    best = tmp_path / "backbone.pt"
    heldout = open_data(folder, select_on="last").heldout_names
    for chosen in ("heldout", "last"):
        save_checkpoint(best, {**content, "select_on": chosen, "heldout": heldout})
        words = [*LAST, "--pretrained", str(best)]
        run(train_i_frame, options, *words, "--overwrite")
        run(save_logits, save, "--pretrained", str(best), "--method", "i_frame")
        logits = LogitsFile.load(tmp_path / "runs" / EXITS / "logits.pt")
        end = "last epoch kept, backbone selected on heldout"
        assert logits.meta["protocol"].endswith(end if chosen == "heldout" else "last epoch kept")
        assert epochs_chosen_on(logits, "heldout") == (chosen == "heldout")
        assert not epochs_chosen_on(logits, "test")
    alone = [*save, "--pretrained", str(best), "--method", "team_net", "--per-segment"]
    run(save_logits, alone)
    capsys.readouterr()
    refused(save_logits, alone, "--select-on", "heldout")
    assert "backbone.pt was trained with --select-on last" in capsys.readouterr().err


def test_a_changed_division_is_another_run(frozen_toy, data, tmp_path, capsys):
    """The lists stay as they are: a file beside them names other recordings, or other videos of the
    same names lie in the folder. Once finished, the result is there without the videos."""
    folder, train, _ = data
    options = exits_options(frozen_toy, folder, tmp_path / "runs")
    run(train_i_frame, options, *LAST)
    result = tmp_path / "runs" / EXITS / "result.json"
    finished = result.read_text()
    for change in ("recordings", "videos"):
        result.unlink(missing_ok=True)
        if change == "recordings":
            rows = [Path(row.split()[0]).with_suffix("").as_posix() for row in train]
            text = "".join(f"{name},{number // 2}\n" for number, name in enumerate(rows))
            (folder / "recordings.csv").write_text(f"path,recording\n{text}")
        else:
            (folder / "recordings.csv").unlink()
            first, second = (video_of(folder, row) for row in train[:2])
            assert first.stat().st_size != second.stat().st_size
            for before, after in ((first, "x"), (second, first), (folder / "x", second)):
                before.rename(folder / after)
        capsys.readouterr()
        refused(train_i_frame, options, *LAST, "--resume")
        assert re.search("other (train|heldout) videos than then", capsys.readouterr().err)
    result.write_text(finished)
    run(train_i_frame, options, *LAST, "--resume")


def test_exits_do_not_take_the_place_of_a_backbone_that_has_begun(
    frozen_toy, data, tmp_path, capsys
):
    """Of another seed's, where their own has no weights yet; which one was taken is said. A split
    may have wildcards in its name."""
    for split in ("split1", "a[1]*"):
        runs = tmp_path / split
        options = exits_options(frozen_toy, data[0], runs)
        place = options.index("--pretrained")
        options = [*options[:place], *options[place + 2 :], "--split", split]
        first, own = (runs / f"toy/team_net/{split}_seed{seed}" for seed in (1, 2))
        first.mkdir(parents=True)
        shutil.copy(frozen_toy[1], first / "best.pt")
        other = runs / "toy/team_net/a1_seed3"  # that the wildcards would match
        shutil.copytree(first, other)
        capsys.readouterr()
        run(train_i_frame, options, "--random_seed", 2)
        assert f"backbone: {first / 'best.pt'}\n" in capsys.readouterr().out
        exits = runs / f"toy/i_frame/{split}_seed2"
        assert load_trained(exits).digest == load_checkpoint(exits / "best.pt")["backbone_digest"]
        own.mkdir()
        (own / "args.json").write_text("{}")
        refused(train_i_frame, options, "--random_seed", 2, "--overwrite")
        message = capsys.readouterr().err
        assert f"the run {own} of the backbone is not finished" in message
        assert "another backbone with --pretrained FILE" in message
        run(train_i_frame, options, "--random_seed", 3)


def test_a_best_checkpoint_that_is_gone_is_named_with_a_remedy(toy_options, tmp_path, capsys):
    words = ["--num_segments", "1", "--crop-size", "32", "--arch", "resnet18", "--batch-size", "6"]
    options = [*toy_options, *words, "--epochs", "1", "--checkpoint_dir", str(tmp_path)]
    run(train_team_net, options)
    folder = tmp_path / "toy/team_net/split1_seed1"
    for name in ("result.json", "best.pt"):
        (folder / name).unlink()
    capsys.readouterr()
    refused(train_team_net, options, "--resume")
    assert re.search("best.pt is gone.*--overwrite", capsys.readouterr().err)


def test_swapped_classes_are_told_from_the_checkpoint(frozen_toy, data, tmp_path, capsys):
    folder, train, test = data
    names = sorted({row.split()[1] for row in train})
    other = {names[0]: names[1], names[1]: names[0]}
    run(train_i_frame, exits_options(frozen_toy, folder, tmp_path / "runs"))
    for name, rows in (("train.txt", train), ("test.txt", test)):
        swapped = [row.split() for row in rows]
        label_of = {class_name: label for _, class_name, label in swapped}
        write(
            folder / name,
            [f"{v} {c} {label_of[other.get(c, c)]}" for v, c, _ in swapped],
        )
    options = exits_options(frozen_toy, folder, tmp_path / "runs")
    capsys.readouterr()
    refused(train_i_frame, options, "--evaluate")
    assert names[0] in capsys.readouterr().err


def test_a_last_batch_of_one_clip_is_refused_with_a_batch_size_that_works(
    toy_options, toy_data, tmp_path, capsys
):
    clips = len(lines(toy_data / "train.txt"))
    size = next(n for n in range(2, clips) if clips % n == 1)
    words = ["--num_segments", 1, "--crop-size", 32, "--arch", "resnet18", "--epochs", 1]
    words += ["--select-on", "test", "--batch-size", size, "--checkpoint_dir", tmp_path]
    refused(train_team_net, toy_options, *words)
    assert "--batch-size" in capsys.readouterr().err
