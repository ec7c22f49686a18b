"""What a re-encoding writes: which file becomes which, and the report beside them."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

from coviar.convert import FITS
from coviar.files import VIDEO_SUFFIXES, whole_file
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
        raise ValueError(f"IN ({source}) does not exist")
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
    report = target / REPORT
    if not report.exists():
        return
    try:
        before = {"fit": FITS[0], "prefer": None, **json.loads(report.read_text())["settings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{report} is not as this script writes it: use another OUT") from error
    if before["prefer"] is None or settings["prefer"] is None:
        settings["prefer"] = before["prefer"] = before["prefer"] or settings["prefer"]
    if before != settings:
        raise ValueError(
            f"{report.parent} was made with {before}, not {settings}: use the same settings or "
            "another OUT"
        )


def write_report(target: Path, report: dict) -> None:
    """Write the folder's REPORT, whole."""
    with whole_file(target / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
