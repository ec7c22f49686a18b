"""Held-out top-1 of variants of a training, compared with the variant `base`.

    python -m study.variants runs/tuning --out results/ucf101_7_mobilenet/tuning.csv

Each folder in the one named is a variant and holds runs of train_team_net.py, of the same splits
and seeds. Writes a row per variant, split, seed and output with the held-out top-1 of the last
epoch, and prints means over splits and seeds, and paired differences to `base`. One held-out video
is a point or two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from coviar.command import run
from coviar.files import read_json
from models import BACKBONE_OUTPUTS
from study import tables
from study.run_tables import write_rows
from training.options import make_parser, refusing
from training.provenance import print_result

BASE = "base"
AGAIN = "train it again with --overwrite"
COLUMNS = ["data", "split", "seed", "variant", "output", "heldout_top1_pct", "epochs", "command"]


def variant_rows(root: Path) -> list[dict]:
    """A row per variant, run and output; runs that are not finished are left out.

    Raises ValueError where there is none, or one whose epochs were not chosen by `last`.
    """
    rows = [row for path in sorted(root.glob("*/*/*/*/result.json")) for row in _rows(root, path)]
    if not rows:
        raise ValueError(
            f"{root} holds no finished run: VARIANT/DATA/METHOD/SPLIT_seedK/result.json"
        )
    return rows


def _last_epoch(path: Path) -> dict:
    lines = path.read_bytes().splitlines()
    try:
        last = json.loads(lines[-1])
        last["epoch"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}, line {len(lines)}: not what an epoch logs; {AGAIN}") from error
    return last


def _rows(root: Path, path: Path) -> Iterator[dict]:
    args, env = (read_json(path.parent / name, AGAIN) for name in ("args.json", "env.json"))
    last = _last_epoch(path.parent / "log.jsonl")
    if args["select_on"] != "last":
        raise ValueError(
            f"{path.parent} has chosen its epoch on the videos that it is judged by here: train it"
            " with --select-on last"
        )
    if "heldout_fused" not in last:
        raise ValueError(f"{path.parent} has no held-out videos to be judged by: --heldout 0")
    for output in BACKBONE_OUTPUTS:
        yield {
            **{"data": args["data_name"], "split": args["split"], "seed": args["random_seed"]},
            **{"variant": path.relative_to(root).parts[0], "output": output},
            "heldout_top1_pct": last[f"heldout_{output}"],
            **{"epochs": last["epoch"] + 1, "command": env["command"]},
        }


def difference_table(rows: list[Mapping]) -> list[list[str]]:
    """Header and rows: mean top-1 of each variant, then its paired differences to BASE."""
    found = pd.DataFrame(rows).pivot_table(
        index=["variant", "data", "split", "seed"], columns="output", values="heldout_top1_pct"
    )
    variants = list(dict.fromkeys(found.index.get_level_values("variant")))
    table = [
        [
            "variant",
            "runs",
            *BACKBONE_OUTPUTS,
            *(f"{output} - {BASE}" for output in BACKBONE_OUTPUTS),
        ]
    ]
    for variant in sorted(variants, key=lambda name: name != BASE):
        own = found.loc[variant]
        cells = [tables.spread(own[output], 1) for output in BACKBONE_OUTPUTS]
        if BASE in variants and variant != BASE:
            gains = (own - found.loc[BASE]).dropna()
            cells += [tables.spread(gains[output], 1) for output in BACKBONE_OUTPUTS]
        else:
            cells += [""] * len(BACKBONE_OUTPUTS)
        table.append([variant, str(len(own)), *cells])
    return table


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("runs", type=Path, help="folder of variants")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        rows = variant_rows(args.runs)
    write_rows(args.out, COLUMNS, rows)
    print(tables.to_markdown(difference_table(rows)))
    print_result({"out": str(args.out), "variants": len({row["variant"] for row in rows})})


if __name__ == "__main__":
    run(main, get_args_parser())
