"""The recording that a video was cut from, where its name tells."""

from __future__ import annotations

import re

# Videos cut from one recording share a group:
# v_Class_g01_c02 of UCF-101, Film_class_f_cm_np1_fr_goo_0 of HMDB-51.
UCF_GROUP = re.compile(r"_(g\d+)_c\d+$")
HMDB_GROUP = re.compile(r"(?P<film>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+$")


def group_of(name: str) -> str | None:
    """The recording a video was cut from, read from its name; None where the name does not tell."""
    stem = name.rsplit("/", 1)[-1]
    if match := UCF_GROUP.search(stem):
        return match[1]
    if match := HMDB_GROUP.fullmatch(stem):
        return match["film"]
    return None


def film_of(name: str) -> str | None:
    """The film that a video of HMDB-51 was cut from, which may hold several classes; else None.

    A group of HMDB-51 is the film's name and, where the folder is the class, the class:
    "sit/Casablanca_sit_f_..." and "walk/Casablanca_walk_f_..." are both of "Casablanca".
    """
    folder, _, stem = name.rpartition("/")
    match = HMDB_GROUP.fullmatch(stem)
    if match is None:
        return None
    ending = "_" + folder.rpartition("/")[2]
    film = match["film"]
    return film[: -len(ending)] if film.endswith(ending) else film
