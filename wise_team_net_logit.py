"""Learn the WISE weights: how much each exit listens to the exits before it.

    python wise_team_net_logit.py --checkpoint_dir runs --data-name ucf101 --split split1 \\
        --random_seed 1 --method prog_kd

Reads the run's logits.pt, fits the weights on the held-out part (`--fit-on train_views` takes the
augmented training views), prints top-1 and cross entropy of constant / WISE / vanilla at every
decision point of every part, and writes wise.json beside the logits. Takes well under a second.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

import numpy as np
import scipy

from coviar.command import run
from early_exit import wise
from early_exit.logits import LOGITS_NAME, LogitsError, LogitsFile, file_digest
from early_exit.wise import WISE_NAME
from training.options import add_logits_options, logits_path, make_parser
from training.provenance import environment, print_result


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_logits_options(parser)
    group = parser.add_argument_group("WISE")
    group.add_argument(
        "--fit-on",
        choices=("heldout", "train", "train_views"),
        default="heldout",
        help="the part to learn from: held-out videos (default), training videos as they are"
        " tested, or their augmented views; never the test videos",
    )
    group.add_argument(
        "--alpha", type=float, default=0.01, help="weight of the L1 norm (default 0.01)"
    )
    group.add_argument(
        "--solver",
        choices=wise.SOLVERS,
        default="exact",
        help="exact: bounded L-BFGS (default); sgd: the published 500 steps",
    )
    return parser


def evaluate(logits: LogitsFile, weights: np.ndarray) -> dict[str, dict[str, dict[str, list]]]:
    """{part: {combination: {"top1_pct": [D], "ce": [D]}}} with `weights` (D, K) for WISE."""
    combinations = {
        "constant": wise.constant_weights(logits.outputs),
        "wise": weights,
        "vanilla": wise.vanilla_weights(logits.outputs),
    }
    scores = {}
    for part in logits.parts:
        rows, labels = logits.samples(part)
        scores[part] = {}
        for name, matrix in combinations.items():
            combined = wise.combine(rows, matrix)
            scores[part][name] = {
                "top1_pct": wise.top1_pct(combined, labels).tolist(),
                "ce": wise.cross_entropy(combined, labels).tolist(),
            }
    return scores


def print_scores(logits: LogitsFile, scores: dict) -> None:
    print(f"{'':20}{'top-1 %':^30}{'cross entropy':^30}")
    names = "".join(f"{name:>10}" for name in next(iter(scores.values())))
    print(f"{'part':12}{'point':8}{names}{names}")
    for part, by_combination in scores.items():
        for d, point in enumerate(wise.decision_points(logits.outputs)):
            top1 = "".join(f"{score['top1_pct'][d]:10.2f}" for score in by_combination.values())
            ce = "".join(f"{score['ce'][d]:10.4f}" for score in by_combination.values())
            print(f"{part:12}{point:8}{top1}{ce}")


def print_weights(logits: LogitsFile, weights: np.ndarray) -> None:
    print(f"{'beta of':8}" + "".join(f"{name:>10}" for name in logits.outputs))
    ran = wise.available(logits.outputs)
    for d, point in enumerate(wise.decision_points(logits.outputs)):
        row = (
            f"{beta:10.4f}" if has_run else f"{'-':>10}"
            for beta, has_run in zip(weights[d], ran[d])
        )
        print(f"{point:8}{''.join(row)}")


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not args.alpha >= 0:
        parser.error(f"--alpha {args.alpha} is below 0")
    try:
        path = logits_path(args, LOGITS_NAME)
        logits = LogitsFile.load(path)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        rows, labels = logits.samples(args.fit_on)
    except LogitsError as error:
        parser.error(f"--fit-on {args.fit_on}: {error}; or choose another part with --fit-on")
    fit = wise.fit(rows, labels, logits.outputs, args.alpha, args.solver)
    scores = evaluate(logits, fit.weights)
    print_scores(logits, scores)
    print_weights(logits, fit.weights)
    points = wise.decision_points(logits.outputs)
    provenance = {
        **{key: logits.meta[key] for key in ("data", "split", "seed", "method", "protocol")},
        "logits_sha256": file_digest(path),
        "fit_on": args.fit_on,
        "num_videos": len(logits.part(args.fit_on).names),
        "num_samples": len(labels),
        "solver": args.solver,
        "alpha": args.alpha,
        "objective": dict(zip(points, fit.objective.tolist())),
        "ce": dict(zip(points, fit.ce.tolist())),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **environment(),
        "scipy": scipy.__version__,
    }
    target = path.with_name(WISE_NAME)
    wise.save_weights(target, logits.outputs, fit.weights, provenance)
    shown = {
        part: {name: score["top1_pct"] for name, score in by.items()} for part, by in scores.items()
    }
    print_result({"wise": str(target), "fit_on": args.fit_on, "points": points, "top1_pct": shown})


if __name__ == "__main__":
    run(main, get_args_parser())
