"""The state of a backbone's training: what a checkpoint holds, so that resuming is exact."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from models.team_net import TeamNet
from training import distributed
from training.checkpoint import AGAIN, load_last, of_this_version, save_last
from training.tensor_file import LAST


@dataclass
class Progress:
    """How far a training is: `step` steps of epoch `epoch` are done.

    loss, correct and clips are sums over these steps. `collect` adds those of all processes to the
    main one. best: epoch and top1_pct.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    clips: float = 0.0
    best: dict | None = None

    def collect(self) -> None:
        """Bring the sums of all processes into the main one."""
        sums = distributed.sum_of(self.loss, self.correct, self.clips)
        self.loss, self.correct, self.clips = sums if distributed.is_main() else (0.0, 0.0, 0.0)

    def next_epoch(self) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        self.loss = self.correct = self.clips = 0.0


class TrainingState:
    """Network, optimizer, running mean of the weights (or None), and progress."""

    def __init__(self, model: TeamNet, optimizer: torch.optim.Optimizer, ema: AveragedModel | None):
        self.model, self.optimizer, self.ema = model, optimizer, ema
        self.progress = Progress()

    def save(self, folder: Path) -> None:
        """Write last.pt in the main process. Every process calls `progress.collect` before."""
        if not distributed.is_main():
            return
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        progress = dataclasses.asdict(self.progress)
        save_last(folder, {**parts, "progress": progress, "processes": distributed.world_size()})

    def load(self, folder: Path) -> None:
        """Take the state of the folder's last checkpoint, if any. Only the main process reads."""
        content = distributed.on_main(load_last, folder)
        if content is None:
            return
        with of_this_version(folder / LAST, AGAIN):
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            self.progress = Progress(**content["progress"])
            before = content["processes"]
        processes = distributed.world_size()
        if before != processes:
            print(
                f"note: {before} process(es) trained it so far, {processes} now:"
                " rounding, dropout and each process's BatchNorm statistics differ"
            )
        if not distributed.is_main():
            self.progress.loss = self.progress.correct = self.progress.clips = 0.0

    def _parts(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema}
        return {name: part for name, part in parts.items() if part is not None}
