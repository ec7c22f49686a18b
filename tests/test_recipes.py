"""The recipes benchmark on made-up banks."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from benchmarks import recipes
from tests.calls import refused
from training.checkpoint import save_checkpoint
from training.features import Features

CLASSES, SEGMENTS, SIZES = 3, 2, (4, 8, 4, 8)


def features(rng, names):
    """Squeeze vectors that tell the labels; streams that do, but for motion vectors."""
    labels = torch.arange(len(names)) % CLASSES
    target = np.eye(CLASSES)[labels.numpy()]
    squeezes = []
    for size in SIZES:
        noise = rng.normal(size=(len(names), size))
        noise[:, :CLASSES] += 3 * target
        squeezes.append(torch.tensor(noise, dtype=torch.float16))
    shares = np.array([2.0, 0.0, 1.0])[:, None]  # of I-frame, MV, residual
    streams = shares * target[:, None] + 0.3 * rng.normal(size=(len(names), 3, CLASSES))
    return Features(tuple(squeezes), torch.tensor(streams, dtype=torch.float32), labels, names)


@pytest.fixture
def views(tmp_path):
    """The banks of two splits, as training.views writes them."""
    rng = np.random.default_rng(0)
    for split in ("split1", "split2"):
        for part, count, number in (("train", 60, 2), ("heldout", 12, 1), ("test", 30, 1)):
            folder = tmp_path / f"{split}_{part}"
            folder.mkdir()
            config = {"num_segments": SEGMENTS}
            identity = {"backbone": f"digest of {split}", "config": config}
            about = {"name": f"{split} {part}", "identity": identity}
            (folder / "about.json").write_text(json.dumps(about))
            names = [f"Class/v_Class_g{n // 4:02d}_c{n % 4:02d}" for n in range(count)]
            for view in range(number):
                save_checkpoint(folder / f"view_{view:04d}.pt", vars(features(rng, names)))
    return tmp_path


def run(views, *options):
    """The rows that the benchmark writes."""
    parser, out = recipes.get_args_parser(), views / "recipes.csv"
    words = [views, "--splits", "split1", "split2", "--out", out]
    recipes.main(parser.parse_args(list(map(str, [*words, *options]))), parser)
    return list(csv.DictReader(out.read_text().splitlines()))


def test_every_recipe_learns_what_its_teacher_knows(views):
    rows = run(views, "--seeds", 1)
    assert {row["recipe"] for row in rows} == set(recipes.TRIALS)
    top1 = {
        row["recipe"]: float(row["top1_pct"])
        for row in rows
        if (row["split"], row["exit"]) == ("all", "exit1")
    }
    chance = 100 / CLASSES
    for name, value in top1.items():
        if "pooled" in name or name.endswith("mv") or name == "mv alone":
            continue  # the mean of these segments tells less; motion vectors know nothing
        assert value > 2 * chance, name
    assert top1["mv alone"] < top1["CE"] - chance


def test_differences_are_paired_and_per_split(views):
    rows = run(views, "--recipes", "CE", "fused", "--seeds", 1, 2)
    assert len(rows) == 2 * 3 * 4  # recipes, two splits and all, exits
    by_key = {(row["recipe"], row["split"], row["exit"]): row for row in rows}
    for (recipe, split, point), row in by_key.items():
        difference = float(row["top1_pct"]) - float(by_key["CE", split, point]["top1_pct"])
        assert float(row["difference_pct"]) == pytest.approx(difference, abs=1e-4)
        assert float(row["low_pct"]) <= difference + 1e-4 and row["baseline"] == "CE"
        assert int(row["num_videos"]) == (60 if split == "all" else 30)
        assert int(row["runs"]) == (4 if split == "all" else 2), recipe


def test_a_missing_bank_and_a_choice_of_backbone(views):
    with pytest.raises(ValueError, match="no views of split3's heldout, test, train"):
        recipes.read_bank(views, "split3", None)
    assert len(recipes.read_bank(views, "split1", "digest of split1").train) == 2
    with pytest.raises(ValueError, match="no views of split1"):
        recipes.read_bank(views, "split1", "another digest")
    shutil.copytree(views / "split1_test", views / "split1_test_of_another")
    about = views / "split1_test_of_another/about.json"
    about.write_text(about.read_text().replace("digest of", "other digest of"))
    with pytest.raises(ValueError, match="both hold split1's test"):
        recipes.read_bank(views, "split1", None)
    assert recipes.read_bank(views, "split1", "digest of split1").segments == SEGMENTS


@pytest.mark.parametrize("number", [1, 3])
def test_each_split_has_a_digest_or_none_has(views, capsys, number):
    words = [views, "--splits", "split1", "split2", "--digests", *["digest of split1"] * number]
    message = refused(capsys, recipes, *words, "--out", views / "recipes.csv")
    assert f"--digests names {number} backbones of 2 --splits" in message
