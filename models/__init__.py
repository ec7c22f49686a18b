"""TEAM-Net, its internal classifiers, and imports of published weights."""

STREAMS = ("iframe", "mv", "residual")  # in the order in which all arrays hold them
