"""Learn the WISE weights: how much the logits of earlier exits count at each exit.

    python wise_team_net_logit.py --checkpoint_dir runs --data-name ucf101 --split split1 \\
        --random_seed 1 --method prog_kd

Reads the run's logits.pt and fits the weights on the held-out part (`--fit-on train_views`: on the
augmented training views). Prints top-1 and cross entropy of constant / WISE / vanilla at every
decision point of every part, and writes wise.json beside the logits. Most of the time goes to
`train:sgd`, the published recipe, which is scored beside them where there are training videos.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from coviar.command import run
from early_exit import wise
from early_exit.learn_wise import learn_wise
from early_exit.logits import LOGITS_NAME, LogitsFile
from early_exit.part import LogitsError
from study.policies import open_logits
from training.options import (
    add_logits_options,
    add_route_options,
    make_parser,
    non_negative_float,
    refusing,
)
from training.provenance import print_result
from training.resolve import logits_path


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_logits_options(parser)
    add_route_options(parser)
    group = parser.add_argument_group("WISE")
    group.add_argument(
        "--fit-on",
        choices=("heldout", "train", "train_views"),
        default="heldout",
        help="the part to learn from: held-out videos (default), training videos as they are"
        " tested, or their augmented views; never the test videos",
    )
    group.add_argument(
        "--alpha",
        type=non_negative_float,
        default=0.01,
        help="weight of the L1 norm (default 0.01)",
    )
    group.add_argument(
        "--solver",
        choices=wise.SOLVERS,
        default="exact",
        help="exact: bounded L-BFGS (default); sgd: the published 500 steps",
    )
    group.add_argument(
        "--pool",
        choices=wise.POOLS,
        default="logits",
        help="weigh the outputs' logits (default, published) or their probabilities",
    )
    group.add_argument(
        "--temperature",
        action="store_true",
        help="first divide each output's logits by a temperature of its own, fitted on --fit-on",
    )
    return parser


def score_combinations(
    logits: LogitsFile, weights: np.ndarray, pool: str = "logits", scales: Sequence[float] = ()
) -> dict[str, dict[str, dict[str, list]]]:
    """{part: {combination: {"top1_pct": [D], "ce": [D]}}} with `weights` (D, K) for WISE, pooled
    as in wise.combine. `train:sgd` is the published recipe, where there are training videos."""
    combinations = {
        "constant": (wise.constant_weights(logits.outputs),),
        "wise": (weights, pool, scales),
        "vanilla": (wise.vanilla_weights(logits.outputs),),
    }
    if "train" in logits.parts:
        published = wise.fit(*logits.samples("train"), logits.outputs, solver="sgd")
        combinations["train:sgd"] = (published.weights,)
    scores = {}
    for part in logits.parts:
        rows, labels = logits.samples(part)
        scores[part] = {}
        for name, how in combinations.items():
            combined = wise.combine(rows, *how)
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
    with refusing(parser):
        path = logits_path(args, LOGITS_NAME)
        logits, folder = open_logits(path, None, args.route, args.evidence)
    how = (args.fit_on, args.alpha, args.solver, args.pool, args.temperature, folder)
    with refusing(parser):
        try:
            target, weights, scales = learn_wise(path, logits, *how)
        except LogitsError as error:
            raise ValueError(
                f"--fit-on {args.fit_on}: {error}; or choose another part with --fit-on"
            ) from error
    scores = score_combinations(logits, weights, args.pool, scales)
    print_scores(logits, scores)
    print_weights(logits, weights)
    points = wise.decision_points(logits.outputs)
    shown = {
        part: {name: score["top1_pct"] for name, score in by.items()} for part, by in scores.items()
    }
    print_result({"wise": str(target), "fit_on": args.fit_on, "points": points, "top1_pct": shown})


if __name__ == "__main__":
    run(main, get_args_parser())
