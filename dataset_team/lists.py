"""List files: which videos, of which class.

    python -m dataset_team.lists ucf101 ucfTrainTestlist lists
    python -m dataset_team.lists folders clips lists
    python -m dataset_team.lists convert tsn_train.txt lists/train.txt --data-root clips
    python -m dataset_team.lists pools lists/train.txt lists --data-root clips

make three-column lists: from the official split files of a data set, from own videos in one folder
per class, from a list of another program; and two lists that share no recording, with half of the
videos each. A line holds `Class/video.avi ClassName label`. Blank lines are skipped, and so are
comments, which start with # and a blank. list_file.py has the other forms.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from coviar.command import run
from coviar.files import whole_file
from dataset_team import folders, official_lists
from dataset_team.convert import convert
from dataset_team.finder import VideoFinder
from dataset_team.groups import RECORDINGS_NAME, write_recordings
from dataset_team.heldout import split_heldout
from dataset_team.identity import equal_files
from dataset_team.list_file import ListError, Row, parse_rows, without_extension
from dataset_team.records import MAX_PROBLEMS_SHOWN, Record, read_list, shorten


def write_lists(
    lists: Mapping[Path, Iterable[official_lists.Entry]],
    recordings: Mapping[str, str] | None = None,
) -> None:
    """Write list files, all or none of them; with tabs between the columns where a name or class
    holds blanks. recordings: {name: recording}, for the file beside the lists.

    Raises ListError for a name that a list cannot hold, and for an empty recording.
    """
    texts = {path: _list_text(entries) for path, entries in lists.items()}
    if recordings:  # first: lists without them would part recordings
        for folder in {path.parent for path in lists}:
            write_recordings(folder, recordings)
    for path, text in texts.items():
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _list_text(entries: Iterable[official_lists.Entry]) -> str:
    lines = []
    for entry in entries:
        words = entry.name, entry.class_name, str(entry.label)
        line = ("\t" if " " in "".join(words) else " ").join(words)
        if not "".join(words).isprintable() or '"' in line or not _reads_back(line, entry):
            raise ListError(
                f"{entry.name!r}: a list cannot hold this name; rename the file or its folder,"
                " without quotes, backslashes, a blank at an end or a separator beside blanks"
            )
        lines.append(f"{line}\n")
    return "".join(lines)


def _reads_back(line: str, entry: official_lists.Entry) -> bool:
    """Whether a line is read as its entry wherever it stands, also as the first of a list."""
    return any(
        isinstance(row, Row) and (row.path, row.class_name, row.label) == entry
        for row in parse_rows([line], "")
    )


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_team.lists",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in sorted(official_lists.READERS):
        command = commands.add_parser(name, help="lists of the official split files")
        command.add_argument(
            "splits",
            metavar="SPLITS",
            help="the folder of the official files: ucfTrainTestlist with classInd.txt, "
            "testTrainMulti_7030_splits, or Kinetics-400's train.csv and val.csv",
        )
        command.add_argument("out", metavar="OUT", help="folder for <data>_<split>_<part>.txt")
        command.add_argument(
            "--data-root",
            metavar="DIR",
            help="leave out the videos that are not in DIR, and print how many (Kinetics loses "
            "some every year)",
        )
    _add_folders_command(commands)
    command = commands.add_parser("convert", help="a list of TSN, mmaction or another machine")
    command.add_argument("list", metavar="LIST", type=Path, help="TSN's, mmaction's, or paths")
    command.add_argument("out", metavar="OUT", type=Path, help="the list to write")
    command.add_argument(
        "--data-root", metavar="DIR", type=Path, required=True, help="folder of the class folders"
    )
    command.add_argument(
        "--renumber", action="store_true", help="label classes by the order of their folders' names"
    )
    command = commands.add_parser(
        "pools", help="two lists of half of each class, by recording: one to label, one without"
    )
    command.add_argument("list", metavar="LIST", type=Path, help="three columns")
    command.add_argument("out", metavar="OUT", type=Path, help="folder for LIST_pool1, LIST_pool2")
    command.add_argument(
        "--data-root", metavar="DIR", type=Path, required=True, help="folder of the class folders"
    )
    command.add_argument("--seed", type=int, default=0, help="another seed, other halves")
    return parser


def _add_folders_command(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("folders", help="splits of own videos, one folder per class")
    command.add_argument("dir", metavar="DIR", type=Path, help="holds Class/video.mp4 ...")
    command.add_argument("out", metavar="OUT", type=Path, help="folder for split1_train.txt ...")
    command.add_argument(
        "--test-share", type=float, default=0.25, metavar="X", help="of the clips (default 0.25)"
    )
    command.add_argument("--folds", type=int, metavar="K", help="K splits; each clip tested once")
    command.add_argument("--seed", type=int, default=0, help="another seed, other splits")
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--group-regex",
        metavar="RE",
        help="a recording is what RE, or its first (group), matches in Class/video; it must not be "
        "empty",
    )
    group.add_argument(
        "--group-csv", type=Path, metavar="FILE", help="two columns: Class/video, recording"
    )
    group.add_argument(
        "--group-names",
        action="store_true",
        help="names that differ by the ending of a copy or part, such as (1) or _part2, are one "
        "recording",
    )
    group.add_argument(
        "--no-groups", action="store_true", help="every file is a recording of its own"
    )


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        if args.command == "folders":
            result = _make_folder_lists(args)
        elif args.command == "convert":
            result = _convert(args)
        elif args.command == "pools":
            result = _make_pools(args)
        else:
            result = _make_official_lists(args)
    except official_lists.SplitFileError as error:
        parser.exit(1, f"{error}\n")
    except (ListError, OSError) as error:
        parser.error(str(error))
    print(f"result: {json.dumps(result)}")


def _make_official_lists(args: argparse.Namespace) -> dict:
    finder = None
    if args.data_root is not None:
        if not Path(args.data_root).is_dir():
            raise ListError(f"--data-root {args.data_root}: no such folder")
        finder = VideoFinder(args.data_root)
    result, lists = {}, {}
    for part, entries in official_lists.READERS[args.command](args.splits).items():
        path = Path(args.out) / f"{args.command}_{part}.txt"
        listed = [
            entry
            for entry in entries
            if finder is None or finder.find(without_extension(entry.name))
        ]
        lists[path] = listed
        result[str(path)] = {"videos": len(listed), "missing": len(entries) - len(listed)}
    write_lists(lists)
    for path, counts in result.items():
        print(f"{path}: {counts['videos']} videos, {counts['missing']} missing")
    return result


def _convert(args: argparse.Namespace) -> dict:
    if not args.data_root.is_dir():
        raise ListError(f"--data-root {args.data_root}: no such folder")
    entries, recordings = convert(args.list, args.data_root, args.renumber)
    write_lists({args.out: entries}, recordings)
    classes = {entry.class_name for entry in entries}
    return {"list": str(args.out), "videos": len(entries), "classes": len(classes)}


def _make_pools(args: argparse.Namespace) -> dict:
    """A film with clips of several classes is in the first pool."""
    records = read_list(args.list, args.data_root)
    name_of = {record.path: record.name for record in records}
    copies = [[name_of[path] for path in paths] for paths in equal_files(name_of)]
    try:
        pools = split_heldout(records, 0.5, args.seed, copies)
    except ListError as error:
        raise ListError(f"{args.list}: {error}") from error
    lists = {
        args.out / f"{args.list.stem}_pool{number}.txt": [_as_entry(record) for record in pool]
        for number, pool in enumerate(pools, 1)
    }
    recordings = {_as_entry(r).name: r.recording for r in records if r.recording is not None}
    write_lists(lists, recordings)
    return {str(path): len(entries) for path, entries in lists.items()}


def _as_entry(record: Record) -> official_lists.Entry:
    """A name that ends as if it had an extension keeps its own."""
    name = record.name
    if without_extension(name) != name:
        name += Path(record.path).suffix
    return official_lists.Entry(name, record.class_name, record.label)


def _make_folder_lists(args: argparse.Namespace) -> dict:
    if not args.dir.is_dir():
        raise ListError(f"{args.dir}: no such folder")
    if not 0 < args.test_share < 1:
        raise ListError(f"--test-share must be between 0 and 1, found {args.test_share}")
    if args.folds is not None and args.folds < 2:
        raise ListError(f"--folds must be 2 or more, found {args.folds}")
    clips, left_out = folders.read_videos(args.dir)
    groups, equal = folders.join_equal_files(clips, _choose_groups(args, clips))
    if len(set(groups.values())) < (args.folds or 2):
        raise ListError(f"{args.dir} holds {len(set(groups.values()))} recording(s): too few")
    parts = folders.make_splits(clips, groups, args.test_share, args.folds, args.seed)
    lists = {args.out / f"{part}.txt": entries for part, entries in parts.items()}
    write_lists(lists, groups)
    if equal:
        shown = "\n".join("  " + " = ".join(names) for names in equal[:MAX_PROBLEMS_SHOWN])
        print(f"equal files, kept on one side:\n{shown}")
    if others := sorted(path.name for path in set(args.out.glob("split*_*.txt")) - set(lists)):
        print(f"older lists are still in {args.out}, of other splits: {', '.join(others)}")
    if left_out:
        print(f"{len(left_out)} file(s) left out:\n{shorten(left_out)}")
    print("\n".join(folders.class_table(clips, groups, parts)))
    return {
        "lists": [str(args.out / f"{part}.txt") for part in parts],
        "clips": {part: len(entries) for part, entries in parts.items()},
        "recordings": str(args.out / RECORDINGS_NAME),
        "groups": len(set(groups.values())),
        "left_out": len(left_out),
    }


def _choose_groups(args: argparse.Namespace, clips: Sequence[folders.ClassVideo]) -> dict[str, str]:
    """{name: recording}. Raises ListError when names look alike and no option says more."""
    if args.group_regex is not None:
        return folders.groups_by_regex(clips, args.group_regex)
    if args.group_csv is not None:
        return folders.groups_by_csv(clips, args.group_csv, args.dir)
    by_name = folders.groups_by_name(clips)
    if args.group_names:
        return by_name
    alike = defaultdict(list)
    for name, group in by_name.items():
        alike[group].append(name)
    alike = [", ".join(names) for names in alike.values() if len(names) > 1]
    if alike and not args.no_groups:
        raise ListError(
            f"{len(alike)} recording(s) seem to have several clips, by their names:\n"
            f"{shorten(alike)}\nKeep each on one side by --group-names, or say otherwise by "
            "--group-regex, --group-csv or --no-groups"
        )
    if not args.no_groups:
        print("each file is taken for a recording of its own; --group-regex, --group-csv say more")
    return {clip.name: clip.name for clip in clips}


if __name__ == "__main__":
    run(main, get_args_parser())
