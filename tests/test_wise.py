"""WISE: combinations against loops, the solver against all that might beat it, the script."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from dataset_team.identity import file_digest
from early_exit import wise, wise_file
from early_exit.logits import LogitsFile
from early_exit.part import PARTS
from tests.script_server import run_script
from tests.synthetic_logits import make_logits_file
from wise_team_net_logit import get_args_parser, main

OUTPUTS = ["exit1", "exit2", "iframe", "mv", "residual"]


@pytest.fixture(scope="module")
def heldout():
    logits = make_logits_file(exits=(1, 2))
    return logits.samples("heldout")


def slow_cross_entropy(rows, labels, beta):
    total = 0.0
    for row, label in zip(rows, labels):
        combined = [
            sum(float(b) * float(output[c]) for b, output in zip(beta, row))
            for c in range(rows.shape[2])
        ]
        total += math.log(sum(math.exp(value) for value in combined)) - combined[label]
    return total / len(rows)


def objective(rows, labels, beta, alpha):
    return slow_cross_entropy(rows, labels, beta) + alpha * sum(abs(b) for b in beta)


def test_what_each_combination_adds_up():
    assert wise.decision_points(OUTPUTS) == ["exit1", "exit2", "full"]
    vanilla = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    constant = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(wise.vanilla_weights(OUTPUTS), vanilla)
    np.testing.assert_array_equal(wise.constant_weights(OUTPUTS), constant)
    np.testing.assert_array_equal(wise.available(OUTPUTS), np.array(constant) == 1)


def test_combine_and_scores_against_loops(heldout):
    rows, labels = heldout
    weights = np.random.default_rng(3).random((3, 5))
    combined = wise.combine(rows, weights)
    for n in (0, 7, 119):
        for d in range(3):
            for c in range(5):
                expected = sum(weights[d, k] * float(rows[n, k, c]) for k in range(5))
                assert combined[n, d, c] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for d in range(3):
        ce = slow_cross_entropy(rows, labels, weights[d])
        assert wise.cross_entropy(combined, labels)[d] == pytest.approx(ce, rel=1e-12)
        right = sum(
            max(range(5), key=list(row[d]).__getitem__) == y for row, y in zip(combined, labels)
        )
        assert wise.top1_pct(combined, labels)[d] == pytest.approx(100 * right / len(labels))


@pytest.mark.parametrize("solver", wise.SOLVERS)
def test_reported_objective_is_that_of_the_weights(heldout, solver):
    rows, labels = heldout
    fit = wise.fit(rows, labels, OUTPUTS, alpha=0.02, solver=solver)
    for d in range(3):
        assert fit.ce[d] == pytest.approx(
            slow_cross_entropy(rows, labels, fit.weights[d]), rel=1e-9
        )
        expected = objective(rows, labels, fit.weights[d], 0.02)
        assert fit.objective[d] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_exact_solver_is_not_beaten(heldout, alpha, scale):
    """By no random weights far or near, not by one-hot (vanilla), constant, or the SGD recipe."""
    rows, labels = heldout[0] * np.float32(scale), heldout[1]
    fit = wise.fit(rows, labels, OUTPUTS, alpha)
    assert (fit.weights >= 0).all()
    assert not fit.weights[~wise.available(OUTPUTS)].any()
    rng = np.random.default_rng(0)
    rivals = [wise.vanilla_weights(OUTPUTS), wise.constant_weights(OUTPUTS)]
    rivals.append(wise.fit(rows, labels, OUTPUTS, alpha, solver="sgd").weights)
    rivals += [rng.random((3, 5)) * 3 / scale * wise.available(OUTPUTS) for _ in range(300)]
    for size in (1e-1, 1e-2, 1e-3):
        steps = rng.standard_normal((200, 3, 5)) * size / scale * wise.available(OUTPUTS)
        rivals += list(np.maximum(fit.weights + steps, 0))
    for rival in rivals:
        ce = wise.cross_entropy(wise.combine(rows, rival), labels)
        # Exit 1 has nothing to combine and is not fitted. 1e-9: round-off of sums over 120 rows.
        assert (fit.objective[1:] <= (ce + alpha * rival.sum(axis=1))[1:] + 1e-9).all()


def test_wise_loses_to_vanilla_by_no_more_than_the_l1_term(heldout):
    rows, labels = heldout
    fit = wise.fit(rows, labels, OUTPUTS, alpha=0.01)
    vanilla = wise.vanilla_weights(OUTPUTS)
    ce = wise.cross_entropy(wise.combine(rows, vanilla), labels)
    slack = 0.01 * (vanilla.sum(axis=1) - fit.weights.sum(axis=1))
    assert (fit.ce <= ce + slack + 1e-9).all()
    assert (wise.fit(rows, labels, OUTPUTS, alpha=0).ce <= ce + 1e-9).all()


def test_a_misleading_output_gets_weight_zero(heldout):
    rows, labels = heldout[0].copy(), heldout[1]
    rows[:, 0] = -rows[:, 1]
    rows[:, 0] += np.random.default_rng(1).standard_normal(rows[:, 0].shape)
    fit = wise.fit(rows, labels, OUTPUTS, alpha=0.01)
    assert fit.weights[1, 0] == 0
    assert fit.weights[1, 1] > 0.1


def test_sgd_is_the_published_recipe(heldout):
    """The same steps by torch's autograd and SGD."""
    rows, labels = torch.tensor(heldout[0], dtype=torch.float64), torch.tensor(heldout[1])
    fit = wise.fit(*heldout, OUTPUTS, alpha=0.01, solver="sgd")
    for d, start in ((1, [0.0, 1.0]), (2, [0.0, 0.0, 1.0, 1.2, 1.3])):
        beta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([beta], lr=0.1)
        for _ in range(500):
            combined = (beta[None, :, None] * rows[:, : len(start)]).sum(1)
            loss = torch.nn.functional.cross_entropy(combined, labels) + 0.01 * beta.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        expected = beta.detach().clamp(min=0).numpy()
        np.testing.assert_allclose(fit.weights[d, : len(start)], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e3, 1e8, 1e28])
