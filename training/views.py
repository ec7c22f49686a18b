"""Fill the bank before the exits train, and remove banks that nothing needs.

    python -m training.views --data-name ucf101 --data-root data/ucf101 \\
        --train-list lists/ucf101_split1_train.txt --test-list lists/ucf101_split1_test.txt
    python -m training.views --prune --dry-run

The first command computes the frozen views of every video, on any number of processes and hosts.
Without it, the first script that lacks a view computes it. The second removes the banks of
backbones that are gone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from coviar.command import run
from coviar.files import half_written
from training import distributed, options, train_options
from training.bank import ABOUT, FEATURES_VERSION, Views, fill_share, read_banks
from training.checkpoint import load_backbone
from training.frozen import VIEW_PARTS, Frozen
from training.options import asking_for_room, refusing
from training.provenance import print_result
from training.recipes import BACKBONES
from training.script import check_data, open_frozen
from training.tensor_file import weights_digest

COMMAND = "python -m training.views"
AUGMENTED = {"train", "unlabelled"}  # the parts of which there are --views; the others, as tested


def get_fill_parser() -> argparse.ArgumentParser:
    parser = options.make_parser(__doc__)
    parser.prog = COMMAND
    options.add_data_options(parser)
    train_options.add_frozen_options(parser, no_views="none of them, only the other parts")
    train_options.add_unlabelled_option(parser)
    group = parser.add_argument_group("run")
    options.add_location_options(group)
    options.add_device_options(group)
    group.add_argument(
        "--parts",
        nargs="+",
        choices=VIEW_PARTS,
        help="what to compute (default all that the data has)",
    )
    group.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="compute only every Nth view, beginning with the Ith: for N processes or hosts that"
        " share the folder (default: all; under torchrun, this process's part)",
    )
    return parser


def get_prune_parser() -> argparse.ArgumentParser:
    parser = options.make_parser("Remove the banks of backbones that are gone or were retrained.")
    parser.prog = COMMAND
    parser.add_argument("--prune", action="store_true", required=True)
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    parser.add_argument("--checkpoint_dir", type=Path, default=Path("runs"), help="(default runs)")
    parser.add_argument("--cache-dir", type=Path, help="of banks kept elsewhere")
    return parser


def shard(text: str) -> tuple[int, int]:
    """`2/8` is (2, 8)."""
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text} is no shard; write 1/4 to 4/4 for four of them")
    return int(number), int(total)


def fill(args: argparse.Namespace) -> dict:
    """Compute the missing views of this shard, or of all; returns the result that is printed last.

    Every process of torchrun calls this and computes its part.
    """
    check_data(args)
    check_parts(args)
    banks, counts = banks_to_fill(args, open_frozen(args))
    start = time.perf_counter()
    share = args.shard or (distributed.rank() + 1, distributed.world_size())
    (clips,) = distributed.sum_of(fill_share(banks, counts, *share))
    seconds = time.perf_counter() - start
    missing = {part: bank.missing(counts[part]) for part, bank in banks.items()}
    left = [
        f"{part} {', '.join(map(str, numbers))}" for part, numbers in missing.items() if numbers
    ]
    if left:
        print(
            f"shard {'/'.join(map(str, share))} is done; views of other shards are still missing:"
            f" {'; '.join(left)}. Wait for them, or run without --shard to compute them here"
        )
    return {
        "banks": {part: str(bank.folder) for part, bank in banks.items()},
        "videos": {part: len(bank.dataset) for part, bank in banks.items()},
        "views": counts,
        "missing": missing,
        "precision": args.precision,
        "computed_clips": int(clips),
        "seconds": round(seconds, 3),
    }


def check_parts(args: argparse.Namespace) -> None:
    """Raise ValueError where --parts names one that the other options leave empty."""
    named = args.parts or ()
    for part in named:
        if part in AUGMENTED and args.views == 0:
            raise ValueError(f"--parts {part} has nothing to compute with --views 0")
    if "heldout" in named and (args.select_on == "test" or not args.heldout):
        reason = "--select-on test" if args.select_on == "test" else "--heldout 0"
        raise ValueError(f"--parts heldout: there is no such part with {reason}")
    if "unlabelled" in named and not args.unlabelled:
        raise ValueError("--parts unlabelled: name its list with --unlabelled LIST")


def banks_to_fill(
    args: argparse.Namespace, frozen: Frozen
) -> tuple[dict[str, Views], dict[str, int]]:
    """The banks of --parts, or of all that the data has, and how many views each gets."""
    splits = frozen.splits
    absent = {
        *(() if args.views else AUGMENTED),
        *(() if splits.heldout else ("heldout",)),
        *(() if splits.unlabelled else ("unlabelled",)),
    }
    parts = args.parts or [part for part in VIEW_PARTS if part not in absent]
    banks = {part: frozen.views(part) for part in parts}
    counts = {
        part: args.views if part in AUGMENTED else bank.dataset.num_test_views
        for part, bank in banks.items()
    }
    return banks, counts


def prune(checkpoint_dir: Path, cache_dir: Path | None, dry_run: bool) -> dict:
    """Remove the banks that no present backbone can use; prints what it removes and keeps.

    A backbone is known by its weights: those of every run of BACKBONES under --checkpoint_dir, and
    those in the file that the bank was made from, wherever it is.
    """
    roots = {folder.parent for folder in checkpoint_dir.glob("*/views/*")}
    roots |= {cache_dir} if cache_dir else set()
    banks = {folder: about for root in sorted(roots) for folder, about in read_banks(root).items()}
    runs = checkpoint_dir.resolve()
    files = dict.fromkeys(file for name in BACKBONES for file in runs.glob(f"*/{name}/*/best.pt"))
    for about in filter(None, banks.values()):
        files[Path(about["backbone_file"])] = about["identity"]["config"]["num_segments"]
    backbones = _backbone_digests(files) if banks else {}
    megabytes = {"removed": 0.0, "kept": 0.0}
    for folder, about in banks.items():
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        words = f"{folder} ({about['name'] if about else 'unknown'}), {size:.3g} MB"
        reason = _why_useless(about, backbones)
        if reason:
            print(f"{'would remove' if dry_run else 'remove'} {words}: {reason}")
            if not dry_run:
                _remove(folder)
        else:
            identity = about["identity"]
            made = f"{identity['precision']} network, {identity['dtype'].split('.')[-1]} vectors"
            print(f"keep {words}: {made}, of {about['backbone_file']}")
        megabytes["removed" if reason else "kept"] += size
    return {
        "dry_run": dry_run,
        **{f"{fate}_mb": round(size, 3) for fate, size in megabytes.items()},
    }


def _backbone_digests(files: dict[Path, int | None]) -> dict[str | None, list[Path]]:
    """Which backbones there are: {digest: files}; under None, files that cannot be read now."""
    found: dict[str | None, list[Path]] = {}
    for file, num_segments in files.items():
        try:
            digest = weights_digest(load_backbone(file, num_segments).state_dict())
        except FileNotFoundError:
            continue
        except ValueError as error:
            print(f"cannot read {file}: {error}")
            digest = None
        found.setdefault(digest, []).append(file)
    return found


def _why_useless(about: dict | None, backbones: dict[str | None, list[Path]]) -> str | None:
    """Why no run can use this bank again; None where one can, or might."""
    if about is None or about["identity"]["features"] != FEATURES_VERSION:
        return "made by another version of the code, or its about.json is damaged"
    if about["identity"]["backbone"] in backbones:
        return None
    file = Path(about["backbone_file"])
    if file in backbones.get(None, ()):
        return None
    return f"{file} {'holds other weights now' if file.is_file() else 'is gone'}"


def _remove(folder: Path) -> None:
    """Delete what bank.py wrote, and the folder, unless something else is in it."""
    for name in ("view_*.pt", ABOUT):
        for file in (*folder.glob(name), *half_written(folder / name)):
            file.unlink()
    try:
        folder.rmdir()
    except OSError:
        print(f"{folder} holds other files as well, which stay: {os.listdir(folder)}")


def main_prune(args: argparse.Namespace, _: argparse.ArgumentParser) -> None:
    print_result(prune(args.checkpoint_dir, args.cache_dir, args.dry_run))


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    with asking_for_room(parser, "give the same command again"), refusing(parser):
        result = fill(args)
    print_result(result)
    distributed.stop()


if __name__ == "__main__":
    if "--prune" in sys.argv[1:]:
        run(main_prune, get_prune_parser())
    else:
        run(main, get_fill_parser())
