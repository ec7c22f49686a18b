"""Predict one video after the other, leaving the network at the first exit that is sure."""

from __future__ import annotations

import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from coviar import SourceIndex, VideoIndex, read_index
from coviar.container import REMEDY
from coviar.source_index import CannotSeek, read_source_index
from dataset_team.dataset import load_test_segment, load_test_view
from dataset_team.sampling import reading_order
from dataset_team.transforms import normalise
from early_exit.confidence import confidence
from early_exit.policy import POLICY_NAME, Policy, load_policy
from early_exit.policy_check import check_policy
from early_exit.prediction import Prediction
from early_exit.reading import SegmentReader
from early_exit.route import point_names, route_gmacs
from early_exit.warm_up import noise_video
from early_exit.wise import FULL
from MACs.team_net import exit_gmacs, segment_gmacs
from models.graphs import make_graphs
from models.inference import prepare_for_inference
from models.over_time import early_exit_over_time, one_segment
from models.team_net_ic import Decisions
from training.trained import Trained, load_trained

# Graphs take a second or two to make, and save some 10 ms a video.
MANY_VIDEOS = 100


class Predictor:
    """A trained network and its policy.

    policy: None for the full network. as_is: load every file that can be loaded without
    re-encoding. Otherwise a file whose picture size or GOPs differ from those of the training
    videos is re-encoded too. fit: how pictures of another shape are re-encoded, see
    coviar.convert.Converter. read_ahead: 1 decodes the next segment in a thread, if the policy
    reads segment by segment. clock: measures the times of predictions, in seconds.
    Raises ValueError when policy and network do not fit.
    """

    def __init__(
        self,
        trained: Trained,
        policy: Policy | None,
        *,
        precision: str = "fp32",
        device: torch.device | str = "cpu",
        as_is: bool = False,
        fit: str = "stretch",
        read_ahead: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if policy is not None:
            check_policy(policy, trained)
        self.trained, self.as_is, self.clock = trained, as_is, clock
        self.fit, self.read_ahead, self.precision = fit, read_ahead, precision
        self.device = torch.device(device)
        self.net = prepare_for_inference(trained.net.to(self.device), precision)
        self._decide_by(policy)

    def _decide_by(self, policy: Policy | None) -> None:
        self.policy = policy
        if policy and policy.route:
            self.points = point_names(policy.route)
        else:
            self.points = [*(f"exit{k}" for k in (policy.exits if policy else ())), FULL]
        self.thresholds = dict(zip(self.points, policy.thresholds)) if policy else {}

    @property
    def costs(self) -> dict[str, float]:
        """1e9 MACs per video of leaving at each decision point."""
        config, crop_size = self.net.backbone.config, self.trained.crop_size
        if self.policy is None or not self.policy.route:
            exits = self.policy.exits if self.policy else ()
            return exit_gmacs(config, exits, crop_size, self.net.ic_pool)
        per_segment = segment_gmacs(config, self.policy.route, crop_size)
        return dict(zip(self.points, route_gmacs(self.policy.route, per_segment)))

    @classmethod
    def load(cls, path: Path | str, pretrained: Path | None = None, **options) -> Predictor:
        """What `load_trained` finds at `path`, with the policy beside it. options: as above.

        Raises FileNotFoundError, and ValueError when the files cannot be read or do not fit.
        """
        trained = load_trained(path, pretrained)
        return cls(trained, policy_beside(trained), **options)

    def with_policy(self, policy: Policy, read_ahead: int = 0) -> Predictor:
        """The same prepared network under another policy."""
        check_policy(policy, self.trained)
        other = copy.copy(self)
        other.read_ahead = read_ahead
        other._decide_by(policy)
        return other

    def warm_up(self, videos: int | None = None) -> None:
        """Run once, so that no video's time includes what happens only the first time.

        videos: how many will come; None: many, so that graphs of the network are worth making.
        """
        make_graphs(self.net, 0 if videos is None or videos >= MANY_VIDEOS else math.inf)
        index = read_index("noise", noise_video(self.trained.picture_size, self.trained.gop))
        clip = load_test_view(index, self.net.backbone.num_segments, self.trained.crop_size)
        with torch.inference_mode():
            if self.policy and self.policy.route:
                counts = [segments for segments, _ in self.policy.route]
                for size in {b - a for a, b in zip([0, *counts], counts)} - {0}:
                    segments = [x[:size, None].to(self.device) for x in clip]
                    one_segment(self.net.backbone)(*normalise(*segments))
            else:
                self.net(*normalise(*(x[None].to(self.device) for x in clip)))

    def predict(self, path: Path) -> Prediction:
        """Raises OSError, and ValueError when the file cannot be decoded, naming the fault, or when
        the network's output is not finite."""
        over_time = self.policy is not None and self.policy.route
        predict = self._predict_over_time if over_time else self._predict
        try:
            return predict(path)
        except CannotSeek:
            return predict(path, stream=True)

    def _predict(self, path: Path, stream: bool = False) -> Prediction:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            started = self.clock()
            index, reencoded, reencode_ms = self._open(path, stream)
            clip = load_test_view(index, self.net.backbone.num_segments, self.trained.crop_size)
            load_ms = self._ms_since(started) - reencode_ms
        inputs = [x[None].to(self.device) for x in clip]
        self._wait()
        started = self.clock()
        found = self._decide(inputs)
        network_ms = self._ms_since(started)
        total = self.net.backbone.num_segments
        return self._prediction(
            path,
            *found,
            reencoded=reencoded,
            reencode_ms=reencode_ms,
            load_ms=load_ms,
            network_ms=network_ms,
            clip=clip,
            notes=[str(warning.message) for warning in caught],
            segments=range(total),
        )

    @torch.inference_mode()
    def _predict_over_time(self, path: Path, stream: bool = False) -> Prediction:
        total = self.net.backbone.num_segments
        shape = (total, self.trained.crop_size)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            started = self.clock()
            index, reencoded, reencode_ms = self._open(path, stream)
            open_ms = self._ms_since(started) - reencode_ms
            started = self.clock()
            load = functools.partial(load_test_segment, index, *shape)
            if getattr(index, "streamed", None):  # one pass over the file, not one a segment
                whole = load_test_view(index, *shape)
                load = lambda number: [x[number : number + 1] for x in whole]  # noqa: E731
            with SegmentReader(load, reading_order(total), self.read_ahead, self.clock) as reader:

                def read(first: int, last: int, _: torch.Tensor) -> Sequence[torch.Tensor]:
                    segments = reader.read(last)[first:last]
                    stacked = (torch.cat(x)[None].to(self.device) for x in zip(*segments))
                    return normalise(*stacked)

                decided = early_exit_over_time(self.net, read, 1, self.policy)
                self._wait()
                network_ms = self._ms_since(started) - reader.wait_ms
        in_time = sorted(zip(reader.numbers(), reader.segments))
        return self._prediction(
            path,
            *self._found(decided),
            reencoded=reencoded,
            reencode_ms=reencode_ms,
            load_ms=open_ms + reader.wait_ms,
            network_ms=network_ms,
            clip=[torch.cat(x) for x in zip(*(segment for _, segment in in_time))],
            notes=[str(warning.message) for warning in caught] + [*filter(None, [reader.note])],
            segments=[number for number, _ in in_time],
            wasted_segments=reader.wasted,
        )

    def _prediction(
        self,
        path: Path,
        probabilities: torch.Tensor,
        point: int,
        confidences: torch.Tensor,
        **others: object,
    ) -> Prediction:
        return Prediction(
            video=str(path),
            label=self.trained.class_names[int(probabilities.argmax())],
            probabilities=probabilities.cpu(),
            point=self.points[point],
            confidences=dict(zip(self.points, confidences[: point + 1].tolist())),
            thresholds=self.thresholds,
            num_segments=self.net.backbone.num_segments,
            **others,
        )

    def open(self, path: Path | str) -> tuple[VideoIndex | SourceIndex, str | None]:
        """The index of the video, and why it is re-encoded (None if it is not)."""
        return self._open(Path(path), False)[:2]

    def decide(self, clip: Sequence[torch.Tensor]) -> tuple[torch.Tensor, int, torch.Tensor]:
        """Probabilities (num_classes,), number of the decision point in `points`, confidences.

        clip: uint8 tensors (T, c, S, S).
        """
        return self._decide([x[None].to(self.device) for x in clip])

    def _open(self, path: Path, stream: bool) -> tuple[VideoIndex | SourceIndex, str | None, float]:
        """The index of the video, why it is re-encoded (None if it is not), and the ms that
        counting its pictures took."""
        try:
            index = read_index(path)
            reason = None if self.as_is else self._unlike_training(index)
        except ValueError as error:
            reason = str(error).replace(f"{path}: ", "").replace(f"; {REMEDY}", "")
        if reason is None:
            return index, None, 0.0
        started = self.clock()
        size, gop = self.trained.picture_size, self.trained.gop
        index = read_source_index(path, size, gop, self.fit, stream)
        if index.note:
            warnings.warn(index.note, stacklevel=2)
        if index.streamed:
            warnings.warn(f"decoded from its start twice: {index.streamed}", stacklevel=2)
        return index, reason, self._ms_since(started)

    def _unlike_training(self, index: VideoIndex) -> str | None:
        size, longest = (index.width, index.height), max(index.gop_lengths)
        if size != self.trained.picture_size:
            return "pictures of {}x{}, trained on {}x{}".format(*size, *self.trained.picture_size)
        is_short = index.num_gops == 1 and longest < self.trained.gop
        if longest != self.trained.gop and not is_short:
            return f"GOPs of {longest} pictures, trained on {self.trained.gop}"
        return None

    @torch.inference_mode()
    def _decide(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, int, torch.Tensor]:
        """Probabilities, number of the decision point, confidences (points,)."""
        clip = normalise(*inputs)
        if self.policy is None:
            logits = self.net.backbone(*clip).fused
            found = self._finite(logits.softmax(1)[0], 0, confidence(logits))
        elif self.policy.route:
            order = list(reading_order(self.net.backbone.num_segments))
            found = self._found(
                early_exit_over_time(
                    self.net,
                    lambda first, last, _: [x[:, order[first:last]] for x in clip],
                    1,
                    self.policy,
                )
            )
        else:
            found = self._found(self.net.early_exit(*clip, self.policy))
        self._wait()
        return found

    def _found(self, decisions: Decisions) -> tuple[torch.Tensor, int, torch.Tensor]:
        point = int(decisions.point)
        probabilities = (decisions.logits / self.policy.temperature_at(point)).softmax(1)[0]
        return self._finite(probabilities, point, decisions.confidence[0])

    def _finite(
        self, probabilities: torch.Tensor, point: int, confidences: torch.Tensor
    ) -> tuple[torch.Tensor, int, torch.Tensor]:
        """The same. Raises ValueError where they are no numbers, and so name no label."""
        values = torch.cat([probabilities, confidences[: point + 1]])
        if not values.isfinite().all():
            remedy = "train it again" if self.precision == "fp32" else "try --precision fp32"
            raise ValueError(f"the network's output is not finite ({self.trained.path}); {remedy}")
        return probabilities, point, confidences

    def _ms_since(self, started: float) -> float:
        return 1000 * (self.clock() - started)

    def _wait(self) -> None:
        if self.device.type == "cuda":  # it still computes while Python goes on
            torch.cuda.synchronize(self.device)


def policy_beside(trained: Trained) -> Policy | None:
    """policy.json in the folder of the checkpoint; None without one, or without exits."""
    path = trained.path.parent / POLICY_NAME
    return load_policy(path) if trained.net.exits and path.is_file() else None
