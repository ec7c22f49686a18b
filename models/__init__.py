"""TEAM-Net, its internal classifiers, and imports of published weights."""

STREAMS = ("iframe", "mv", "residual")  # in the order in which all arrays hold them
FULL = "full"  # the decision point at the network's end; the others are exit1 ... exit4
