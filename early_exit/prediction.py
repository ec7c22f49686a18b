"""What became of one video, as values, as a dict for JSON and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from early_exit.wise import FULL


@dataclass
class Prediction:
    """What became of one video.

    label: name of the likeliest class. probabilities: (num_classes,) where it left, the softmax of
    logits / temperature. point: "exit1" ... or "full". confidences: by decision point, up to there.
    thresholds: by exit of the policy. reencoded: why the file had to be re-encoded, None if it was
    not; reencode_ms: the time to count its pictures for that. load_ms: how long the network waited
    for the video. clip: the network's input, I-frame, motion vectors and residual as uint8 tensors
    (k, c, S, S). segments: the numbers, from 0, of the k segments read out of `num_segments`.
    wasted_segments: how many were decoded ahead and not used. notes: warnings while loading.
    """

    video: str
    label: str
    probabilities: torch.Tensor
    point: str
    confidences: dict[str, float]
    thresholds: dict[str, float]
    reencoded: str | None
    reencode_ms: float
    load_ms: float
    network_ms: float
    clip: Sequence[torch.Tensor]
    notes: list[str] = field(default_factory=list)
    segments: Sequence[int] = ()
    num_segments: int = 0
    wasted_segments: int = 0

    def top(self, count: int) -> list[tuple[int, float]]:
        """(label, probability) of the likeliest classes."""
        best = self.probabilities.topk(min(count, len(self.probabilities)))
        return list(zip(best.indices.tolist(), best.values.tolist()))

    @property
    def reason(self) -> str:
        """Why it left where it did."""
        if not self.thresholds:
            return "there is no policy"
        passed = [
            _compare(self.confidences[name], "<=", threshold)
            for name, threshold in self.thresholds.items()
            if name in self.confidences and name != self.point
        ]
        if self.point == FULL:
            return f"no exit was sure enough: {', '.join(passed)}"
        sure = _compare(self.confidences[self.point], ">", self.thresholds[self.point])
        return f"confidence {sure}" + (f", before: {', '.join(passed)}" if passed else "")


def prediction_values(
    prediction: Prediction, class_names: Sequence[str], costs: Mapping[str, float], top: int
) -> dict:
    """A prediction as plain values, without pictures. costs: cumulative GMACs by decision point."""
    likeliest = [
        {"label": class_names[label], "index": label, "probability": probability}
        for label, probability in prediction.top(top)
    ]
    gmacs = costs[prediction.point]
    return {
        "video": prediction.video,
        "label": likeliest[0]["label"],
        "probability": likeliest[0]["probability"],
        "top": likeliest,
        "exit": prediction.point,
        "reason": prediction.reason,
        "confidences": prediction.confidences,
        "thresholds": prediction.thresholds,
        "gmacs": gmacs,
        "share_of_full": gmacs / costs[FULL],
        "segments": list(prediction.segments),
        "num_segments": prediction.num_segments,
        "wasted_segments": prediction.wasted_segments,
        "reencoded": prediction.reencoded,
        "reencode_ms": round(prediction.reencode_ms, 2),
        "load_ms": round(prediction.load_ms, 2),
        "network_ms": round(prediction.network_ms, 2),
        "notes": prediction.notes,
    }


def _compare(value: float, sign: str, other: float) -> str:
    """`0.91 > 0.90`, with as many digits, two or more, as it takes to tell the two apart."""
    for digits in range(2, 7):
        left, right = f"{value:.{digits}f}", f"{other:.{digits}f}"
        if left != right:
            break
    return f"{left} {sign} {right}"


def words_of(point):
    """`exit1`, or `exit1@2` or `residual@1` of an exit over time, in words."""
    depth, _, segments = point.partition("@")
    if depth.startswith("exit"):
        words = f"exit {depth[4:]}"
    else:
        words = "the full network" if depth == "full" else f"stream {depth}".replace("+", " + ")
    return f"{words}, {segments} segment{'s' * (segments != '1')} read" if segments else words


def sentences(found, costs):
    """The lines printed for one video, from `prediction_values`."""
    top = ", ".join(
        f"{entry['label']} {100 * entry['probability']:.1f} %" for entry in found["top"]
    )
    where = "full network" if found["exit"] == "full" else f"left at {words_of(found['exit'])}"
    spent = (
        f"{found['gmacs']:.2f} of {costs['full']:.2f} GMACs ({100 * found['share_of_full']:.0f} %)"
    )
    times = f"loaded in {found['load_ms']:.0f} ms, network {found['network_ms']:.0f} ms"
    if found["wasted_segments"]:
        times += f", {found['wasted_segments']} segment decoded ahead in vain"
    if found["reencoded"]:
        counted = f"pictures counted in {found['reencode_ms']:.0f} ms"
        times = f"windows re-encoded ({found['reencoded']}), {counted}, {times}"
    notes = [f"note: {note}" for note in found["notes"]]
    lines = [top, f"{where}: {found['reason']}", f"{spent}; {times}", *notes]
    return "\n    ".join([f"{found['video']}: {found['label']}", *lines])
