"""The edge of the training scripts: parsed options become values, errors become exit codes.

Exit codes: 0 done, 1 failed, 2 refused (options, or a folder in use), 75 stopped by a signal and
to be started again with --resume.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from dataset_team.records import list_digest
from models import PUBLISHED_NETWORK
from training import distributed
from training.agreement import READ_FROM_BACKBONE, check_classes, check_unseen, load_as_trained
from training.backbone import (
    BackboneRecipe,
    EvaluationSettings,
    check_batches,
    test_result,
    train_backbone,
)
from training.checkpoint import load_backbone
from training.distillation import Schedule
from training.exits import ExitRecipe, test_exits, train_exits
from training.frozen import Frozen
from training.options import asking_for_room, refusing
from training.pretrained import build_backbone
from training.provenance import print_result
from training.resolve import (
    check_backbone_options,
    choose_device,
    find_backbone,
    resolve_heldout,
    resolve_precision,
    resolve_recipe,
    run_path,
    stream_sources,
)
from training.run_folder import LISTS, RunFolder
from training.splits import DataSettings, open_splits
from training.stopping import REQUEUE, Stopped, StopSignals
from training.tensor_file import BEST, weights_digest
from training.tuning import check_partial_bn

Settings = TypeVar("Settings")
BATCH_OPTIONS = ("batch_size", "accumulate", "crop_size", "sync_bn")


def pick(kind: type[Settings], args: argparse.Namespace, **others: object) -> Settings:
    """A settings dataclass filled from the options of the same names, and from `others`.

    A field with a default keeps it where the script has no such option.
    """
    names = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in others
        and (field.default is dataclasses.MISSING or hasattr(args, field.name))
    ]
    return kind(**{name: getattr(args, name) for name in names}, **others)


def check_data(args: argparse.Namespace) -> None:
    """Resolve --heldout, and put the digests of the lists into args.lists.

    Raises ValueError or FileNotFoundError, before anything long starts, when the options of the
    data contradict each other or name files that are not there or are no lists.
    """
    resolve_heldout(args)
    if not args.data_root.is_dir():
        raise FileNotFoundError(f"--data-root {args.data_root} is no folder")
    args.lists = {}
    for name in LISTS:
        path = getattr(args, name, None)
        if path is None:
            continue
        if not path.is_file():
            raise FileNotFoundError(f"--{name.replace('_', '-')} {path} is no file")
        args.lists[name] = list_digest(path, args.data_root)


def run_folder(args: argparse.Namespace, parser: argparse.ArgumentParser, method: str) -> RunFolder:
    """The run's folder, with the options, their defaults and how they are written."""
    given = vars(args)
    defaults = {name: parser.get_default(name) for name in given}
    flags = {action.dest: action.option_strings[-1] for action in parser._actions}
    return RunFolder(run_path(args, method), given, defaults, flags)


