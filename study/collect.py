"""Gather the results of finished runs into one study: a folder of tidy CSV files.

    python -m study.collect runs/ucf101 --out results/ucf101

Finds the run folders below RUNS and writes, from all runs that are finished:

    runs.csv                 how each run was made: its protocol and its commands
    exits.csv, policies.csv  as team_net_wise_all_acc.py wrote them
    trade_off.csv            likewise, of the test videos and of 41 thresholds at most
    weights.csv              the WISE weights
    decisions.csv            per test video and decision point: the label there, its confidence, and
                             whether the video leaves there by the run's policy.json
    backbones.csv            test top-1 of the backbones and their streams; also of the networks
                             from which they were trained on the same videos (pretrain.py's, or
                             streams alone), and of the probe on I-frames

and prints mean and standard deviation over seeds and splits. Runs that are not finished are named
and left out. A study may hold runs of different protocols; these are never averaged.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coviar.command import run
from coviar.files import read_json
from coviar.folder import files_below
from dataset_team.csv_rows import CsvText, read_csv_text
from dataset_team.identity import file_digest
from early_exit import wise
from early_exit.logits import LOGITS_NAME, LogitsFile, StaleLogits
from early_exit.part import LogitsError
from early_exit.policy import POLICY_NAME, Policy, combined_logits, load_policy, policy_confidences
from early_exit.thresholds import leave_at
from early_exit.wise_file import WISE_NAME, load_weights
from models import BACKBONE_OUTPUTS
from study import summary, tables
from study.columns import ALL, RUN, RUN_COLUMNS, STUDY_COLUMNS, TIMES
from study.run_tables import write_rows
from training.options import make_parser, refusing
from training.provenance import print_result
from training.recipes import BACKBONES, PROBE

MAX_THRESHOLDS = 41
# By output of a backbone, its field in result.json.
TOP1_FIELDS = {name: f"test_{name}_pct" for name in BACKBONE_OUTPUTS} | {"fused": "test_top1_pct"}
# The files of a finished run of exits, in the order in which they are made, with their scripts.
RUN_FILES = {
    LOGITS_NAME: "save_logits.py",
    WISE_NAME: "wise_team_net_logit.py",
    **dict.fromkeys((POLICY_NAME, *RUN_COLUMNS), "team_net_wise_all_acc.py"),
}


class NotFinished(Exception):
    """A run lacks a file, or holds one that is older than the file it was made from."""


class Gathered(NamedTuple):
    """rows by CSV name; used: folders of the runs in them; left_out: {folder: why}."""

    rows: dict[str, list[dict]]
    used: list[Path]
    left_out: dict[Path, str]

    def reasons(self) -> list[str]:
        return [f"left out: {folder}: {why}" for folder, why in self.left_out.items()]


def gather(roots: Iterable[Path]) -> Gathered:
    """Everything below the roots, each run once, in the order of data, method, split, seed.

    Raises ValueError for a root without runs, for files of another kind than their names say, and
    for two runs of the same data, split, seed and method.
    """
    rows: dict[str, list[dict]] = {name: [] for name in STUDY_COLUMNS}
    left_out, seen = {}, {}
    for folder in find_runs(roots):
        try:
            if folder.parent.name in (*BACKBONES, PROBE):
                run = backbone_rows(folder)
            else:
                run = exit_run_rows(folder)
        except NotFinished as reason:
            left_out[folder] = str(reason)
            continue
        key = tuple(str(run["runs.csv"][0][column]) for column in RUN)
        if key in seen:
            raise ValueError(
                f"{seen[key]} and {folder} both hold {' '.join(key)}: name only one of them"
            )
        seen[key] = folder
        for name, found in run.items():
            columns = STUDY_COLUMNS[name]
            rows[name] += [{key: row[key] for key in columns if key in row} for row in found]
    return Gathered(rows, list(seen.values()), left_out)


def write_study(roots: Sequence[Path], out: Path) -> Gathered:
    """Write the finished runs below the roots as a study; raises ValueError as `gather` does, and
    when no run of exits is finished."""
    gathered = gather(roots)
    if not gathered.rows["exits.csv"]:
        places = " ".join(map(str, roots))
        message = f"no run of exits below {places} is finished"
        raise ValueError("\n  ".join([message, *gathered.reasons()]))
    for name, columns in STUDY_COLUMNS.items():
        write_rows(out / name, columns, gathered.rows[name])
    return gathered


def find_runs(roots: Iterable[Path]) -> list[Path]:
    """Run folders at any depth below the roots, finished or not."""
    found = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is no folder of runs")
        marks = list(files_below(root, ("args.json", LOGITS_NAME)))
        if not marks:
            raise ValueError(f"no run below {root}: there is no args.json and no {LOGITS_NAME}")
        found.update({path.parent.resolve(): path.parent for path in marks})
    return sorted(found.values(), key=lambda folder: folder.as_posix())


def exit_run_rows(folder: Path) -> dict[str, list[dict]]:
    """The rows of one run of exits by CSV name; raises NotFinished, or ValueError."""
    for name, script in RUN_FILES.items():
        if not (folder / name).is_file():
            raise NotFinished(f"no {name} yet, {script} writes it")
    found = {name: _read(folder / name, columns) for name, columns in RUN_COLUMNS.items()}
    tables = {name: table.rows for name, table in found.items()}
    if not all(any(row["part"] == "test" for row in rows) for rows in tables.values()):
        raise NotFinished("no results on test videos: save their logits and run the rest again")
    try:
        logits = LogitsFile.load(folder / LOGITS_NAME)
    except StaleLogits as error:
        raise NotFinished(str(error)) from error
    except LogitsError as error:
        raise ValueError(f"{error}; save_logits.py writes it again") from error
    betas, provenance, *_ = load_weights(folder / WISE_NAME, logits.outputs)
    if provenance.get("logits_sha256") != file_digest(folder / LOGITS_NAME):
        raise NotFinished(f"{WISE_NAME} was fitted on other logits: wise_team_net_logit.py again")
    policy = load_policy(folder / POLICY_NAME)
    _check_made_together(tables, policy)
    tables["runs.csv"] = [run_row(tables["exits.csv"], provenance["command"])]
    tables["trade_off.csv"] = thin(row for row in tables["trade_off.csv"] if row["part"] == "test")
    tables["weights.csv"] = weight_rows(logits, betas)
    tables["decisions.csv"] = decision_rows(logits, policy)
    _check_decisions(tables, policy)
    for name, table in found.items():
        _check_run(folder / name, table, logits)
    return tables


def thin(rows: Iterable[dict], number: int = MAX_THRESHOLDS) -> list[dict]:
    """The rows of at most `number` thresholds, evenly chosen, with the first and the last."""
    rows = list(rows)
    values = sorted({row["threshold"] for row in rows}, key=float)
    evenly = np.linspace(0, len(values) - 1, min(number, len(values))).round().astype(int)
    kept = {values[n] for n in evenly}
    return [row for row in rows if row["threshold"] in kept]


def run_row(exits: Sequence[dict], wise_command: str) -> dict:
    """How a run was made, from the rows of its exits.csv and the command of its WISE weights."""
    protocols = {row["combination"]: row["protocol"] for row in exits}
    return {
        **{key: exits[0][key] for key in RUN},
        **{"protocol": protocols["vanilla"], "wise_protocol": protocols["wise"]},
        **{"command": exits[0]["command"], "wise_command": wise_command},
    }


def weight_rows(logits: LogitsFile, betas: np.ndarray) -> list[dict]:
    """The betas of every output that has run by each decision point."""
    run = {key: logits.meta[key] for key in RUN}
    ran = wise.available(logits.outputs)
    return [
        {**run, "point": point, "output": output, "beta": float(betas[d, k])}
        for d, point in enumerate(wise.decision_points(logits.outputs))
        for k, output in enumerate(logits.outputs)
        if ran[d, k]
    ]


def decision_rows(logits: LogitsFile, policy: Policy) -> list[dict]:
    """The label of every test video at every point by the policy, and where the video leaves.

    Later points have rows too, with the labels that the video would have got.
    """
    made = policy.provenance
    run = {key: logits.meta[key] for key in RUN}
    samples, labels = logits.samples("test")
    combined = combined_logits(policy, samples)
    sure = policy_confidences(policy, combined)
    leaving = leave_at(sure, policy.thresholds)
    names = logits.class_names
    rows = []
    for n, video in enumerate(logits.part("test").names):
        about = {**run, "combination": made["combination"], "video": video}
        for d, point in enumerate(wise.decision_points(logits.outputs)):
            label = int(combined[n, d].argmax())
            says = {"exit": point, "prediction": names[label], "confidence": float(sure[n, d])}
            flags = {"left": int(leaving[n] == d), "correct": int(label == labels[n])}
            rows.append({**about, "class_name": names[labels[n]], **says, **flags})
    return rows


def _check_made_together(tables: dict[str, list[dict]], policy: Policy) -> None:
    """One command writes the tables and the policy. They must name the same one."""
    commands = {row["command"] for rows in tables.values() for row in rows}
    if commands != {policy.provenance["command"]}:
        raise NotFinished(
            f"{POLICY_NAME} and the tables are of several commands: team_net_wise_all_acc.py again"
        )


def _check_decisions(tables: dict[str, list[dict]], policy: Policy) -> None:
    """The tables must be made from the logits and the policy beside them."""
    left = [row["correct"] for row in tables["decisions.csv"] if row["left"]]
    where = {key: policy.provenance[key] for key in ("combination", "rule")}
    where.update(part="test", exit=ALL)
    written = [row for row in tables["policies.csv"] if where.items() <= row.items()]
    # The table has six decimals.
    if len(written) != 1 or abs(float(written[0]["top1_pct"]) - 100 * np.mean(left)) > 1e-5:
        raise NotFinished("the tables are of other logits: team_net_wise_all_acc.py again")


def _check_run(path: Path, table: CsvText, logits: LogitsFile) -> None:
    run = {key: str(logits.meta[key]) for key in RUN}
    for line, row in zip(table.lines, table.rows):
        for key, value in run.items():
            if row[key] != value:
                raise ValueError(
                    f"{path}, line {line}: {key} is {row[key]}, and the run's is {value};"
                    f" {RUN_FILES[path.name]} writes it again"
                )


def backbone_rows(folder: Path) -> dict[str, list[dict]]:
    """How a backbone was made, and test top-1 of it and of each stream, by CSV name."""
    content = {}
    for name in ("args.json", "env.json", "result.json"):
        if not (folder / name).is_file():
            raise NotFinished(f"no {name} yet, training writes it")
        content[name] = read_json(folder / name, "train it again with --overwrite")
    args, env, result = content.values()
    try:
        run = {"data": args["data_name"], "split": args["split"], "seed": args["random_seed"]}
        run["method"] = folder.parent.name
        made = {"protocol": result["protocol"], "command": env["command"]}
        shared = {"gmacs": result.get("gmacs", ""), "num_videos": result["test_videos"]}
        scores = [
            {"output": output, "top1_pct": float(result[key]), **shared}
            for output, key in TOP1_FIELDS.items()
            if output == "fused" or run["method"] != PROBE
        ]
    except KeyError as error:
        raise ValueError(
            f"{folder}: args.json, env.json and result.json hold no {error}: "
            "not a run of train_team_net.py as it is now; train it again or leave it out"
        ) from error
    return {
        "runs.csv": [{**run, **made, "wise_protocol": "", "wise_command": ""}],
        "backbones.csv": [{**run, **score} for score in scores],
    }


def _read(path: Path, columns: Sequence[str]) -> CsvText:
    """A table of a run, whose every cell the study can take."""
    script = RUN_FILES[path.name]
    required = {name for name in columns if name in summary.REQUIRED}
    if path.name == "exits.csv":
        required |= {"top1_pct", "gmacs"}  # elsewhere empty where nobody left
    found = read_csv_text(path, script, required, summary.NUMBERS, whole=summary.COUNTS)
    untimed = [column for column in columns if column not in TIMES]  # of earlier versions
    if found.header not in (list(columns), untimed):
        raise ValueError(
            f"{path}: expected the columns {','.join(columns)}; {script} writes it again"
        )
    return found


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("runs", type=Path, nargs="+", help="folders that hold run folders")
    group.add_argument("--out", type=Path, required=True, help="folder of the CSV files")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with refusing(parser):
        gathered = write_study(args.runs, args.out)
        study = summary.read_study(args.out)
    print(tables.as_text(study))
    for reason in gathered.reasons():
        print(reason)
    counts = {"used": len(gathered.used), "left_out": len(gathered.left_out)}
    print_result({"study": str(args.out), "runs": counts, "settings": len(study.settings())})


if __name__ == "__main__":
    run(main, get_args_parser())
