"""The run folder: args.json, env.json, log.jsonl (one line an epoch), result.json, lock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from coviar.files import half_written, read_json, whole_file, write_json
from training import distributed
from training.lock import RunLock
from training.provenance import environment
from training.splits import Splits
from training.tensor_file import AGAIN, BEST, LAST, PREVIOUS

# Options that may differ when a run is resumed. None of them changes a result.
FREE_ON_RESUME = {
    *("resume", "overwrite", "tensorboard", "workers", "gpus"),
    *("checkpoint_dir", "data_root", "index_dir", "cache_dir", "save_steps", "precision_asked"),
    *("weights_dir", "backbone", "is_train"),
}
LISTS = ("train_list", "test_list", "unlabelled")  # compared by content, not by path
# What a run writes, after args.json.
MADE_BY_RUN = ("log.jsonl", "result.json", LAST, PREVIOUS, BEST)
# What other scripts make of the run, in its folder and in its folder over_time.
MADE_OF_RUN = (
    *("logits.pt", "wise.json", "policy.json"),
    *("exits.csv", "policies.csv", "trade_off.csv"),
)


class RunFolder:
    """One run's folder, `<checkpoint_dir>/<data>/<method>/<split>_seed<k>/`.

    All processes call its methods; only the main one reads and writes the disk.
    """

    def __init__(
        self,
        path: Path,
        options: Mapping,
        defaults: Mapping = MappingProxyType({}),
        flags: Mapping[str, str] = MappingProxyType({}),
    ):
        """options: of this start, with `resume` and `overwrite`. defaults: of each option. flags:
        how an option is written where it is not --its-name."""
        self.path, self.flags = Path(path), flags
        self.options, self.defaults = _plain(options), _plain(defaults)
        self._tensorboard = None
        self._lock: RunLock | None = None

    @property
    def result(self) -> dict | None:
        """The finished run's result, None while there is none."""
        file = self.path / "result.json"
        return read_json(file, AGAIN) if file.is_file() else None

    def check(self) -> None:
        """Raise ValueError if starting would lose a run or mix two runs.

        The folder holds a run and neither --resume nor --overwrite is given; or --resume is given
        and the options differ from those of the run, or the weights of the backbone or the videos
        do; or the folder does not say of which run its files are.
        """
        recorded = self.path / "args.json"
        if self.options["overwrite"]:
            return
        if not recorded.is_file():
            found = [name for name in MADE_BY_RUN if (self.path / name).is_file()]
            if found:
                raise ValueError(
                    f"{self.path} holds {', '.join(found)} and no args.json, so it does not say"
                    " how they were made; --overwrite starts again, another --checkpoint_dir keeps"
                    " both"
                )
            return
        if not self.options["resume"]:
            raise ValueError(
                f"{self.path} already holds a run; --resume continues it (or reports its result),"
                " --overwrite starts again"
            )
        # An option that the run's version did not have counts as its default.
        before = {**self.defaults, **read_json(recorded, AGAIN)}
        self._check_backbone(before)
        lists, lists_before = self.options.get("lists"), before.get("lists")
        same_lists = LISTS if lists and lists == lists_before else ()
        free = {*FREE_ON_RESUME, "backbone_digest", "lists", "videos", *same_lists}
        if lists and not lists_before:
            print(f"note: {self.path} does not record what its lists held; that is not checked")
        changed = [
            f"{self._flag(key)}: was {before.get(key)}, now {self.options.get(key)}"
            for key in sorted(before.keys() | self.options.keys())
            if key not in free and not _same(before.get(key), self.options.get(key))
        ]
        changed += [
            f"{self._flag(key)} {self.options[key]}: other videos, classes or labels in it"
            for key in LISTS
            if lists and lists_before and lists.get(key) != lists_before.get(key)
        ]
        videos, videos_before = self.options.get("videos"), before.get("videos")
        if videos and videos_before:  # before the videos are indexed, or in older runs, unknown
            parts = videos.keys() | videos_before.keys()
            changed += [
                f"other {part} videos than then, in --data-root or by recordings.csv"
                for part in sorted(parts)
                if videos.get(part) != videos_before.get(part)
            ]
        ours = self.options.get("precision")
        if self.options.get("precision_asked") == "auto" and before["precision"] != ours:
            changed.append(f"--precision auto is {ours} on this machine")
        if changed:
            raise ValueError(
                f"{self.path} was started with other options ({'; '.join(changed)});"
                " use those, or another --checkpoint_dir, or --overwrite"
            )

    def _flag(self, key: str) -> str:
        return self.flags.get(key, f"--{key.replace('_', '-')}")

    def _check_backbone(self, before: Mapping) -> None:
        """Raise ValueError if the exits of this run have begun on other weights."""
        digest = self.options.get("backbone_digest")
        if digest is None:
            return
        if before.get("backbone_digest") is None:
            print(f"note: {self.path} does not record its backbone; that is not checked")
        elif before["backbone_digest"] != digest:
            raise ValueError(
                f"the backbone {self.options['backbone']} has other weights now than when the run"
                f" {self.path} began; --overwrite starts again, another --checkpoint_dir keeps both"
            )

    def finished(self) -> dict | None:
        """`check`, then the result of a finished run; None without one or with --overwrite."""
        distributed.on_main(self.check)
        return distributed.on_main(lambda: None if self.options["overwrite"] else self.result)

    def record_videos(self, splits: Splits) -> None:
        """Take digests of the videos of each part among the options, for `start` to compare."""
        self.options["videos"] = distributed.on_main(lambda: splits.digests)

    def start(self) -> None:
        """Lock the folder; record options and environment of a new run.

        --overwrite removes the old run and all that was made of it first, so check all options
        before. Raises LockedError when another process uses the folder.
        """
        distributed.on_main(self._start)

    def _start(self) -> None:
        self._lock = RunLock(self.path)
        self.check()
        if self.options["overwrite"]:
            for name in MADE_OF_RUN:
                for folder in (self.path, self.path / "over_time"):
                    (folder / name).unlink(missing_ok=True)
        for name in ("env.json", *MADE_BY_RUN, "args.json"):
            if self.options["overwrite"]:
                (self.path / name).unlink(missing_ok=True)
            for file in half_written(self.path / name):
                file.unlink()
        if not (self.path / "args.json").is_file():
            write_json(self.path / "env.json", environment())
            write_json(self.path / "args.json", self.options)

    def start_log(self, epochs_done: int, tensorboard: bool) -> None:
        """Keep the first `epochs_done` lines of the log, those that the checkpoint includes."""
        if not distributed.is_main():
            return
        file = self.path / "log.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        with whole_file(file) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines[:epochs_done]))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("--tensorboard: not installed, `pip install tensorboard`; logging without")
                return
            self._tensorboard = SummaryWriter(self.path, purge_step=epochs_done)

    def log(self, line: dict) -> None:
        """Append one epoch's line (it holds `epoch`) and print it."""
        if not distributed.is_main():
            return
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print("  ".join(f"{key} {_short(value)}" for key, value in line.items()), flush=True)
        if self._tensorboard:
            for name, value in _scalars(line):
                self._tensorboard.add_scalar(name, value, line["epoch"])

    def finish(self, result: dict) -> None:
        """Write the result and remove previous.pt."""
        if not distributed.is_main():
            return
        write_json(self.path / "result.json", result)
        (self.path / PREVIOUS).unlink(missing_ok=True)

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock:
            self._lock.release()
            self._lock = None


def _same(before: object, now: object) -> bool:
    """Whether two recorded values are equal, or two spellings of one path."""
    both_text = isinstance(before, str) and isinstance(now, str)
    return before == now or (both_text and Path(before).resolve() == Path(now).resolve())


def _plain(options: Mapping) -> dict:
    """The options as JSON keeps them."""
    return json.loads(json.dumps(dict(options), default=str))


def _scalars(line: Mapping) -> Iterator[tuple[str, float]]:
    """The numbers of an epoch's line, those of a list one by one: losses/1, losses/2, ..."""
    for key, value in line.items():
        if isinstance(value, (list, tuple)):
            yield from _scalars({f"{key}/{k}": item for k, item in enumerate(value, start=1)})
        elif isinstance(value, (int, float)):
            yield key, value


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(str(_short(item)) for item in value) + "]"
    return value
