"""The published recipes of the training scripts: recipes.txt, read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ANY = "any"  # the data sets that have no row of their own


class Recipe(NamedTuple):
    """Fields have the names of the options."""

    lr: float
    batch_size: int
    epochs: int
    lr_steps: list[int]
    wd: float
    schedule: str | None  # of the teachers; None for a backbone

    @classmethod
    def parse(cls, lr, batch_size, epochs, lr_steps, wd, schedule) -> Recipe:
        steps = [int(epoch) for epoch in lr_steps.split(",")]
        schedule = None if schedule == "-" else schedule
        return cls(float(lr), int(batch_size), int(epochs), steps, float(wd), schedule)


def read_recipes(path: Path) -> dict[str, dict[str, Recipe]]:
    """{script: {data set: recipe}}."""
    recipes: dict[str, dict[str, Recipe]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            script, data, *values = line.split()
            recipes.setdefault(script, {})[data] = Recipe.parse(*values)
    return recipes


RECIPES = read_recipes(Path(__file__).with_name("recipes.txt"))
# The run folders that hold backbones: <checkpoint_dir>/<data>/<one of these>/<split>_seed<k>/.
BACKBONES = ("team_net", "streams", "pretrain")
PROBE = "i_frame_probe"  # the run folders of the probe
# Folders beside those of the methods that other scripts fill.
RESERVED = (*BACKBONES, PROBE, "views")
# How exits are trained: by train_<method>.py.
METHODS = tuple(
    script.replace("train_", "", 1) for script, rows in RECIPES.items() if rows[ANY].schedule
)
