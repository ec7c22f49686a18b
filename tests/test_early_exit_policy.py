"""Policies: what they refuse, how they are stored, what they decide."""

import dataclasses
import json
import math

import numpy as np
import pytest

from early_exit.policy import Policy, decide, load_policy, save_policy
from tests.synthetic_logits import make_logits_file

WEIGHTS = ((1.0, 0.0, 0.0, 0.0, 0.0), (0.5, 1.0, 0.0, 0.0, 0.0), (0.2, 0.3, 1.0, 1.1, 0.9))
POLICY = Policy((1, 3), (0.6, 0.5), WEIGHTS, 1.3, "margin", {"select_on": "heldout"})


def test_round_trip(tmp_path):
    save_policy(tmp_path / "policy.json", POLICY)
    assert load_policy(tmp_path / "policy.json") == POLICY


def test_decide_against_a_loop_over_clips():
    rows, _ = make_logits_file(exits=(1, 3)).samples("test")
    decisions = decide(POLICY, rows)
    for n, row in enumerate(rows.astype(float)):
        for d in range(3):
            combined = sum(weight * output for weight, output in zip(WEIGHTS[d], row))
            exps = [math.exp(value / 1.3) for value in combined]
            largest, second = sorted(exps)[:-3:-1]
            if d == 2 or (largest - second) / sum(exps) > POLICY.thresholds[d]:
                break
        assert (decisions.points[n], decisions.labels[n]) == (d, int(np.argmax(combined)))
    assert set(decisions.points) == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exits": ()}, "ascending numbers"),
        ({"exits": (3, 1)}, "ascending numbers"),
        ({"thresholds": (0.5,)}, "expected 2 thresholds"),
        ({"thresholds": (0.5, math.nan)}, "expected 2 thresholds"),
        ({"weights": WEIGHTS[:2]}, "3 rows of 5"),
        ({"weights": ((1.0,) * 4,) * 3}, "3 rows of 5"),
        ({"weights": ((1.0, 0.0, 0.0, 0.0, math.inf), *WEIGHTS[1:])}, "finite"),
        ({"weights": ((1.0, 0.1, 0.0, 0.0, 0.0), *WEIGHTS[1:])}, "come after it"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"confidence": "sure"}, "unknown confidence 'sure'"),
        ({"exits": (0, 1)}, "ascending numbers"),
        ({"exits": (1.0, 3.0)}, "ascending numbers"),
        ({"exits": ("1", "3")}, "ascending numbers"),
        ({"exits": (True, 3)}, "ascending numbers"),
        ({"thresholds": (True, True)}, "expected 2 thresholds"),
        ({"thresholds": ("0.5", 0.5)}, "expected 2 thresholds"),
        ({"weights": (WEIGHTS[0], (0.0,) * 5, WEIGHTS[2])}, "no weight"),
        ({"weights": ((True, 0.0, 0.0, 0.0, 0.0), *WEIGHTS[1:])}, "finite numbers"),
        ({"weights": (("1", 0.0, 0.0, 0.0, 0.0), *WEIGHTS[1:])}, "finite numbers"),
        ({"temperature": True}, "temperature is above 0"),
        ({"temperature": (1.0, "2", 1.0)}, "temperature is above 0"),
        ({"provenance": None}, "provenance holds fields"),
        ({"provenance": ()}, "provenance holds fields"),
        ({"promise": "x"}, "promise holds fields"),
        ({"promise": {"kind": "drop"}}, "promise holds fields"),
        ({"promise": {"words": None}}, "promise holds fields"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POLICY, **change)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**dataclasses.asdict(POLICY), **change}))
    with pytest.raises(ValueError, match=f"policy.json: not a policy file.*{message}"):
        load_policy(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"exits": 1}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "policy.json"
    with pytest.raises(FileNotFoundError, match="team_net_wise_all_acc.py"):
        load_policy(path)
    path.write_text(text)
    with pytest.raises(ValueError, match="policy.json: not a policy file"):
        load_policy(path)
