"""Convert the list of another program or machine into a three-column list."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from coviar.folder import list_folder
from dataset_team.finder import alike
from dataset_team.groups import recordings_beside
from dataset_team.list_file import ListError, Row, read_rows, without_extension
from dataset_team.official_lists import Entry
from dataset_team.records import Seen, shorten


def convert(
    list_path: Path, data_root: Path, renumber: bool = False
) -> tuple[list[Entry], dict[str, str]]:
    """The rows of a list as entries, and {name of an entry: recording} of the file beside the list.

    Each video is found below `data_root` by the end of its path. A row that begins with # is a
    comment, unless the path of a video begins so. The class is the video's folder. Labels are the
    list's. With `renumber` they number the class folders in name order, so they are the same for
    every list. Raises ListError, naming the rows whose video is found never, several times or in
    another class only, or which contradict earlier ones.
    """
    by_stem = defaultdict(list)
    for path in list_folder(data_root).videos:
        by_stem[without_extension(path.name).casefold()].append(path)
    folders = sorted({p.parent.name for paths in by_stem.values() for p in paths if p.parent.name})
    entries, problems, seen = [], [], Seen(None)
    beside, recordings = recordings_beside(list_path, data_root), {}
    for row in read_rows(list_path, needs_class=False):
        if isinstance(row, ListError):
            problems.append(str(row))
            continue
        *parents, stem = row.name.split("/")
        found = {without_extension(path.as_posix()): path for path in by_stem[stem.casefold()]}
        while len(found) > 1 and parents:
            end = "/".join([*parents, stem])
            exact = {name: path for name, path in found.items() if f"/{name}".endswith(f"/{end}")}
            if exact:
                found = exact
                break
            parents.pop(0)
        if row.mark:
            whole = f"/{row.name}".casefold()
            found = {n: path for n, path in found.items() if f"/{n}".casefold().endswith(whole)}
            if not found:
                continue
        if len(found) == 1 and (other := _other_class(row, next(iter(found.values())), folders)):
            problems.append(
                f"{list_path}:{row.line}: {row.path}: no video of this name in {other}, only"
                f" {next(iter(found))}"
            )
            continue
        if len(found) != 1 or not (path := next(iter(found.values()))).parent.name:
            reason = f"{len(found)} videos of this name" if found else "no video of this name"
            problems.append(f"{list_path}:{row.line}: {row.path}: {reason} in a class folder")
            continue
        folder = path.parent.name
        if row.label is None and not renumber:
            problems.append(f"{list_path}:{row.line}: has no label; --renumber gives one")
            continue
        label = folders.index(folder) if renumber else row.label
        try:
            seen.check(path.as_posix(), folder, label, row.line)
            own = beside and (beside.find(next(iter(found))) or beside.find(row.name))
        except ListError as error:
            problems.append(f"{list_path}:{row.line}: {error}")
            continue
        entries.append(Entry(path.as_posix(), folder, label))
        if own:
            recordings[path.as_posix()] = own
    if problems:
        raise ListError(shorten(problems))
    if not entries:
        raise ListError(f"{list_path}: no videos in this list")
    if beside:
        beside.warn_of_others(list_path, len(recordings), len(entries))
    return entries, recordings


def _other_class(row: Row, path: Path, folders: list[str]) -> str | None:
    """The class that a row names by its folder or a column, if `path` is a video of another."""
    *_, folder = ["", *row.name.split("/")[:-1]]
    own = alike(path.parent.name)
    if alike(folder) == own:
        return None
    if alike(folder) in map(alike, folders):
        return folder
    return row.class_name if row.has_class and alike(row.class_name) != own else None
