"""Who teaches the exits at which epoch, and the loss for it (PKD paper, section 3)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from dataset_team.records import UNLABELLED
from models import STREAMS

RANKS = ("weakest", "middle", "strongest")
TEACHERS = ("labels", "mv", "residual", "iframe", "fused", *RANKS)


class Schedule:
    """A curriculum in words: `mv:3,residual:3,iframe` is three epochs from the motion-vector
    stream, three from the residual stream and the rest from the I-frame stream.

    Teachers are the backbone's streams, `fused` (their sum) or `labels` (plain cross entropy).
    `weakest`, `middle` and `strongest` are streams too; `measured` finds which by their top-1.
    """

    def __init__(self, words: str, epochs: int):
        """Raises ValueError when the words make no schedule or do not fit into `epochs`."""
        self.words = words
        self.teachers: list[str] = []
        *stages, last = words.split(",")
        for stage in stages:
            if ":" not in stage:
                raise ValueError(
                    f"stage {stage!r} of schedule {words!r} needs a number of epochs, as in mv:3;"
                    " only the last stage may go without"
                )
            self._append(*stage.split(":", 1))
        teacher, _, count = last.partition(":")
        self._append(teacher, count or str(max(1, epochs - len(self.teachers))))
        if len(self.teachers) != epochs:
            raise ValueError(
                f"schedule {words!r} does not fit: it covers {len(self.teachers)} epochs, the run"
                f" has {epochs}. Change --epochs or the stages; a last stage without a number"
                " lasts until the end"
            )

    def _append(self, teacher: str, count: str) -> None:
        teacher = teacher.strip()
        if teacher not in TEACHERS:
            raise ValueError(
                f"unknown teacher {teacher!r} in schedule {self.words!r}; choose from {TEACHERS}"
            )
        if not count.isdigit() or int(count) == 0:
            raise ValueError(f"{count!r} in schedule {self.words!r} is no number of epochs")
        self.teachers += [teacher] * int(count)

    @property
    def has_ranks(self) -> bool:
        return any(teacher in RANKS for teacher in self.teachers)

    def measured(self, stream_logits: torch.Tensor, labels: torch.Tensor) -> Schedule:
        """The schedule with a stream for each of RANKS, by their top-1 on these videos.

        stream_logits (n, 3, classes), order I, MV, R; labels (n,). Of streams with equal
        top-1 the first in the paper's order is the weaker: motion vectors, residuals, I-frames.
        """
        top1 = (stream_logits.argmax(2) == labels[:, None]).float().mean(0)
        ranked = sorted(("mv", "residual", "iframe"), key=lambda name: top1[STREAMS.index(name)])
        stream_of = dict(zip(RANKS, ranked))
        schedule = copy.copy(self)
        schedule.teachers = [stream_of.get(teacher, teacher) for teacher in self.teachers]
        return schedule

    def __getitem__(self, epoch: int) -> str:
        return self.teachers[epoch]


def teacher_logits(teacher: str, stream_logits: torch.Tensor) -> torch.Tensor:
    """The teacher's logits (n, classes), from the streams' (n, 3, classes), order I, MV, R."""
    if teacher == "fused":
        return stream_logits.sum(1)
    return stream_logits[:, STREAMS.index(teacher)]


def taught(teacher: str, labels: torch.Tensor) -> torch.Tensor:
    """(n,) bool: the clips of a batch that the teacher says something of; all, but for `labels`."""
    known = labels != UNLABELLED
    return known if teacher == "labels" else torch.ones_like(known)


def exit_loss(
    student: torch.Tensor,
    teacher: str,
    stream_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Mean loss of one exit over the clips of a batch that its teacher says something of.

    Args:
        student: logits of the exit, (n, classes).
        teacher: one of TEACHERS, not of RANKS.
        stream_logits: the frozen streams' logits (n, 3, classes), order I, MV, R.
        labels: (n,) int64, for the teacher `labels`. It does not teach clips without a label (-1);
            the loss of a batch of such clips is 0.
        temperature: divides both logits; the loss is scaled by its square (Hinton et al. 2015),
            which keeps the size of the gradient.

    Cross entropy of the student's softmax against the teacher's softmax, without a label term.
    It is computed from log-softmax, so a teacher or student of any confidence gives a finite loss.
    """
    if teacher == "labels":
        known = taught(teacher, labels)
        return F.cross_entropy(student[known], labels[known]) if known.any() else 0 * student.sum()
    target = F.softmax(teacher_logits(teacher, stream_logits) / temperature, dim=1)
    return F.cross_entropy(student / temperature, target) * temperature**2
