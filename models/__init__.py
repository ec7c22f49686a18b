"""TEAM-Net, its internal classifiers, and imports of published weights."""

STREAMS = ("iframe", "mv", "residual")  # all arrays hold them in this order
FULL = "full"  # the decision point at the end of the network; the others are exit1 ... exit4
ALL = "all"  # in the place of a decision point: every clip, wherever it leaves
BACKBONE_OUTPUTS = ("fused", *STREAMS)  # fused: the sum of the streams
# The paper's network. A new backbone has these values where nobody says otherwise.
PUBLISHED_NETWORK = {
    **{"num_segments": 8, "arch": "resnet50", "motion_arch": "resnet18"},
    **{"is_shift": False, "dropout": 0.5, "fusion": "team", "crop_size": 224},
}
