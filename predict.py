"""Name the action in a video file, by a network that stops as soon as one of its exits is sure.

    python predict.py VIDEO... --checkpoint runs/ucf101/prog_kd/split1_seed1
    python predict.py VIDEO --checkpoint runs/ucf101/prog_kd/split1_seed1 --show clip.png
    python predict.py FOLDER --checkpoint runs/ucf101/prog_kd/split1_seed1 --json > labels.jsonl
    python predict.py FILM --every 5 --window 10 --checkpoint runs/ucf101/prog_kd/split1_seed1
    ffmpeg -i CAMERA -f mpegts - | python predict.py - --checkpoint runs/ucf101/prog_kd/split1_seed1

VIDEO is any file that FFmpeg reads. MPEG-4 that is encoded like the training videos is taken as it
is. Of any other file, however long, only the windows that the network needs are decoded and
re-encoded. --every and --window give a line for each window of time. A pipe (-), a camera
(/dev/video0) and an address (https://, rtsp://, udp:// ...) give such lines too:
docs/long_videos.md. The checkpoint is a run of exits, with the policy.json of
team_net_wise_all_acc.py beside it, a backbone's run, or a published TEAM-Net (+ IC) file. A file or
window that cannot be read is reported, as is a picture that cannot be written; the others are
predicted, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from coviar.command import run
from coviar.convert import FITS
from dataset_team.records import read_class_names
from early_exit.picture import draw_prediction, drawn
from early_exit.policy import POLICY_NAME, Policy, load_policy, vanilla_policy
from early_exit.policy_check import made_otherwise
from early_exit.prediction import prediction_values, sentences
from early_exit.predictor import Predictor, policy_beside
from early_exit.sources import Source, list_sources, picture_paths
from early_exit.timeline import Timeline
from early_exit.timeline_lines import Tally, header, write_timeline
from early_exit.wise import output_names
from training.agreement import check_classes
from training.options import (
    add_device_options,
    make_parser,
    positive_float,
    positive_int,
    probability,
    refusing,
)
from training.provenance import print_result
from training.resolve import choose_device, resolve_precision
from training.trained import Trained, load_trained

WINDOW_SECONDS = 10  # about what a clip of the data sets lasts
TOP = 5


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="files or folders; - (standard input), a camera or an address for a timeline",
    )
    group = parser.add_argument_group("network")
    group.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="RUN",
        help="a run folder <checkpoint_dir>/<data>/<method>/<split>_seed<k>, its best.pt, or a"
        " published file",
    )
    group.add_argument(
        "--pretrained",
        type=Path,
        metavar="FILE",
        help="the backbone of the exits (default: where they were trained, or in the run tree)",
    )
    policies = group.add_mutually_exclusive_group()
    policies.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="when to leave (default: policy.json beside the checkpoint; the full network is run"
        " without one)",
    )
    policies.add_argument(
        "--threshold",
        type=probability,
        metavar="X",
        help="leave at the first exit that gives a class more than this probability; 1: nowhere",
    )
    group.add_argument(
        "--classes",
        type=Path,
        metavar="LIST",
        help="take the names of the classes from a list file of three columns (default: from the"
        " checkpoint; published files have only numbers)",
    )
    group.add_argument(
        "--read-ahead",
        type=int,
        choices=(0, 1),
        help="of a policy that reads segment by segment: 1 decodes the next segment in a thread"
        " while the network works, needed or not (default 0)",
    )
    add_device_options(group)
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--as-is",
        action="store_true",
        help="load what can be loaded without re-encoding, even if its picture size or GOPs are not"
        " those of the training videos: faster, and less like them",
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        default=FITS[0],
        help="how a picture of another shape than the training videos' is re-encoded: stretched (as"
        " published), padded with black, or cropped to its middle",
    )
    group.add_argument(
        "--top", type=positive_int, help=f"classes to name of a video (default {TOP})"
    )
    group.add_argument(
        "--json", action="store_true", help="one JSON object per video (or window) and line"
    )
    group.add_argument(
        "--show",
        type=Path,
        metavar="PNG",
        help="draw what the network saw and where it left: a file for one video, else a folder",
    )
    group = parser.add_argument_group("timeline")
    group.add_argument(
        "--every",
        type=positive_float,
        metavar="S",
        help="a line for each window of time, begun every S seconds (default: as --window)",
    )
    group.add_argument(
        "--window",
        type=positive_float,
        metavar="S",
        help=f"the length of a window in seconds (default that of --every, else {WINDOW_SECONDS})",
    )
    group.add_argument(
        "--merge", action="store_true", help="one line for neighbouring windows of one label"
    )
    group.add_argument(
        "--smooth",
        type=positive_int,
        default=1,
        metavar="N",
        help="a window's probabilities are the mean of those of its own and N - 1 before it",
    )
    group.add_argument("--csv", action="store_true", help="the timeline as CSV")
    return parser


def choose_policy(args: argparse.Namespace, trained: Trained) -> Policy | None:
    """The policy the options ask for, None for the full network. Raises ValueError."""
    exits = trained.net.exits
    if not exits and args.policy and load_policy(args.policy).route:
        return load_policy(args.policy)
    if not exits:
        if args.policy or args.threshold is not None:
            raise ValueError(
                f"{trained.path} has no exits to leave at, by --policy or --threshold; name a run"
                " of exits"
            )
        return None
    if args.threshold is not None:
        return vanilla_policy(output_names(exits), [args.threshold] * len(exits), exits)
    policy = load_policy(args.policy) if args.policy else policy_beside(trained)
    if policy is None:
        print(
            f"note: there is no {trained.path.parent / POLICY_NAME}, so the full network is run;"
            " team_net_wise_all_acc.py makes one, --threshold X does without",
            file=sys.stderr,
        )
    return policy


def load_predictor(args: argparse.Namespace) -> Predictor:
    """The network with its policy and class names. Raises ValueError when they do not fit."""
    with contextlib.redirect_stdout(sys.stderr):  # its notes are not part of --json
        device = choose_device(args.gpus)
        resolve_precision(args)
    trained = load_trained(args.checkpoint, args.pretrained)
    if args.classes:
        num_classes = trained.net.backbone.config["num_classes"]
        names = read_class_names(args.classes, num_classes)
        check_classes(trained.path, trained.class_names, num_classes, names, args.classes)
        trained.class_names = names
    policy = choose_policy(args, trained)
    if args.read_ahead is not None and not (policy and policy.route):
        raise ValueError("--read-ahead is for a policy that reads segment by segment; leave it out")
    for difference in made_otherwise(policy, args.precision) if policy else ():
        print(
            f"note: the policy was made {difference}, so more or fewer leave early", file=sys.stderr
        )
    return Predictor(
        trained,
        policy,
        precision=args.precision,
        device=device,
        as_is=args.as_is,
        fit=args.fit,
        read_ahead=args.read_ahead or 0,
    )


def promise_line(args: argparse.Namespace, policy: Policy) -> str:
    """The promise, or what makes the decisions here others than those that it is of."""
    others = [f"it was made {how}" for how in made_otherwise(policy, args.precision)]
    others += ["--as-is"] * args.as_is
    others += [f"--fit {args.fit}"] * (args.fit != FITS[0])
    others += [f"--smooth {args.smooth}"] * (args.smooth > 1)
    words = policy.promise["words"]
    if not others:
        return f"promise: {words}"
    return f"note: the promise is of other decisions than these ({', '.join(others)}): {words}"


def reason_of(error: Exception, video: Source) -> str:
    """What went wrong, without the name of the video."""
    return str(error).replace(f"{video}: ", "").replace(f": {str(video)!r}", "")


def is_timeline(args: argparse.Namespace, videos: Sequence[Source]) -> bool:
    """Whether windows of time are asked for. Raises ValueError for options that exclude others."""
    wanted = bool(args.every or args.window or any(isinstance(video, str) for video in videos))
    if args.csv and args.json:
        raise ValueError("--csv and --json are two forms of the same lines; choose one")
    if not wanted and (args.merge or args.csv or args.smooth > 1):
        raise ValueError("--merge, --smooth and --csv are for a timeline: add --every SECONDS")
    if wanted and (args.top is not None or args.read_ahead is not None):
        raise ValueError(
            "--top and --read-ahead are for whole videos; a window of a timeline has one label, and"
            " is read at once"
        )
    return wanted


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    with refusing(parser):
        videos = list_sources(args.videos)
        in_time = is_timeline(args, videos)
        pictures = picture_paths(args.show, videos)
        for path in pictures.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        predictor = load_predictor(args)
    policy, costs = predictor.policy, predictor.costs
    predictor.warm_up(None if in_time else len(videos))
    if policy and policy.promise:
        is_plain = not (args.json or args.csv)
        print(promise_line(args, policy), file=sys.stdout if is_plain else sys.stderr)
    predict = predict_timelines if in_time else predict_videos
    return predict(args, videos, pictures, predictor, costs)


def print_failure(video: Source, error: Exception, as_json: bool) -> None:
    """One line on standard error, and with --json one among the others."""
    reason = reason_of(error, video)
    tqdm.write(f"failed: {video}: {reason}", file=sys.stderr)
    if as_json:
        tqdm.write(json.dumps({"video": str(video), "error": reason}), file=sys.stdout)
        sys.stdout.flush()


def predict_timelines(
    args: argparse.Namespace,
    videos: Sequence[Source],
    pictures: Mapping[Source, Path],
    predictor: Predictor,
    costs: Mapping[str, float],
) -> int:
    """The lines of each source, one after the other; the exit code."""
    form = "json" if args.json else "csv" if args.csv else "text"
    seconds = args.window or args.every or WINDOW_SECONDS
    tally, code = Tally(), 0
    if header(form):
        print(header(form), flush=True)
    try:
        for video in videos:
            try:
                timeline = Timeline(
                    predictor, str(video), args.every or seconds, seconds, costs, args.smooth
                )
                write_timeline(timeline, str(video), tally, form, args.merge, pictures.get(video))
            except (OSError, ValueError) as error:
                code = 1
                print_failure(video, error, args.json)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    if form == "text":
        print_result({**tally.result, "precision": args.precision})
    return code or (1 if tally.failed or tally.undrawn else 0)


def predict_videos(
    args: argparse.Namespace,
    videos: Sequence[Source],
    pictures: Mapping[Source, Path],
    predictor: Predictor,
    costs: Mapping[str, float],
) -> int:
    """A prediction for each video; the exit code."""
    class_names, top = predictor.trained.class_names, args.top or TOP
    failed, undrawn, exits, gmacs = 0, 0, Counter(), 0.0
    for video in tqdm(videos, unit="video", disable=None if len(videos) > 1 else True):
        try:
            prediction = predictor.predict(video)
        except (OSError, ValueError) as error:
            failed += 1
            print_failure(video, error, args.json)
            continue
        found = prediction_values(prediction, class_names, costs, top)
        tqdm.write(json.dumps(found) if args.json else sentences(found, costs), file=sys.stdout)
        exits[found["exit"]] += 1
        gmacs += found["gmacs"]
        shown = (prediction, class_names, costs, top)
        if args.show and not drawn(pictures[video], draw_prediction, *shown):
            undrawn += 1
    if not args.json:
        mean = round(gmacs / sum(exits.values()), 4) if exits else None
        done = {"videos": len(videos), "failed": failed, "exits": exits, "mean_gmacs": mean}
        print_result({**done, "precision": args.precision})
    return 1 if failed or undrawn else 0


if __name__ == "__main__":
    run(main, get_args_parser())