def test_the_size_of_logits_does_not_matter(heldout, scale):
    """Without the L1 term the sums of any size are equally good; 1e-6 of their cross entropy."""
    rows, labels = heldout
    fit = wise.fit(rows, labels, OUTPUTS, alpha=0)
    large = wise.fit(rows.astype(float) * scale, labels, OUTPUTS, alpha=0)
    np.testing.assert_allclose(large.ce[1:], fit.ce[1:], rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.01])
@pytest.mark.parametrize("lowest", [-1e6, -1e9, -1e30])
def test_classes_may_be_ruled_out(heldout, alpha, lowest):
    """A class that is never true changes nothing; exit 2 rules out true ones and is left out."""
    rows, labels = heldout
    never = np.concatenate([rows, np.full_like(rows[:, :, :1], lowest)], 2)
    plain = wise.fit(rows, labels, OUTPUTS, alpha)
    np.testing.assert_allclose(wise.fit(never, labels, OUTPUTS, alpha).ce, plain.ce, rtol=1e-6)
    wrong = never.copy()
    wrong[np.arange(0, len(labels), 10), 1, labels[::10]] = lowest
    fit = wise.fit(wrong, labels, OUTPUTS, alpha)
    assert fit.weights[1, 1] == fit.weights[2, 1] == 0
    without = wise.fit(np.delete(never, 1, 1), labels, np.delete(OUTPUTS, 1).tolist(), alpha)
    assert fit.ce[2] == pytest.approx(without.ce[1], rel=1e-6)


def test_no_point_is_left_without_weight(heldout, tmp_path):
    rows, labels = heldout
    for own, alpha in ((rows, 10), (-rows, 0)):
        with pytest.warns(UserWarning, match=f"alpha {alpha}. leaves no weight at exit2"):
            fit = wise.fit(own, labels, OUTPUTS, alpha=alpha)
        combined = wise.combine(own, fit.weights)[:, 1:]
        alike = wise.combine(own, wise.constant_weights(OUTPUTS))[:, 1:]
        assert (combined.argmax(2) == alike.argmax(2)).all(), "classes as the sum says"
        shares = np.exp(combined - combined.max(2, keepdims=True))
        assert shares.min() > 0.9, "and none of them likely"
    weights = wise.constant_weights(OUTPUTS)
    weights[2] = 0
    wise_file.save_weights(tmp_path / "wise.json", OUTPUTS, weights, {})
    with pytest.raises(ValueError, match="wise.json: .*no weight at full"):
        wise_file.load_weights(tmp_path / "wise.json", OUTPUTS)


@pytest.mark.parametrize(
    ("options", "message"), [({"solver": "adam"}, "unknown solver"), ({"alpha": -1}, "alpha is -1")]
)
def test_fit_refuses_what_it_cannot_do(heldout, options, message):
    with pytest.raises(ValueError, match=message):
        wise.fit(*heldout, OUTPUTS, **options)


def test_weights_file_round_trip(heldout, tmp_path):
    fit = wise.fit(*heldout, OUTPUTS)
    wise_file.save_weights(tmp_path / "wise.json", OUTPUTS, fit.weights, {"fit_on": "heldout"})
    weights, provenance, *_ = wise_file.load_weights(tmp_path / "wise.json", OUTPUTS)
    np.testing.assert_array_equal(weights, fit.weights)
    assert provenance == {"fit_on": "heldout"}
    betas = json.loads((tmp_path / "wise.json").read_text())["betas"]
    assert betas["exit2"] == {"exit1": fit.weights[1, 0], "exit2": fit.weights[1, 1]}


