"""WISE and thresholds: accuracy, cost and exit shares of early exiting.

    python team_net_wise_all_acc.py --checkpoint_dir runs --data-name ucf101 --split split1 \\
        --random_seed 1 --method prog_kd --max-drop 1

Reads the run's logits.pt and wise.json and writes beside them, for vanilla / constant / wise on the
held-out and the test videos:

    exits.csv      top-1 of everyone deciding at one exit, and what that costs
    trade_off.csv  a clip leaves at the first exit whose confidence exceeds the threshold: top-1 and
                   mean GMACs (exit "all") and who leaves where, for each threshold
    policies.csv   the same for calibrated thresholds, one common to all exits and one per exit:
                   chosen on held-out videos for --max-drop or --budget-gmacs, reported on test
    policy.json    one of these policies, for predict.py

GMACs are 1e9 multiply-accumulates per video: all its clips and crops, and every video counted,
whether it was right or wrong to leave.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from coviar.command import run
from early_exit import wise
from early_exit.calibrate import RULES, Goal, calibrate, fit_temperature
from early_exit.logits import LOGITS_NAME, LogitsFile, file_digest
from early_exit.policy import CONFIDENCES, POLICY_NAME, Policy, save_policy
from early_exit.thresholds import DEFAULT_THRESHOLDS, confidences
from early_exit.wise import WISE_NAME
from MACs.team_net import exit_gmacs
from study.columns import ALL, RUN_COLUMNS
from study.run_tables import RunTables, write_rows
from training.options import add_logits_options, logits_path, make_parser
from training.provenance import command_line, print_result


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_logits_options(parser)
    group = parser.add_argument_group("exit rule")
    group.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        default=DEFAULT_THRESHOLDS,
        metavar="T",
        help=f"to sweep (default: {len(DEFAULT_THRESHOLDS)} from 0 to 1, finer towards 1)",
    )
    group.add_argument(
        "--confidence",
        choices=CONFIDENCES,
        default="max",
        help="largest softmax probability (default, the paper's), its lead over the second, or one"
        " minus the normalised entropy",
    )
    group.add_argument(
        "--temperature",
        type=temperature_option,
        default=1.0,
        help="divides the logits before the softmax; fit: learnt on --select-on (default 1)",
    )
    group = parser.add_argument_group("calibrated policies")
    goal = group.add_mutually_exclusive_group()
    goal.add_argument(
        "--max-drop",
        type=float,
        default=1.0,
        metavar="PCT",
        help="the cheapest thresholds whose top-1 is at most PCT points below the full network's"
        " without exits (default 1)",
    )
    goal.add_argument(
        "--budget-gmacs", type=float, metavar="G", help="the most accurate within G GMACs per video"
    )
    group.add_argument(
        "--select-on",
        choices=("heldout", "test"),
        default="heldout",
        help="where thresholds and temperature are chosen; test flatters (default heldout)",
    )
    group.add_argument(
        "--policy-combination",
        choices=wise.COMBINATIONS,
        default="wise",
        help="which policy to write to policy.json (default wise)",
    )
    group.add_argument(
        "--policy-rule", choices=RULES, default="common", help="likewise (default common)"
    )
    return parser


def temperature_option(text: str) -> float | None:
    """A number above 0, or None for `fit`."""
    if text == "fit":
        return None
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is neither a number above 0 nor `fit`")
    return value


def load_study(path: Path, logits: LogitsFile) -> RunTables:
    """The run's logits with the WISE weights beside them; ValueError when these are of others."""
    betas, provenance = wise.load_weights(path.with_name(WISE_NAME), logits.outputs)
    if provenance.get("logits_sha256") != file_digest(path):
        raise ValueError(
            f"{path.with_name(WISE_NAME)} was fitted on other logits than {path} holds now: "
            "run wise_team_net_logit.py again"
        )
    meta = logits.meta
    costs = exit_gmacs(meta["model"], meta["exits"], meta["crop_size"])
    wise_protocol = f"WISE ({provenance['solver']}) fitted on {provenance['fit_on']}"
    return RunTables(logits, betas, costs, wise_protocol, command_line())


