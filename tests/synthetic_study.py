"""A small study of made-up runs: splits x seeds x methods through the real scripts."""

from __future__ import annotations

import json

import team_net_wise_all_acc as sweep_script
import wise_team_net_logit as wise_script
from tests.calls import call
from tests.synthetic_logits import make_logits_file

METHODS = {"team_ce": 0.8, "prog_kd": 1.1, "prog_kd_anti": 1.0, "i_frame": 0.9}
SPLITS, SEEDS = ("split1", "split2"), (1, 736)


def make_run(root, method="team_ce", split="split1", seed=1, sweep_options=(), **changes):
    """A finished run of exits whose numbers depend on its method, split and seed."""
    folder = root / changes.get("data", "toy") / method / f"{split}_seed{seed}"
    number = 100 * SPLITS.index(split) + 10 * SEEDS.index(seed) + list(METHODS).index(method)
    changes.setdefault("quality", METHODS[method])
    changes.setdefault("videos", 60 + SPLITS.index(split))
    logits = make_logits_file(seed=number, **changes)
    logits.meta.update(method=method, split=split, seed=seed)
    logits.save(folder / "logits.pt")
    call(wise_script, "--logits", folder / "logits.pt")
    call(sweep_script, "--logits", folder / "logits.pt", *sweep_options)
    return folder


def make_backbone(root, split="split1", data="toy", seed=1, top1=80.0, method="team_net"):
    """The files of a finished backbone that a study takes something from."""
    folder = root / data / method / f"{split}_seed{seed}"
    folder.mkdir(parents=True)
    args = {"data_name": data, "split": split, "random_seed": seed}
    scores = {f"test_{name}_pct": top1 - lost for name, lost in (("iframe", 10), ("mv", 30))}
    scores.update(test_top1_pct=top1, test_residual_pct=top1 - 5, test_videos=60, protocol="p")
    (folder / "args.json").write_text(json.dumps(args))
    (folder / "env.json").write_text(json.dumps({"command": f"python train_team_net.py {split}"}))
    (folder / "result.json").write_text(json.dumps(scores))
    return folder


def make_runs(root):
    """All splits, seeds and methods, and a backbone for each split."""
    for split in SPLITS:
        make_backbone(root, split)
        for seed in SEEDS:
            for method in METHODS:
                make_run(root, method, split, seed)
    return root
