"""WISE and thresholds: accuracy, cost and exit shares of early exiting.

    python team_net_wise_all_acc.py --checkpoint_dir runs --data-name ucf101 --split split1 \\
        --random_seed 1 --method prog_kd --max-drop 1

Reads the run's logits.pt and wise.json. Writes beside them, for vanilla / constant / wise on the
held-out and the test videos:

    exits.csv      top-1 and cost if every video is decided at one exit
    trade_off.csv  a clip leaves at the first exit whose confidence exceeds the threshold: top-1 and
                   mean GMACs (exit "all") and the share that leaves at each exit, by threshold
    policies.csv   the same for calibrated thresholds, one common to all exits and one per exit:
                   chosen on held-out videos for --max-drop or a --budget, reported on test
    policy.json    one of these policies, for predict.py

With --route the points are pairs of segments read and depth (docs/over_time.md), and the files go
into the folder over_time/ of the run.

GMACs are 1e9 multiply-accumulates per video, over all its clips and crops. Every video counts,
right or wrong. --timings adds milliseconds of decoding and of the network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coviar.command import run
from early_exit import wise
from early_exit.calibrate import RULES, levels_of
from early_exit.groups import names_tell
from early_exit.logits import LOGITS_NAME
from early_exit.policy import CONFIDENCES, POLICY_NAME, save_policy
from early_exit.promise import COUNTS, Wish
from early_exit.promised_policy import CHOSEN_HERE, epochs_chosen_on
from early_exit.thresholds import DEFAULT_THRESHOLDS
from early_exit.wise import fit_temperature
from study.columns import ALL, RUN_COLUMNS, TIMES
from study.policies import load_run_tables, make_policy, make_promise, open_logits
from study.run_tables import write_rows
from training.options import (
    add_logits_options,
    add_route_options,
    make_parser,
    non_negative_float,
    open_fraction,
    positive_float,
    refusing,
)
from training.provenance import print_result
from training.resolve import logits_path


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_logits_options(parser)
    add_route_options(parser)
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
        help="largest softmax probability (default, the paper's), its lead over the second, one"
        " minus the normalised entropy, the agreement of successive exits (patience), or a learned"
        " gate (with --guarantee)",
    )
    group.add_argument(
        "--temperature",
        type=temperature_option,
        default=1.0,
        help="divides the logits before the softmax; fit: learnt on --select-on; fit_per_exit: one"
        " for each decision point, with --guarantee (default 1)",
    )
    group = parser.add_argument_group("calibrated policies")
    goal = group.add_mutually_exclusive_group()
    goal.add_argument(
        "--max-drop",
        type=non_negative_float,
        default=1.0,
        metavar="PCT",
        help="the cheapest thresholds whose top-1 is at most PCT points below the full network's"
        " without exits (default 1)",
    )
    goal.add_argument(
        "--budget-gmacs",
        type=positive_float,
        metavar="G",
        help="the most accurate within G GMACs per video",
    )
    goal.add_argument(
        "--budget-ms",
        type=positive_float,
        metavar="MS",
        help="the most accurate within MS milliseconds of decoding and network per video, by"
        " --timings",
    )
    goal.add_argument(
        "--max-disagreement",
        type=non_negative_float,
        metavar="PCT",
        help="with --guarantee: at most PCT %% get another label than the full network gives",
    )
    goal.add_argument(
        "--max-exit-error",
        type=non_negative_float,
        metavar="PCT",
        help="with --guarantee: at most PCT %% of those that leave early are wrong",
    )
    group.add_argument(
        "--estimate",
        choices=("counted", "expected"),
        default="counted",
        help="top-1 on --select-on: counted (default), or expected by two logistic curves over the"
        " confidence, for few held-out videos, where a count is a matter of one or two",
    )
    group.add_argument(
        "--timings",
        type=Path,
        metavar="CSV",
        help="milliseconds of leaving at each point, measured by python -m benchmarks.timings, for"
        " the columns decode_ms and network_ms (default: empty)",
    )
    group.add_argument(
        "--guarantee",
        type=open_fraction,
        metavar="P",
        help="promise the goal with this probability over the calibration videos, say 0.9; where"
        " they are too few, the full network is kept and the reason said (docs/promises.md)",
    )
    group.add_argument(
        "--count",
        choices=COUNTS,
        help="with --guarantee, what a promised share is a mean over: recordings, whatever their"
        " number of clips (default), or clips",
    )
    group.add_argument(
        "--test-logits",
        type=Path,
        metavar="FILE.npz",
        help="test videos for --logits FILE.npz; no video and no group may be in both",
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
    """A number above 0, "fit_per_exit", or None for `fit`."""
    if text == "fit":
        return None
    if text == "fit_per_exit":
        return text
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is neither a number above 0 nor `fit`")
    return value


def wish_of(args: argparse.Namespace) -> Wish:
    """What --guarantee is about. Raises ValueError for a share of 100 % or more."""
    common = {"guarantee": args.guarantee, "count": args.count or COUNTS[0]}
    if args.budget_gmacs is not None:
        return Wish("budget", args.budget_gmacs, **common)
    if args.budget_ms is not None:
        return Wish("budget_ms", args.budget_ms, **common)
    flags = {"max_disagreement": "disagreement", "max_exit_error": "exit_error", "max_drop": "drop"}
    flag = next(flag for flag in flags if getattr(args, flag) is not None)
    percent = getattr(args, flag)
    if percent >= 100:
        raise ValueError(f"--{flag.replace('_', '-')} {percent:g}: a promise is below 100 %")
    return Wish(flags[flag], percent / 100, **common)


def rules_for(args: argparse.Namespace, exits: int) -> list[str]:
    """RULES, without per_exit where there are too many exits; ValueError where it is asked for."""
    try:
        levels_of(exits, 2)
    except ValueError as error:
        if args.policy_rule == "per_exit":
            raise ValueError(f"--policy-rule per_exit: {error}") from error
        print(f"note: no rule per_exit: {error}")
        return ["common"]
    return list(RULES)


def print_policies(rows: list[dict], points: list[str]) -> None:
    print(f"calibrated on {rows[0]['select_on']} for {rows[0]['goal']}")
    shares = "".join(f"{point + ' %':>9}" for point in points)
    timed = TIMES[0] in rows[0]
    times = f"{'decode ms':>11}{'network ms':>12}" if timed else ""
    head = f"{'part':9}{'combination':13}{'rule':10}{'top-1 %':>8}{'GMACs':>9}{times}"
    print(f"{head}{shares}  thresholds")
    for first in (n for n, row in enumerate(rows) if row["exit"] == ALL):
        row, *leaving = rows[first : first + 1 + len(points)]
        shares = "".join(f"{here['share_pct']:9.1f}" for here in leaving)
        spent = f"{row['decode_ms']:11.1f}{row['network_ms']:12.1f}" if timed else ""
        missed = "" if row["reached"] else "  goal not reached on --select-on"
        print(
            f"{row['part']:9}{row['combination']:13}{row['rule']:10}{row['top1_pct']:8.2f}"
            f"{row['gmacs']:9.3f}{spent}{shares}  {row['thresholds']}{missed}"
        )


def check_args(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not all(0 <= threshold < float("inf") for threshold in args.thresholds):
        parser.error(f"--thresholds {args.thresholds}: confidences lie in 0 to 1")
    if args.thresholds is not DEFAULT_THRESHOLDS and max(args.thresholds) >= 1:
        print("note: no confidence exceeds 1, so at thresholds of 1 or more no clip leaves early")
    if args.timings is not None and not args.timings.is_file():
        parser.error(
            f"--timings {args.timings}: no such file; python -m benchmarks.timings makes it"
        )
    if args.budget_ms is not None and args.timings is None:
        parser.error("--budget-ms needs measured times: add --timings CSV")
    if args.guarantee is not None:
        if args.estimate != "counted":
            parser.error(f"--estimate {args.estimate} promises nothing: leave out --guarantee")
        with refusing(parser):
            wish_of(args).check()
        return
    for flag in ("max_disagreement", "max_exit_error", "count"):
        if getattr(args, flag) is not None:
            parser.error(
                f"--{flag.replace('_', '-')} is of a promise: give its --guarantee, say 0.9"
            )
    if args.confidence == "gate" or args.temperature == "fit_per_exit":
        parser.error("gate and fit_per_exit are fitted on videos of their own: add --guarantee")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    check_args(args, parser)
    with refusing(parser):
        path = logits_path(args, LOGITS_NAME)
        logits, folder = open_logits(path, args.test_logits, args.route, args.evidence)
    if args.select_on not in logits.parts:
        parser.error(
            f"{path} has no part {args.select_on!r} to choose thresholds on, only "
            f"{', '.join(logits.parts)}; save it with save_logits.py or change --select-on"
        )
    if args.guarantee is not None and epochs_chosen_on(logits, args.select_on):
        print(f"note: --guarantee {args.guarantee:g}: {CHOSEN_HERE}")
    part = logits.part(args.select_on)
    if args.guarantee is not None and part.groups is None and not names_tell(part.names):
        print(
            f"note: --guarantee {args.guarantee:g}: neither groups nor names tell what the videos"
            f" were cut from, so each of the {len(part.names)} counts as a recording; if several"
            " are of one, the promise is too hopeful: state them, by `groups` of the .npz or"
            " recordings.csv beside the lists"
        )
    policies, temperatures = {}, {}
    with refusing(parser):
        rules = rules_for(args, len(logits.meta["exits"]))
        tables = load_run_tables(path, logits, folder, args.timings)
        for combination in wise.COMBINATIONS:
            if args.guarantee is not None:
                for rule in rules:
                    policies[combination, rule] = make_promise(
                        tables,
                        combination,
                        rule,
                        wish=wish_of(args),
                        select_on=args.select_on,
                        confidence=args.confidence,
                        temperature=args.temperature or "fit",
                    )
                temperatures[combination] = policies[combination, "common"].temperature
                continue
            temperatures[combination] = args.temperature or fit_temperature(
                tables.combined(args.select_on, combination)[0], logits.part(args.select_on).labels
            )
            for rule in rules:
                policies[combination, rule] = make_policy(
                    tables,
                    combination,
                    rule,
                    select_on=args.select_on,
                    confidence=args.confidence,
                    temperature=temperatures[combination],
                    max_drop=args.max_drop,
                    budget=args.budget_gmacs or args.budget_ms,
                    unit="ms" if args.budget_ms else "gmacs",
                    is_expected=args.estimate == "expected",
                )
    swept = args.confidence
    if swept == "gate":
        print("note: trade_off.csv is of the confidence max; a gate belongs to one policy")
        swept = "max"
    saved = policies[args.policy_combination, args.policy_rule]
    policy_rows = [row for policy in policies.values() for row in tables.policy_rows(policy)]
    rows_of = {
        "exits.csv": tables.exit_rows(),
        "policies.csv": policy_rows,
        # It is written last: if it exists, the run is complete.
        "trade_off.csv": tables.sweep_rows(args.thresholds, swept, temperatures),
    }
    with refusing(parser):
        save_policy(folder / POLICY_NAME, saved)
        for name, rows in rows_of.items():
            write_rows(folder / name, RUN_COLUMNS[name], rows)
    print_policies(policy_rows, tables.points)
    if saved.promise:
        print(f"policy.json: {saved.promise['words']}")
    total = [row for row in tables.policy_rows(saved) if row["exit"] == ALL]
    print_result(
        {
            "folder": str(folder),
            "policy": f"{args.policy_combination} {args.policy_rule}",
            "goal": saved.provenance["goal"],
            "reached": saved.provenance["reached"],
            "top1_pct": {row["part"]: round(row["top1_pct"], 4) for row in total},
            "gmacs": {row["part"]: round(row["gmacs"], 6) for row in total},
            **{
                key: {row["part"]: round(row[key], 3) for row in total}
                for key in TIMES
                if key in total[0]
            },
        }
    )


if __name__ == "__main__":
    run(main, get_args_parser())