def make_policy(
    study: RunTables, combination: str, rule: str, temperature: float, args: argparse.Namespace
) -> Policy:
    """Thresholds for the goal, chosen on --select-on, with all that is needed to use them."""
    if args.budget_gmacs is None:
        full = 100 * study.combined(args.select_on, "vanilla")[1][:, -1].mean()
        counts = np.unique(study.logits.part(args.select_on).labels, return_counts=True)[1]
        is_chance = full <= 100 * counts.max() / counts.sum()
        goal, words = Goal(min_top1_pct=full - args.max_drop), f"max-drop {args.max_drop:g}"
        if is_chance:
            words += " (the full network does not beat naming the largest class)"
    else:
        is_chance = False
        goal, words = Goal(max_gmacs=args.budget_gmacs), f"budget-gmacs {args.budget_gmacs:g}"
    combined, correct = study.combined(args.select_on, combination)
    sure = confidences(combined, args.confidence, temperature)
    choice = calibrate(sure, correct, study.costs(args.select_on), goal, rule)
    provenance = {
        **study.row(args.select_on, combination),
        **{
            "rule": rule,
            "goal": words,
            "reached": bool(choice.reached and not is_chance),
            "select_on": args.select_on,
        },
        "backbone_digest": study.logits.meta.get("backbone_digest"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return Policy(
        tuple(study.logits.meta["exits"]),
        choice.thresholds,
        tuple(map(tuple, study.weights[combination].tolist())),
        temperature,
        args.confidence,
        provenance,
    )


def print_policies(rows: list[dict], points: list[str]) -> None:
    print(f"calibrated on {rows[0]['select_on']} for {rows[0]['goal']}")
    shares = "".join(f"{point + ' %':>9}" for point in points)
    print(f"{'part':9}{'combination':13}{'rule':10}{'top-1 %':>8}{'GMACs':>9}{shares}  thresholds")
    for first in (n for n, row in enumerate(rows) if row["exit"] == ALL):
        row, *leaving = rows[first : first + 1 + len(points)]
        shares = "".join(f"{here['share_pct']:9.1f}" for here in leaving)
        missed = "" if row["reached"] else "  goal not reached on --select-on"
        print(
            f"{row['part']:9}{row['combination']:13}{row['rule']:10}{row['top1_pct']:8.2f}"
            f"{row['gmacs']:9.3f}{shares}  {row['thresholds']}{missed}"
        )


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not all(0 <= threshold < float("inf") for threshold in args.thresholds):
        parser.error(f"--thresholds {args.thresholds}: confidences lie in 0 to 1")
    if args.thresholds is not DEFAULT_THRESHOLDS and max(args.thresholds) >= 1:
        print("note: no confidence exceeds 1, so at thresholds of 1 or more no clip leaves early")
    if not args.max_drop >= 0:
        parser.error(f"--max-drop {args.max_drop:g} is below 0")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    check(args, parser)
    try:
        path = logits_path(args, LOGITS_NAME)
        logits = LogitsFile.load(path)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if args.select_on not in logits.parts:
        parser.error(
            f"{path} has no part {args.select_on!r} to choose thresholds on, only "
            f"{', '.join(logits.parts)}; save it with save_logits.py or change --select-on"
        )
    policies, temperatures = {}, {}
    try:
        study = load_study(path, logits)
        for combination in wise.COMBINATIONS:
            temperatures[combination] = args.temperature or fit_temperature(
                study.combined(args.select_on, combination)[0], logits.part(args.select_on).labels
            )
            for rule in RULES:
                policies[combination, rule] = make_policy(
                    study, combination, rule, temperatures[combination], args
                )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    saved = policies[args.policy_combination, args.policy_rule]
    save_policy(path.with_name(POLICY_NAME), saved)
    policy_rows = [row for policy in policies.values() for row in study.policy_rows(policy)]
    tables = {
        "exits.csv": study.exit_rows(),
        "policies.csv": policy_rows,
        # Last: where it is there, the run is complete.
        "trade_off.csv": study.sweep_rows(args.thresholds, args.confidence, temperatures),
    }
    for name, rows in tables.items():
        write_rows(path.with_name(name), RUN_COLUMNS[name], rows)
    print_policies(policy_rows, study.points)
    total = [row for row in study.policy_rows(saved) if row["exit"] == ALL]
    print_result(
        {
            "folder": str(path.parent),
            "policy": f"{args.policy_combination} {args.policy_rule}",
            "goal": saved.provenance["goal"],
            "reached": saved.provenance["reached"],
            "top1_pct": {row["part"]: round(row["top1_pct"], 4) for row in total},
            "gmacs": {row["part"]: round(row["gmacs"], 6) for row in total},
        }
    )


if __name__ == "__main__":
    run(main, get_args_parser())
