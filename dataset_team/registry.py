"""The data sets this study knows by name. Any other name takes its classes from its lists."""

from __future__ import annotations

from typing import NamedTuple


class Dataset(NamedTuple):
    """What must be known of a data set before its lists are read."""

    title: str
    num_classes: int


DATASETS = {
    "ucf101": Dataset("UCF-101", 101),
    "hmdb51": Dataset("HMDB-51", 51),
    "kinetic400": Dataset("Kinetics-400", 400),
}


def class_names(data_name, records):
    """Class names by label. The registry's number of them for a known data set, else as many as
    the largest label asks for; a label without a video is named by its number.

    `records` are those of all lists in use (training and test): a test list may lack a class.
    """
    known = DATASETS.get(data_name)
    count = known.num_classes if known else max(record.label for record in records) + 1
    names = {record.label: record.class_name for record in records}
    return [names.get(label, str(label)) for label in range(count)]
