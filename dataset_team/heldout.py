"""Which training videos are held out: whole groups, class by class."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from dataset_team.folders import divide
from dataset_team.groups import film_of
from dataset_team.list_file import ListError
from dataset_team.records import Record


def split_heldout(
    records: Sequence[Record],
    fraction: float = 0.15,
    seed: int = 0,
    copies: Iterable[Collection[str]] = (),
) -> tuple[list[Record], list[Record]]:
    """Split records into (training, held-out), both in list order, class by class.

    A group of a class stays on one side, so no recording is on both; a video whose name tells no
    group is a group of its own. A film with several classes trains. copies: sets of names of equal
    videos. If the choice would part them, their groups become one, and the choice is made again.
    Recordings that a file beside the list names, and copies, may hold several classes: then all
    classes are divided at once, and films, too, are on either side, whole. Each class gives about
    `fraction` of its videos, and at least one group. The choice depends on the seed and the names
    of the videos, not on their order. Raises ListError for a class that has only one group, or
    whose groups all hold other classes too.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"held-out fraction must be between 0 and 1, found {fraction}")
    if _a_recording_holds_several_classes(records):
        return _divide_recordings(records, fraction, seed, copies)
    classes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    group_named = {}
    for record in records:
        group_named[record.name] = record.class_name, record.group or record.name
        classes[record.class_name][record.group or record.name].append(record.name)
    shared = _films_of_several_classes(records)
    heldout = _pick_heldout(classes, fraction, seed, shared)
    copies = [[name for name in names if name in group_named] for names in copies]
    if _are_parted(copies, heldout):
        for names in copies:
            _join_groups(classes, group_named, names)
        heldout = _pick_heldout(classes, fraction, seed, shared)
    if _are_parted(copies, heldout):  # copies in several classes
        return _divide_recordings(records, fraction, seed, copies)
    train = [record for record in records if record.name not in heldout]
    return train, [record for record in records if record.name in heldout]


def _are_parted(copies: Iterable[Collection[str]], heldout: set[str]) -> bool:
    return any(0 < len(heldout.intersection(names)) < len(names) for names in copies)


def _a_recording_holds_several_classes(records: Iterable[Record]) -> bool:
    pairs = {(r.recording, r.class_name) for r in records if r.recording is not None}
    return len(pairs) > len({recording for recording, _ in pairs})


def _divide_recordings(
    records: Sequence[Record], fraction: float, seed: int, copies: Iterable[Collection[str]]
) -> tuple[list[Record], list[Record]]:
    """`split_heldout` where classes share recordings, so that it cannot go class by class."""
    films = _films_of_several_classes(records)
    groups = {
        r.name: r.recording
        or (film_of(r.name) if r.name in films else f"{r.class_name}/{r.group or r.name}")
        for r in records
    }
    for names in copies:
        joined = {groups[name] for name in names if name in groups}
        groups.update({name: min(joined) for name, group in groups.items() if group in joined})
    sides = divide(records, groups, [1 - fraction, fraction], seed, [1, 1])
    for class_name in sorted({record.class_name for record in records}):
        if not all(any(r.class_name == class_name for r in side) for side in sides):
            raise ListError(
                f"class {class_name!r} would be on one side only, since its recordings or copies"
                " are in other classes too; add videos of another recording"
            )
    heldout = {record.name for record in sides[1]}
    train = [record for record in records if record.name not in heldout]
    return train, [record for record in records if record.name in heldout]


def _films_of_several_classes(records: Iterable[Record]) -> set[str]:
    """The names of the videos from films with several classes."""
    classes_of = defaultdict(set)
    for record in records:
        classes_of[film_of(record.name)].add(record.class_name)
    several = {film for film, classes in classes_of.items() if film and len(classes) > 1}
    return {record.name for record in records if film_of(record.name) in several}


def _pick_heldout(
    classes: dict[str, dict[str, list[str]]], fraction: float, seed: int, kept: Collection[str]
) -> set[str]:
    """The names of the videos held out, of no group with a video of `kept`."""
    heldout = set()
    for class_name, groups in classes.items():
        if len(groups) < 2:
            raise ListError(
                f"class {class_name!r} has one group only, and both sides need one; add videos of"
                " another recording"
            )
        rng = random.Random(f"{seed}/{class_name}")
        picked = _pick_groups(groups, fraction, rng, kept)
        if not picked:
            raise ListError(
                f"class {class_name!r} has only groups with clips of other classes too, and these"
                " are not held out; add videos of another recording"
            )
        heldout.update(picked)
    return heldout


def _join_groups(
    classes: dict[str, dict[str, list[str]]],
    group_named: dict[str, tuple[str, str]],
    names: Sequence[str],
) -> None:
    """Join, in each class, the groups that hold the videos `names`."""
    kept: dict[str, str] = {}
    for name in names:
        class_name, group = group_named[name]
        first = kept.setdefault(class_name, group)
        if group != first:
            moved = classes[class_name].pop(group)
            classes[class_name][first] += moved
            group_named.update(dict.fromkeys(moved, (class_name, first)))


def _pick_groups(
    groups: dict[str, list[str]], fraction: float, rng: random.Random, kept: Collection[str]
) -> list[str]:
    """The names of about `fraction` of the videos, in whole groups at random."""
    order = sorted(groups)
    rng.shuffle(order)
    wanted = fraction * sum(len(names) for names in groups.values())
    picked: list[str] = []
    free = [group for group in order if not any(name in kept for name in groups[group])]
    for group in free[:-1] if len(free) == len(order) else free:
        if len(picked) + len(groups[group]) / 2 <= wanted:
            picked += groups[group]
    return picked or min((groups[group] for group in free), key=len, default=[])
