"""The linear probe of train_i_frame_probe.py, which predicts a video from k of its I-frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from coviar import read_index
from dataset_team.dataset import load_test_iframes
from dataset_team.transforms import normalise_iframe
from early_exit.prediction import Prediction
from early_exit.wise import FULL
from models.graphs import make_graphs
from models.inference import prepare_stream
from training.probe import features_of, new_stream, probe_gmacs
from training.tensor_file import BEST


class Probe:
    """Reads k I-frames, evenly over the video, and none of its motion vectors and residuals."""

    def __init__(self, content: dict, num_segments: int, clock: Callable[[], float]):
        self.clock = clock
        self.num_segments, self.crop_size = num_segments, content["crop_size"]
        shape = (content["arch"], len(content["class_names"]), num_segments)
        stream = new_stream(*shape, None)
        stream.load_state_dict(content["stream"])
        self.stream = prepare_stream(stream)
        make_graphs(self.stream, 0)
        self.class_names = content["class_names"]
        self.gmacs = {FULL: probe_gmacs(*shape, self.crop_size)}

    def warm_up(self) -> None:
        self._probabilities(torch.zeros(self.num_segments, 3, self.crop_size, self.crop_size))

    def predict(self, path: Path) -> Prediction:
        started = self.clock()
        pictures = load_test_iframes(read_index(path), self.num_segments, self.crop_size)
        loaded = self.clock()
        probabilities = self._probabilities(normalise_iframe(pictures))
        return Prediction(
            video=str(path),
            label=self.class_names[int(probabilities.argmax())],
            probabilities=probabilities,
            point=FULL,
            confidences={},
            thresholds={},
            reencoded=None,
            reencode_ms=0.0,
            load_ms=1000 * (loaded - started),
            network_ms=1000 * (self.clock() - loaded),
            clip=(),
            segments=range(self.num_segments),
            num_segments=self.num_segments,
        )

    @torch.inference_mode()
    def _probabilities(self, pictures: torch.Tensor) -> torch.Tensor:
        pictures = pictures.to(memory_format=torch.channels_last)
        features = features_of(self.stream, pictures).mean(0, keepdim=True)
        return self.stream.classifier(features).softmax(1)[0]


def load_probe(run: Path, num_segments: list[int], clock: Callable[[], float]) -> list[Probe]:
    """Raises FileNotFoundError, and ValueError for a run of something else."""
    path = run / BEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; train_i_frame_probe.py writes it")
    content = torch.load(path, weights_only=True)
    if "stream" not in content:
        raise ValueError(f"{path} is not of train_i_frame_probe.py")
    return [Probe(content, number, clock) for number in num_segments]