def identify_backbone(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """Path and digest of the backbone that exits train on; None where there is none now.

    Raises ValueError as `find_backbone` does, and where the file is no backbone.
    """
    try:
        path = find_backbone(args)
    except FileNotFoundError:
        return None, None
    return str(path), weights_digest(load_backbone(path, args.num_segments).state_dict())


def open_frozen(args: argparse.Namespace) -> Frozen:
    """The frozen backbone and the data that the options name; under torchrun in all processes,
    which join their group before.

    Raises ValueError or FileNotFoundError when they do not belong together.
    """
    resolve_precision(args)
    path, device = find_backbone(args), choose_device(args.gpus)
    distributed.start(device)
    print(f"backbone: {path}", flush=True)
    return Frozen(
        path,
        pick(DataSettings, args),
        device=device,
        precision=args.precision,
        batch_size=args.feature_batch,
        workers=args.workers,
        data_seed=args.data_seed,
        bank_dtype=args.bank_dtype,
        cache_dir=args.cache_dir or args.checkpoint_dir / args.data_name / "views",
        asked={name: getattr(args, name) for name in READ_FROM_BACKBONE},
    )


def run_backbone(args: argparse.Namespace, parser: argparse.ArgumentParser, method: str) -> None:
    """Train or evaluate a backbone as the options say; the result is printed last."""
    with refusing(parser):
        resolve_recipe(args)
        check_data(args)
        device = choose_device(args.gpus)
        asked = {name: getattr(args, name) for name in READ_FROM_BACKBONE}
        for name, value in PUBLISHED_NETWORK.items() if not args.evaluate else ():
            setattr(args, name, value if asked[name] is None else asked[name])
    distributed.start(device)
    resolve_precision(args)
    args.precision = distributed.on_main(lambda: args.precision)
    folder, data = run_folder(args, parser, method), pick(DataSettings, args)
    with refusing(parser):
        check_backbone_options(args)
        if args.evaluate:
            path = Path(args.pretrained) if args.pretrained else folder.path / BEST
            checkpoint, model, crop_size = load_as_trained(path, asked)
            count = model.config["num_classes"]
            data = dataclasses.replace(data, select_on="last", heldout=0.0)  # nothing is chosen
            splits = open_splits(data, model.num_segments, crop_size, args.random_seed, count)
            names = splits.class_names
            check_classes(path, checkpoint.get("class_names"), count, names, args.test_list)
            check_unseen(path, checkpoint, splits)
            settings = pick(EvaluationSettings, args)
            with refusing_diverged(path, parser):
                tested = test_result(model, splits, device, settings)
            holds_out = bool(checkpoint.get("heldout", True))
            protocol = splits.protocol_of(checkpoint.get("select_on"), holds_out)
            result = {"checkpoint": str(path), **tested, "protocol": protocol}
        else:
            result = folder.finished()
        if result is None:
            splits = open_splits(
                data,
                args.num_segments,
                args.crop_size,
                args.random_seed,
                train_segments=args.train_segments,
                photometric=args.photometric,
            )
            folder.record_videos(splits)
            check_batches(
                len(splits.train),
                num_segments=splits.train.num_segments,
                **{name: getattr(args, name) for name in BATCH_OPTIONS},
            )
            config = {name: getattr(args, name) for name in PUBLISHED_NETWORK}
            config.pop("crop_size")
            config["num_classes"] = len(splits.class_names)
            model = build_backbone(
                config,
                args.pretrained,
                args.random_seed,
                stream_sources(args),
                args.weights_dir,
                splits.class_names,
                splits,
            )
            if args.partial_bn:
                check_partial_bn(model)
    if result is None:
        with running(folder, parser) as stop:
            recipe = pick(BackboneRecipe, args)
            result = train_backbone(recipe, folder, splits, model, device, stop)
            folder.finish(result)
    print_result(result)
    distributed.stop()


def run_exits(
    args: argparse.Namespace, parser: argparse.ArgumentParser, method: str, schedule: str
) -> None:
    """Train or evaluate exits as the options say; the result is printed last."""
    if distributed.launched():
        parser.error(
            "one process trains exits, in seconds; torchrun is for pretrain.py, train_team_net.py,"
            " and for views and logits: torchrun -m training.views, save_logits.py"
        )
    args.exits = sorted(set(args.exits))
    with refusing(parser):
        resolve_recipe(args)
        check_data(args)
        resolve_precision(args)
        teachers = Schedule(schedule, args.epochs)
        if teachers.has_ranks and args.select_on == "last" and not args.heldout:
            raise ValueError(
                f"--schedule {schedule}: with --heldout 0 there are no videos to rank streams on"
            )
        args.backbone, args.backbone_digest = None, None
        if not args.evaluate:
            args.backbone, args.backbone_digest = identify_backbone(args)
        folder = run_folder(args, parser, method)
        result = None if args.evaluate else folder.finished()
        if result is None:
            frozen = open_frozen(args)
            folder.record_videos(frozen.splits)
        if args.evaluate:
            net = frozen.exits(folder.path / BEST)
            with refusing_diverged(folder.path / BEST, parser):
                result = {"run": str(folder.path), **test_exits(net, frozen)}
    if result is None:
        with running(folder, parser) as stop:
            result = train_exits(pick(ExitRecipe, args), folder, frozen, teachers, stop)
            folder.finish(result)
    print_result(result)


@contextlib.contextmanager
def refusing_diverged(path: Path, parser: argparse.ArgumentParser) -> Iterator[None]:
    """A checkpoint whose logits are not finite ends an evaluation with one line."""
    try:
        yield
    except FloatingPointError as error:
        parser.error(f"{path} cannot be evaluated: {error}; its training diverged, train it again")


@contextlib.contextmanager
def running(folder: RunFolder, parser: argparse.ArgumentParser) -> Iterator[StopSignals]:
    """Lock the run's folder. Errors that a user can mend end the script with one line and an exit
    code, without a traceback."""
    with StopSignals() as stop, asking_for_room(parser, "--resume"):
        try:
            with refusing(parser):
                folder.start()
                yield stop
        except Stopped as stopped:
            parser.exit(
                REQUEUE,
                f"{stopped.name}: stopped; the same command with --resume goes on from"
                f" {folder.path} (exit code {REQUEUE})\n",
            )
        except FloatingPointError as error:
            best = folder.path / BEST
            kept = f"; {best} is of the best epoch before" if best.is_file() else ""
            other = " or --precision fp32" if folder.options["precision"] == "bf16" else ""
            parser.exit(
                1,
                f"{parser.prog}: error: {error}; start again with --overwrite and a lower --lr"
                f"{other}{kept}\n",
            )
        except RuntimeError as error:
            if not distributed.is_parted(error):
                raise
            reason = str(error).splitlines()[0]
            parser.exit(
                1,
                f"{parser.prog}: error: another process of this training is gone ({reason}); see"
                " above why. The last checkpoint is intact: the same command with --resume goes"
                " on\n",
            )
        finally:
            folder.release()
