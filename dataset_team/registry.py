"""The data sets that are known by name. Any other data set takes its classes from its lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dataset_team.records import Record


class Dataset(NamedTuple):
    """What must be known of a data set before its lists are read."""

    title: str
    num_classes: int


DATASETS = {
    "ucf101": Dataset("UCF-101", 101),
    "hmdb51": Dataset("HMDB-51", 51),
    "kinetic400": Dataset("Kinetics-400", 400),
}


def class_names(
    data_name: str, records: Iterable[Record], num_classes: int | None = None
) -> list[str]:
    """Class names by label; a label without a video is named by its number.

    `records` are those of all lists in use (training and test): a test list may lack a class. The
    registry has the number of classes of known data sets; `num_classes` is that of a trained
    network. With neither, every label from 0 on must have a video, or ValueError is raised.
    """
    known = DATASETS.get(data_name)
    names = {record.label: record.class_name for record in records}
    count = known.num_classes if known else num_classes
    if count is None:
        count = len(names)
        if max(names) >= count:
            missing = [str(label) for label in range(count) if label not in names][:5]
            reason = "labels count from 0" if missing == ["0"] else "labels must have no gaps"
            raise ValueError(
                f"{count} classes with labels up to {max(names)}, and no video of label"
                f" {', '.join(missing)}: {reason}. python -m dataset_team.lists convert LIST OUT"
                " --data-root DIR --renumber numbers them again; give it both lists' classes"
            )
    elif max(names) >= count:
        raise ValueError(
            f"label {max(names)} ({names[max(names)]}) is outside 0..{count - 1}, the classes of"
            f" {known.title if known else 'the network'}"
        )
    return [names.get(label, str(label)) for label in range(count)]
