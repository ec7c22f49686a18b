"""What a re-encoding writes: which file becomes which, and the report beside them."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from coviar.convert import FITS
from coviar.files import VIDEO_SUFFIXES, is_special, sample_digest, write_json
from coviar.folder import list_folder

REPORT = "reencode.json"


def plan(source: Path, target: Path, prefer: str | None = None) -> tuple:
    """({output path: input path}, Contents.others, {input path: why it is left out}).

    Of files that differ in their suffix only, the one with the suffix `prefer` is taken; without
    such a one all are left out. Raises ValueError if there is nothing to do, or if an output would
    be an input.
    """
    others = Counter()
    if target.exists() and not target.is_dir():
        raise ValueError(f"OUT ({target}) is a file; name a folder")
    if source.is_dir():
        here, there = source.resolve(), target.resolve()
        if here == there or here in there.parents:
            raise ValueError(f"OUT ({target}) must not be inside IN ({source})")
        names, others = list_folder(source)
        videos = {name: source / name for name in names}
    elif source.is_file():
        videos = {Path(source.name): source}
    else:
        reason = "is a pipe or a device" if is_special(source) else "does not exist"
        raise ValueError(f"IN ({source}) {reason}")
    if not videos:
        raise ValueError(f"IN ({source}) holds no video; looked for {' '.join(VIDEO_SUFFIXES)}")
    sharing = defaultdict(list)
    for name, path in videos.items():
        sharing[target / name.with_suffix(".mp4")].append(path)
    outputs, clashes = {}, {}
    for output, paths in sharing.items():
        preferred = [path for path in paths if path.suffix.lower() == prefer]
        if len(paths) > 1 and len(preferred) != 1:
            names = " and ".join(path.name for path in paths)
            reason = f"{names} would all become {output}; rename them, or choose by --prefer SUFFIX"
            clashes.update(dict.fromkeys(map(str, paths), reason))
        else:
            outputs[output] = (preferred if len(paths) > 1 else paths)[0]
    inputs = {_real_file(path) for path in videos.values()}
    for output in outputs:
        if output.exists() and _real_file(output) in inputs:
            raise ValueError(f"OUT ({target}): {output} is a video of IN; name another folder")
    return outputs, others, clashes


def _real_file(path: Path) -> tuple | None:
    """The same for every name of a file; None where a link leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_settings(target: Path, settings: dict) -> None:
    """ValueError if the folder holds what was made with other settings. A choice by --prefer in an
    earlier run stays in the settings; a later run may add it, not change it."""
    report = _read_report(target)
    if report is None:
        return
    before = {"fit": FITS[0], "prefer": None, **report["settings"]}
    if before["prefer"] is None or settings["prefer"] is None:
        settings["prefer"] = before["prefer"] = before["prefer"] or settings["prefer"]
    if before != settings:
        raise ValueError(
            f"{target} was made with {before}, not {settings}: use the same settings or another OUT"
        )


def _read_report(target: Path) -> dict | None:
    path = target / REPORT
    if not path.exists():
        return None
    try:
        report = {"outputs": {}, **json.loads(path.read_text())}
        if not all(isinstance(known, dict) for known in report["outputs"].values()):
            raise TypeError("an output is no object")
        dict(report["settings"])
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not as this script writes it: use another OUT") from error
    return report


class Made:
    """Of which input each output of a folder was made: its path, its size in bytes, its time of
    change in ns, a digest of samples, and, if only a part could be decoded, why (`salvaged`)."""

    def __init__(self, target: Path):
        self._target = target
        self._known = (_read_report(target) or {}).get("outputs", {})

    def state(self, output: Path, path: Path, keep_damaged: bool) -> str:
        """Of an output that exists and the input that would become it: "kept", "changed" (the input
        is no more what it was), "salvaged" (to be tried anew) or "other" (another input)."""
        known = self._known.get(self._key(output))
        if known is None:
            return "kept"  # by an older version, or by other means
        try:
            facts = describe_input(path)
            # A copied or moved data set keeps its bytes, not its times or its place.
            is_same = facts.items() <= known.items() or (
                facts["size"] == known.get("size")
                and known.get("sample") in (None, sample_digest(path))
            )
        except OSError:
            return "kept"
        if not is_same:
            return "changed" if facts["input"] == known.get("input") else "other"
        return "kept" if keep_damaged or not known.get("salvaged") else "salvaged"

    def input_of(self, output: Path) -> str:
        return self._known[self._key(output)].get("input", "another video")

    def salvaged(self, output: Path) -> str | None:
        """Why only a part of the input is in an output; None if all of it is."""
        return self._known.get(self._key(output), {}).get("salvaged")

    def add(self, output: Path, facts: dict) -> None:
        self._known[self._key(output)] = facts

    def write(self, report: dict) -> None:
        """The folder's REPORT, whole: `report` and all outputs, with those that other runs have
        added meanwhile."""
        others = (_read_report(self._target) or {}).get("outputs", {})
        known = dict(self._known)  # threads may be adding to it
        write_json(self._target / REPORT, {**report, "outputs": {**others, **known}})

    def _key(self, output: Path) -> str:
        return output.relative_to(self._target).as_posix()


def describe_input(path: Path) -> dict:
    """What `Made` keeps of an input, but for its samples. Raises OSError."""
    status = os.stat(path)
    return {"input": os.path.abspath(path), "size": status.st_size, "mtime": status.st_mtime_ns}


def choose(outputs: Mapping[Path, Path], made: Made, keep_damaged: bool) -> tuple:
    """({output path: input path} to make, the inputs that have changed since, {input path: why its
    output cannot be made})."""
    todo, changed, refused = {}, [], {}
    for output, path in outputs.items():
        if not output.exists():
            todo[output] = path
            with contextlib.suppress(OSError):  # an input that is lost fails when it is its turn
                made.add(output, describe_input(path))
            continue
        state = made.state(output, path, keep_damaged)
        if state == "other":
            refused[str(path)] = (
                f"{output} was made of another video, {made.input_of(output)}, and stays: use"
                " another OUT, or rename one of the two"
            )
        elif state != "kept":
            todo[output] = path
        if state == "changed":
            changed.append(path)
    return todo, changed, refused
