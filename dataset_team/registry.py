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


def num_classes(data_name, records):
    """Number of classes: the registry's for a known name, else the largest label + 1.

    `records` are those of all lists in use (training and test): a test list may lack a class.
    """
    if data_name in DATASETS:
        return DATASETS[data_name].num_classes
    return max(record.label for record in records) + 1