def broken(change):
    content = {
        "outputs": OUTPUTS,
        "betas": {
            "exit1": {"exit1": 1},
            "exit2": {"exit1": 1, "exit2": 1},
            "full": dict.fromkeys(OUTPUTS, 1),
        },
        "provenance": {},
    }
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        broken(lambda content: content.pop("provenance")),
        broken(lambda content: content["betas"].pop("full")),
        broken(lambda content: content["betas"]["exit2"].pop("exit1")),
        broken(lambda content: content["betas"]["exit1"].update(exit2=1)),
        broken(lambda content: content["betas"]["exit2"].update(exit1=-1)),
        broken(lambda content: content["betas"]["exit2"].update(exit1=math.nan)),
        broken(lambda content: content["betas"]["exit2"].update(exit1="much")),
        broken(lambda content: content.update(outputs=OUTPUTS[1:])),
    ],
)
def test_broken_weights_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "wise.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="wise.json: not WISE weights"):
        wise_file.load_weights(path, OUTPUTS)
    with pytest.raises(FileNotFoundError, match="wise_team_net_logit.py"):
        wise_file.load_weights(tmp_path / "none.json", OUTPUTS)


def test_script_on_a_run_folder(tmp_path, monkeypatch, capsys):
    path = tmp_path / "toy" / "prog_kd" / "split2_seed736" / "logits.pt"
    make_logits_file(method="prog_kd", split="split2", seed=736).save(path)
    run = ["--checkpoint_dir", tmp_path, "--data-name", "toy", "--method", "prog_kd"]
    run += ["--split", "split2", "--random_seed", "736", "--fit-on", "train_views"]
    monkeypatch.setattr(sys, "argv", [])
    assert run_script("wise_team_net_logit.py", *map(str, run)) == 0
    printed = capsys.readouterr().out
    logits = LogitsFile.load(path)
    weights, provenance, *_ = wise_file.load_weights(path.with_name("wise.json"), logits.outputs)
    rows, labels = logits.samples("train_views")
    np.testing.assert_allclose(weights, wise.fit(rows, labels, logits.outputs).weights, atol=1e-9)
    assert provenance["logits_sha256"] == file_digest(path)
    assert (provenance["fit_on"], provenance["num_videos"], provenance["num_samples"]) == (
        "train_views",
        120,
        240,
    )
    assert "wise_team_net_logit.py" in provenance["command"]
    result = json.loads(printed.splitlines()[-1].removeprefix("result: "))
    for part in PARTS:
        rows, labels = logits.samples(part)
        expected = wise.top1_pct(wise.combine(rows, weights), labels)
        assert result["top1_pct"][part]["wise"] == pytest.approx(list(expected))
        assert f"{part:12}full    " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fit-on", "test"], "invalid choice: 'test'"),
        ([], "no part 'heldout', only train, train_views, test"),
        (["--logits", "none.pt"], "no such logits file; save_logits.py writes them"),
    ],
)
def test_script_refusals_say_what_to_do(tmp_path, capsys, arguments, message):
    logits = make_logits_file()
    del logits.parts["heldout"]
    logits.save(tmp_path / "logits.pt")
    parser = get_args_parser()
    with pytest.raises(SystemExit) as stop:
        main(parser.parse_args(["--logits", str(tmp_path / "logits.pt"), *arguments]), parser)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("pool", wise.POOLS)
@pytest.mark.parametrize("seed", [0, 3])
def test_outputs_that_are_nearly_alike_have_a_minimum_too(seed, pool):
    """Running means, as the answers after 1, 2, .. segments are: a first descent ends too early."""
    videos, points, classes = 100, 20, 3
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    logits = rng.standard_normal((videos, 1, classes))
    logits = logits + rng.standard_normal((videos, points, classes))
    logits[np.arange(videos), :, labels] += 0.3
    logits = np.cumsum(logits, axis=1) / np.arange(1, points + 1)[:, None]
    outputs = [*(f"exit{k}" for k in range(1, points)), "full"]
    weights = wise.fit(logits, labels, outputs, alpha=0.01, pool=pool).weights

    def loss(row):  # (K,)
        combined = wise.combine(logits, row[None], pool)
        return wise.cross_entropy(combined, labels)[0] + (pool == "logits") * 0.01 * row.sum()

    step = 1e-5
    for row in weights[[points // 2, points - 1]]:
        for k in np.flatnonzero(row > 1e-3):  # others are at their bound, or nearly
            there = np.eye(points)[k] * step
            # The solver's 1e-5, and as much for the differences.
            assert abs(loss(row + there) - loss(row - there)) / (2 * step) < 2e-5
