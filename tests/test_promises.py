"""Promises: p-values against slow ones, levels at the boundary, refusals, the script on outside
logits."""

import json
import re

import numpy as np
import pytest

import team_net_wise_all_acc
import wise_team_net_logit
from early_exit import promise, wise, wise_file
from early_exit.confidence import CONFIDENCES
from early_exit.gate import fit_gate
from early_exit.groups import groups_of, split_off
from early_exit.outside import load_outside
from early_exit.part import LogitsError
from early_exit.paths import leave_along, pareto_path
from early_exit.policy import Policy, combined_logits, decide, load_policy, policy_confidences
from early_exit.promise import Wish, betting_p_values, losses, per_recording, rejected_along
from early_exit.promised_policy import CHOSEN_HERE, PolicySettings, promise_policy
from early_exit.thresholds import confidences
from tests.synthetic_logits import make_logits_file

CLIPS = 3


def scores(groups=300, exits=3, classes=4, seed=0, prefix="a"):
    """Arrays of an .npz file: later exits know more, clips of a group are alike."""
    rng = np.random.default_rng(seed)
    number = groups * CLIPS
    labels = np.repeat(rng.integers(0, classes, groups), CLIPS)
    clarity = np.repeat(rng.gamma(2, 1, groups), CLIPS)
    logits = rng.standard_normal((number, exits, classes))
    for k in range(exits):
        logits[np.arange(number), k, labels] += clarity * (1 + 1.5 * k)
    return {
        "logits": logits.astype(np.float32),
        "labels": labels,
        "names": np.array([f"{prefix}{n:05}" for n in range(number)]),
        "groups": np.array([f"{prefix}{n // CLIPS}" for n in range(number)]),
        "gmacs": np.array([1.0, 3.0, 10.0][:exits]),
    }


def save(path, arrays, **changes):
    np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return path


def run(script, *words):
    parser = script.get_args_parser()
    return script.main(parser.parse_args([str(word) for word in words]), parser)


def slow_betting(z, limit):
    """One bet after the other."""
    money, most, past = 1.0, 1.0, []
    for value in z:
        mean = 10 * -0.5 * limit + sum(past)
        square = 10 * (3 * limit + 0.25 * limit**2) + sum(x * x for x in past)
        bet = min(max(-mean / square, 0), 0.9 / (1 - limit))
        money *= 1 - bet * value
        most = max(most, money)
        past.append(value)
    return 1 / most


def test_betting_against_a_loop():
    z = np.random.default_rng(0).choice([-1, 0, 1], (4, 60), p=[0.1, 0.85, 0.05]) - 0.1
    expected = [slow_betting(row, 0.1) for row in z]
    np.testing.assert_allclose(betting_p_values(z, 0.1), expected, rtol=1e-9)


def broken_share(alpha, count="recordings", draws=2000):
    """How often the test at level alpha takes a policy whose true drop is the limit exactly.

    Losses at the boundary: the promise "less than the limit" is broken as soon as it is taken.
    A recording loses all its clips with the limit's probability, or one with three times that.
    """
    rng, limit, groups = np.random.default_rng(1), 0.05, 400
    wish = Wish("drop", limit, 1 - alpha, count)
    taken = 0
    for _ in range(draws):
        loss = (rng.random((1, groups)) < limit + 0.01).astype(float)
        loss -= rng.random((1, groups)) < 0.01
        values = np.repeat(loss, CLIPS, axis=1)
        numbers = np.repeat(np.arange(groups), CLIPS)
        a, b = (per_recording(x, numbers, count) for x in (values, np.ones_like(values)))
        taken += len(rejected_along(a, b, wish, limit, -1))
    return taken / draws


@pytest.mark.parametrize("count", promise.COUNTS)
def test_at_the_boundary_a_promise_is_broken_no_more_often_than_said(count):
    level = 0.1
    # Two standard errors of 2000 draws. A bet that stops at its best moment comes near its level.
    assert broken_share(level, count) <= level + 2 * np.sqrt(level * (1 - level) / 2000)


def test_twice_the_level_would_be_noticed():
    level = 0.1
    assert broken_share(2 * level) > level + 2 * np.sqrt(level * (1 - level) / 2000)


def drawn(rng, number):
    """Margins of two classes at exit 1, of two names, and whether its label is right."""
    margins = rng.gamma(2, 1.5, number)
    return margins, rng.random(number) < 1 / (1 + np.exp(-margins))


@pytest.mark.parametrize(("kind", "temperature"), [("patience", 1.0), ("max", 4.0)])
def test_exit_errors_are_promised_where_no_confidence_comes_near_1(tmp_path, kind, temperature):
    """Patience is below 1/2 at the only exit. The promise is broken no more often than said."""
    rng, limit, draws, groups = np.random.default_rng(5), 0.1, 120, 400
    wish = Wish("exit_error", limit, 0.9)
    margins, right = drawn(rng, 200_000)
    sure = 1 / (1 + np.exp(-margins / temperature)) / (2 if kind == "patience" else 1)
    how = PolicySettings(np.eye(2), kind, temperature=temperature)
    promised = broken = 0
    for _ in range(draws):
        logits = np.zeros((groups, 2, 2), np.float32)
        logits[:, 0, 0], correct = drawn(rng, groups)
        labels = np.where(correct, 0, 1)
        names = np.array([f"v{n}" for n in range(groups)])
        file = load_outside(save(tmp_path / "s.npz", {}, logits=logits, labels=labels, names=names))
        policy = promise_policy(file, "heldout", (1.0, 2.0), wish, how, {})
        if policy.promise["kept_by"] == "thresholds":
            promised += 1
            broken += 1 - right[sure > policy.thresholds[0]].mean() > limit
    # Two standard errors of the draws.
    assert broken <= draws * 0.1 + 2 * np.sqrt(draws * 0.1 * 0.9)
    assert promised > draws / 2


def test_a_first_step_at_which_nobody_leaves_is_called_so(tmp_path):
    """Exits that know nothing have no lead at all; that is no loss."""
    arrays = scores()
    arrays["logits"][:, :-1] = 0
    file = load_outside(save(tmp_path / "scores.npz", arrays))
    how = PolicySettings(np.eye(3), "margin")
    wish = Wish("exit_error", 0.1, 0.9)
    said = promise_policy(file, "heldout", file.gmacs, wish, how, {}).promise["words"]
    assert said.endswith("the full network is kept; nobody leaves at the first step")


def test_losses_against_loops():
    rng = np.random.default_rng(0)
    points, predicted = rng.integers(0, 3, (2, 50)), rng.integers(0, 3, (50, 3))
    labels, full, costs = rng.integers(0, 3, 50), rng.integers(0, 3, 50), [1, 2, 4]
    for kind in promise.KINDS:
        found = losses(kind, points, predicted, labels, costs, full)
        for p in range(2):
            for n in range(50):
                point, label = points[p, n], predicted[n, points[p, n]]
                expected = {
                    "drop": (int(full[n] == labels[n]) - int(label == labels[n]), 1),
                    "disagreement": (int(label != full[n]), 1),
                    "exit_error": (int(point < 2 and label != labels[n]), int(point < 2)),
                    **dict.fromkeys(promise.BUDGETS, (costs[point] / 4, 1)),
                }[kind]
                assert (found.a[p, n], found.b[p, n]) == expected


def test_recordings_needed_is_where_betting_begins_to_reject():
    for limit, guarantee in ((0.01, 0.9), (0.05, 0.95)):
        needed = promise.recordings_needed(limit, guarantee)
        for number, enough in ((needed - 1, False), (needed, True)):
            p = betting_p_values(np.full((1, number), -limit), limit)
            assert (p[0] <= 1 - guarantee) == enough
    assert promise.recordings_needed(0, 0.9) == np.inf
    least = promise.least_limit(np.ones(200), 0.9)
    assert (
        promise.recordings_needed(least, 0.9) <= 200 < promise.recordings_needed(0.9 * least, 0.9)
    )
    assert promise.least_limit(np.ones(1), 0.9) is None


def test_recordings_of_other_sizes_take_more():
    """Against the bets on recordings that lose nothing, the sizes in turn."""
    sizes = np.random.default_rng(0).permutation([1.0] * 3 + [0.1] * 60)
    needed = promise.recordings_needed(0.05, 0.9, sizes)
    assert needed > 5 * promise.recordings_needed(0.05, 0.9)
    for number, enough in ((needed - 1, False), (needed, True)):
        assert (slow_betting(-0.05 * np.resize(sizes, number), 0.05) <= 0.1) == enough
    least = promise.least_limit(sizes, 0.9)
    assert slow_betting(-least * sizes, least) <= 0.1 < slow_betting(-0.9 * least * sizes, least)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("kind", ["drop", "disagreement", "exit_error"])
def test_a_first_step_loses_too_much_only_where_one_without_loss_would_pass(tmp_path, kind, lost):
    """Nothing is lost, but one recording is much larger than the others; or much is lost."""
    number, large = 600, 1 if lost else 40
    labels = np.arange(number) % 4
    logits = np.zeros((number, 2, 4), np.float32)
    logits[np.arange(number), 1, labels] = 30
    logits[np.arange(number), 0, (labels + lost) % 4] = 30
    groups = np.maximum(np.arange(number) - large, 0)
    names = np.array([f"v{n}" for n in range(number)])
    arrays = {"logits": logits, "labels": labels, "names": names, "groups": groups}
    file = load_outside(save(tmp_path / "scores.npz", arrays))
    wish = Wish(kind, 0.05, 0.9, "clips")
    made = promise_policy(file, "heldout", file.gmacs, wish, PolicySettings(np.eye(2)), {}).promise
    assert made["kept_by"] == "the full network"
    assert ("already the first step loses too much" in made["words"]) == lost
    if not lost:
        needed = int(re.search(r"needs at least (\d+) recordings", made["words"])[1])
        assert needed > made["num_groups"]


def test_groups_are_read_from_names_and_never_split():
    names = ["Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02", "Jump/v_Jump_g01_c01.avi", "x/y.mp4"]
    assert groups_of(names) == ["Run/g01", "Run/g01", "Jump/g01", "x/y"]
    bare = [name.rpartition("/")[2] for name in names]
    assert groups_of(bare) == ["v_Run_g01", "v_Run_g01", "v_Jump_g01", "y"]
    flat = [f"videos/{name}" for name in bare]
    assert groups_of(flat) == ["videos/v_Run_g01"] * 2 + ["videos/v_Jump_g01", "videos/y"]
    film = "April_09_brush_hair_u_nm_np1_ba_goo_0.avi"
    assert groups_of([film, f"brush_hair/{film}"]) == [film[:19], f"brush_hair/{film[:19]}"]
    for suffix in (".npy", ".pt", ".avi.npz", ".features_v2.h5", ".a-b"):
        of = {
            "x/v_Run_g01_c01": "x/v_Run_g01",
            "Run/v_Run_g01_c01": "Run/g01",
            film[:-4]: film[:19],
        }
        assert groups_of([name + suffix for name in of]) == list(of.values()), suffix
    groups = [f"g{n // 3}" for n in range(90)]
    chosen = split_off(groups, 1 / 3)
    assert chosen.sum() == 30
    assert all(len(set(chosen[3 * g : 3 * g + 3])) == 1 for g in range(30))


@pytest.mark.parametrize("kind", CONFIDENCES)
@pytest.mark.parametrize("rule", ["common", "per_exit"])
def test_script_promises_on_outside_logits(tmp_path, capsys, kind, rule):
    """The five lines of docs/promises.md, for each confidence; the saved policy decides alike."""
    path = save(tmp_path / "scores.npz", scores())
    test = save(tmp_path / "test.npz", scores(seed=1, prefix="b"))
    words = ["--logits", path, "--test-logits", test, "--max-drop", 5, "--guarantee", 0.9]
    words += ["--confidence", kind, "--policy-rule", rule, "--temperature", "fit_per_exit"]
    run(team_net_wise_all_acc, *words)
    out = capsys.readouterr().out
    policy = load_policy(tmp_path / "scores" / "policy.json")
    made = policy.promise
    assert (made["kind"], made["limit"], made["guarantee"]) == ("drop", 0.05, 0.9)
    assert made["num_videos"] == 600 and made["num_groups"] == 200
    assert made["num_videos_to_fit"] == 300 and len(made["list_digest"]) == 64
    assert made["kept_by"] == "thresholds" and made["words"] in out
    logits = load_outside(path, test)
    rows, labels = logits.samples("test")
    decisions = decide(policy, rows)
    top1 = 100 * np.mean(decisions.labels == labels)
    assert json.loads(out.splitlines()[-1][8:])["top1_pct"]["test"] == pytest.approx(top1, abs=1e-4)
    assert len(set(decisions.points)) > 1
    assert top1 >= 100 * np.mean(rows[:, -1].argmax(1) == labels) - 5


def test_a_gate_is_not_swept_as_if_it_were_the_largest_probability(tmp_path, capsys):
    path = save(tmp_path / "scores.npz", scores())
    swept = {}
    for kind in ("gate", "max"):
        run(team_net_wise_all_acc, "--logits", path, "--guarantee", 0.9, "--confidence", kind)
        note = "note: trade_off.csv is of the confidence max"
        assert (note in capsys.readouterr().out) == (kind == "gate")
        rows = (tmp_path / "scores" / "trade_off.csv").read_text().splitlines()
        swept[kind] = [row.rpartition(",")[0] for row in rows]
    assert swept["gate"] == swept["max"]
    combined = load_outside(path).samples("heldout")[0].astype(float)
    with pytest.raises(ValueError, match="`gate` has no weights for exit 1"):
        confidences(combined, "gate")


@pytest.mark.parametrize("costs", [[1.0, 10.0, 10.0], [10.0, 3.0, 10.0], [10.0, 10.0, 10.0]])
def test_nobody_leaves_at_a_gate_that_saves_nothing(costs):
    """Measured times may tie; a budget's cheapest policy has thresholds of 0."""
    arrays = scores(groups=100)
    combined = arrays["logits"].astype(float)
    gate = fit_gate(combined, arrays["labels"], costs)
    policy = Policy((1, 2), (0.0, 0.0), tuple(map(tuple, np.eye(3))), confidence="gate", gate=gate)
    points = set(decide(policy, arrays["logits"]).points.tolist())
    assert points == {next((k for k in range(2) if costs[k] < 10), 2)}
    for dtype in (np.float32, np.float64):
        sure = confidences(combined.astype(dtype), "gate", gate=gate)
        assert np.isfinite(sure).all()
        assert not any(sure[:, k].any() for k in range(2) if costs[k] == 10)


def test_57_videos_are_refused_honestly(tmp_path, capsys):
    path = save(tmp_path / "few.npz", scores(groups=19))
    words = ["--logits", path, "--max-drop", 1, "--guarantee", 0.9]
    run(team_net_wise_all_acc, *words, "--policy-combination", "vanilla")
    out = capsys.readouterr().out
    assert "57 videos of 19 recordings cannot promise a top-1 at most 1 points below" in out
    assert "the full network is kept" in out
    least = float(re.search(r"could promise a top-1 at most (\S+) points below", out)[1]) / 100
    assert promise.recordings_needed(least, 0.9) <= 19
    assert f"needs at least {promise.recordings_needed(0.01, 0.9)} recordings" in out
    policy = load_policy(tmp_path / "few" / "policy.json")
    rows, _ = load_outside(path).samples("heldout")
    assert (decide(policy, rows).labels == rows[:, -1].argmax(1)).all()


@pytest.mark.parametrize("chosen", ["selected on heldout", "last epoch kept"])
def test_a_promise_says_that_its_videos_chose_the_epochs(tmp_path, capsys, chosen):
    """Also in policy.json, so that predict.py prints it."""
    logits = make_logits_file(videos=400, quality=3.0, protocol=f"8 segments, {chosen}")
    logits.save(tmp_path / "logits.pt")
    words = ["--logits", tmp_path / "logits.pt"]
    run(wise_team_net_logit, *words)
    run(team_net_wise_all_acc, *words, "--max-drop", 10, "--guarantee", 0.9)
    promised = load_policy(tmp_path / "policy.json").promise
    assert promised["kept_by"] == "thresholds"
    note = f"note: --guarantee 0.9: {CHOSEN_HERE}"
    says = [CHOSEN_HERE in promised["words"], note in capsys.readouterr().out]
    assert says == [chosen == "selected on heldout"] * 2


@pytest.mark.parametrize("guarantee", [[], ["--guarantee", 0.9]])
@pytest.mark.parametrize("meta", [{}, {"precision": "bf16"}])
def test_a_policy_records_the_precision_of_its_logits(tmp_path, guarantee, meta):
    make_logits_file(videos=400, quality=3.0, **meta).save(tmp_path / "logits.pt")
    words = ["--logits", tmp_path / "logits.pt"]
    run(wise_team_net_logit, *words)
    run(team_net_wise_all_acc, *words, "--max-drop", 10, *guarantee)
    made = load_policy(tmp_path / "policy.json").provenance
    assert made["precision"] == meta.get("precision")


@pytest.mark.parametrize("told", ["groups", "v_a_g{}_c{}.npy", "{}_{}.npy"])
def test_a_promise_says_that_nothing_tells_the_recordings(tmp_path, capsys, told):
    arrays = scores(groups=40)
    if told != "groups":
        names = [told.format(n // CLIPS, n % CLIPS) for n in range(40 * CLIPS)]
        arrays = {**arrays, "groups": None, "names": np.array(names)}
    path = save(tmp_path / "a.npz", arrays)
    run(team_net_wise_all_acc, "--logits", path, "--guarantee", 0.9)
    nothing = told == "{}_{}.npy"
    assert ("each of the 120 counts as a recording" in capsys.readouterr().out) == nothing
    policy = load_policy(tmp_path / "a" / "policy.json")
    assert policy.promise["num_groups"] == (80 if nothing else 27)  # without those to fit on


@pytest.mark.parametrize("guarantee", [[], ["--guarantee", 0.9]])
def test_a_budget_below_the_cheapest_exit_is_refused(tmp_path, capsys, guarantee):
    path = save(tmp_path / "scores.npz", scores(groups=20))
    with pytest.raises(SystemExit):
        run(team_net_wise_all_acc, "--logits", path, "--budget-gmacs", 0.5, *guarantee)
    assert "a budget of 0.5 gmacs is below the cheapest, 1" in capsys.readouterr().err
    run(team_net_wise_all_acc, "--logits", path, "--budget-gmacs", 1, *guarantee)


@pytest.mark.parametrize(("kind", "unit"), promise.BUDGETS.items())
@pytest.mark.parametrize("count", promise.COUNTS)
def test_a_budget_of_few_recordings_is_kept_by_the_first_exit_without_a_test(
    tmp_path, kind, unit, count
):
    """The words say what it costs, and the number of recordings that could be tested."""
    file = load_outside(save(tmp_path / "few.npz", scores(groups=12)))
    wish = Wish(kind, 1.3, 0.9, count)
    policy = promise_policy(file, "heldout", file.gmacs, wish, PolicySettings(np.eye(3)), {})
    words = policy.promise["words"]
    assert f"the first exit is kept, whose 1 {unit} keep it without a test" in words
    assert set(decide(policy, file.samples("heldout")[0]).points) == {0}
    needed = int(re.search(r"needs at least (\d+) recordings", words)[1])
    least = float(re.search(rf"could promise at most (\S+) {unit} at best", words)[1])
    for number, limit, enough in ((needed, 1.3, True), (needed - 1, 1.3, False), (12, least, True)):
        # All of them cost the least: 1 of 10, under a limit of so many tenths.
        assert (slow_betting(np.full(number, (1 - limit) / 10), limit / 10) <= 0.1) == enough
    same = promise_policy(
        file, "heldout", file.gmacs, wish._replace(limit=1.0), PolicySettings(np.eye(3)), {}
    )
    assert "no number of recordings promises it" in same.promise["words"]


def test_no_more_recordings_are_counted_than_anybody_has():
    """A limit of next to nothing must not take all memory for a sentence."""
    for weights in ((1.0,), np.ones(1000)):
        needed = promise.recordings_needed(1e-9, 0.9, weights)
        assert promise.FAR <= needed < 2 * promise.FAR


def test_one_recording_promises_nothing(tmp_path, capsys):
    arrays = scores(groups=20)
    path = save(tmp_path / "one.npz", arrays, groups=np.array(["same"] * 60))
    run(team_net_wise_all_acc, "--logits", path, "--guarantee", 0.9)
    assert "fewer than two recordings can promise nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guarantee", 1], "argument --guarantee: 1 is not above 0"),
        (["--guarantee", "nan"], "argument --guarantee: nan is not above 0"),
        (["--max-drop", -1, "--guarantee", 0.9], "argument --max-drop: -1 is not a finite number"),
        (["--max-drop", "nan"], "argument --max-drop: nan is not a finite number"),
        (
            ["--max-exit-error", -1, "--guarantee", 0.9],
            "argument --max-exit-error: -1 is not a finite number",
        ),
        (["--max-disagreement", 3], "--max-disagreement is of a promise: give its --guarantee"),
        (["--count", "clips"], "--count is of a promise: give its --guarantee"),
        (["--count", "recordings"], "--count is of a promise: give its --guarantee"),
        (["--max-drop", 100, "--guarantee", 0.9], "--max-drop 100: a promise is below 100 %"),
        (
            ["--max-exit-error", 250, "--guarantee", 0.9],
            "-error 250: a promise is below 100 %",
        ),
        (["--confidence", "gate"], "add --guarantee"),
    ],
)
def test_wishes_without_sense_are_refused(tmp_path, capsys, words, message):
    path = save(tmp_path / "scores.npz", scores(groups=20))
    with pytest.raises(SystemExit) as stop:
        run(team_net_wise_all_acc, "--logits", path, *words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("script", [wise_team_net_logit, team_net_wise_all_acc])
@pytest.mark.parametrize("route", [False, True])
def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path, capsys, script, route):
    arrays = scores(groups=20)
    if route:
        arrays["logits"] = np.stack([arrays["logits"]] * 2, 1)
    path = save(tmp_path / "scores.npz", arrays)
    (tmp_path / "scores").write_text("a file in the place of the folder")
    words = ["--route", "time"] if route else []
    with pytest.raises(SystemExit) as stop:
        run(script, "--logits", path, *words)
    assert stop.value.code == 2
    assert f"cannot read or write {tmp_path}/scores" in capsys.readouterr().err


GOOD = scores(groups=20)
NOT_FINITE = GOOD["logits"].copy()
NOT_FINITE[7, 1, 0] = np.nan
MASKED = GOOD["logits"].astype(np.float64)
MASKED[5, 2, 1] = np.finfo(np.float64).min  # infinite in float32
ALMOST = GOOD["logits"].copy()
ALMOST[6, 1, 3] = -3e38  # its sums are infinite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": GOOD["names"][:-1]}, "names do not match the logits"),
        ({"names": np.array(["a"] * 60)}, "'a' appears 60 times"),
        ({"labels": GOOD["labels"][:-1]}, "labels do not match the logits"),
        ({"labels": np.zeros(60, int)}, "one class only: every label is 0"),
        ({"labels": GOOD["labels"] + 9}, "there are 4 classes"),
        ({"logits": NOT_FINITE}, "'a00007' are not finite"),
        ({"logits": MASKED}, "'a00005' are not finite numbers up to 1e.30"),
        ({"logits": ALMOST}, "'a00006' are not finite numbers up to 1e.30"),
        ({"logits": np.stack([MASKED] * 2, 1)}, "'a00005' are not finite numbers up to 1e.30"),
        ({"logits": np.stack([ALMOST, -ALMOST], 1)}, "segments of 'a00006' are not finite"),
        ({"logits": GOOD["logits"][:, :, :1]}, "one class only"),
        ({"logits": GOOD["logits"][:, :1]}, "one exit only"),
        ({"groups": GOOD["groups"][:-1]}, "groups do not match"),
        ({"gmacs": np.array([1.0, 1.0, 2.0])}, "a later exit costs more"),
        ({"exit_names": np.array(["a", "a", "b"])}, "3 different strings"),
        ({"exit_names": np.array(["all", "a", "b"])}, "named 'all', which means every video"),
        ({"exit_names": np.array(["a", "b", "all"])}, "named 'all', which means every video"),
        (
            {"exit_names": np.array(["full", "a", "b"])},
            "named 'full', which means the full network",
        ),
        (
            {"exit_names": np.array(["a", "full", "b"])},
            "named 'full', which means the full network",
        ),
        ({"labels": None}, "lacks labels"),
        ({"logitz": GOOD["labels"]}, "holds logitz as well"),
        ({"names": GOOD["names"].astype(object)}, "not an .npz file of plain arrays"),
    ],
)
def test_bad_outside_files_are_refused_by_name(tmp_path, changes, message):
    path = save(tmp_path / "bad.npz", GOOD, **changes)
    with pytest.raises(LogitsError, match=message) as error:
        load_outside(path)
    assert "bad.npz" in str(error.value)


def test_the_last_exit_may_be_named_full(tmp_path):
    names = np.array(["a", "b", "full"])
    assert load_outside(save(tmp_path / "a.npz", GOOD, exit_names=names)).outputs == names.tolist()


def test_calibration_and_test_must_be_apart(tmp_path):
    path = save(tmp_path / "a.npz", GOOD)
    other = scores(groups=20, prefix="b")
    with pytest.raises(LogitsError, match="60 videos are in both files"):
        load_outside(path, path)
    crossing = save(tmp_path / "b.npz", other, groups=GOOD["groups"])
    with pytest.raises(LogitsError, match="20 groups have videos in both files"):
        load_outside(path, crossing)
    grouped = np.array([f"recording{n}" for n in range(60)])
    for spelled in ("./{}", "x/../{}", "{}.avi"):
        names = np.array([spelled.format(name) for name in GOOD["names"]])
        for groups in (None, grouped):
            same = save(tmp_path / "s.npz", GOOD, names=names, groups=groups)
            plain = path if groups is not None else save(tmp_path / "p.npz", GOOD, groups=None)
            with pytest.raises(LogitsError, match="60 videos are in both files"):
                load_outside(plain, same)
    ungrouped = save(tmp_path / "u.npz", other, groups=None)
    for pair in ((path, ungrouped), (ungrouped, path)):
        with pytest.raises(LogitsError, match="only one of them has groups"):
            load_outside(*pair)
    clips = [np.array([f"{folder}Run/v_Run_g01_c{n}" for n in range(60)]) for folder in ("", "./")]
    clips[1] = np.char.replace(clips[1], "_c", "_c9")
    pair = [save(tmp_path / f"{n}.npz", GOOD, names=clips[n], groups=None) for n in range(2)]
    with pytest.raises(LogitsError, match="1 groups have videos in both files"):
        load_outside(*pair)
    dearer = save(tmp_path / "c.npz", other, gmacs=np.array([1.0, 3.0, 11.0]))
    with pytest.raises(LogitsError, match="gmacs differ"):
        load_outside(path, dearer)


def test_points_beyond_a_hundred_are_counted():
    sure = np.random.default_rng(0).random((50, 400))
    assert (leave_along(sure, np.ones((2, 399))) == 399).all()
    assert (leave_along(sure, np.r_[np.ones(300), np.zeros(99)][None]) == 300).all()


def test_pareto_path_goes_from_dear_to_cheap_and_stays_on_the_frontier():
    rng = np.random.default_rng(0)
    sure = rng.random((400, 3))
    correct = rng.random((400, 3)) < 0.4 + 0.5 * sure
    costs = np.array([1.0, 3.0, 10.0])
    points = leave_along(sure, pareto_path(sure, correct, costs))
    spent = costs[points].mean(axis=1)
    right = correct[np.arange(400), points].mean(axis=1)
    assert len(points) > 5 and (np.diff(spent) < 0).all() and (np.diff(right) < 0).all()


@pytest.mark.parametrize("pool", wise.POOLS)
def test_wise_with_temperatures_and_pools(tmp_path, pool):
    arrays = scores(groups=100)
    arrays["logits"][:, 0] *= 20  # an over-confident exit
    path = save(tmp_path / "scores.npz", arrays)
    run(wise_team_net_logit, "--logits", path, "--pool", pool, "--temperature")
    logits = load_outside(path)
    rows, labels = logits.samples("heldout")
    weights, _, *how = wise_file.load_weights(tmp_path / "scores" / "wise.json", logits.outputs)
    assert how[0] == pool and how[1][0] > 5 * how[1][1]
    ce = wise.cross_entropy(wise.combine(rows, weights, *how), labels)
    rng = np.random.default_rng(0)
    for _ in range(200):
        rival = rng.random((3, 3)) * wise.available(logits.outputs)
        rival /= rival.sum(axis=1, keepdims=True)
        other = wise.cross_entropy(wise.combine(rows, rival, *how), labels)
        slack = 0 if pool == "probability" else 0.01 * (rival - weights).sum(axis=1)
        assert (ce[1:] <= (other + slack)[1:] + 1e-9).all()
    if pool == "probability":
        np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_network_side_combines_and_scores_as_saved_logits_do(tmp_path):
    """Policy.at, one exit after the other, against the arrays of all clips."""
    torch = pytest.importorskip("torch")
    path = save(tmp_path / "scores.npz", scores())
    for pool in wise.POOLS:
        run(wise_team_net_logit, "--logits", path, "--pool", pool, "--temperature")
        for kind in CONFIDENCES:
            words = ["--max-drop", 5, "--guarantee", 0.9, "--confidence", kind]
            run(team_net_wise_all_acc, "--logits", path, *words)
            policy = load_policy(tmp_path / "scores" / "policy.json")
            assert (policy.pool, policy.confidence) == (pool, kind)
            rows, _ = load_outside(path).samples("heldout")
            combined = combined_logits(policy, rows)
            sure = policy_confidences(policy, combined)
            outputs = list(torch.from_numpy(rows.astype(float)).unbind(1))
            for point in range(3):
                got = policy.at(point, outputs[: point + 1])
                np.testing.assert_allclose(got[0].numpy(), combined[:, point], atol=1e-9)
                np.testing.assert_allclose(got[1].numpy(), sure[:, point], atol=1e-9)
                assert ((sure[:, point] >= 0) & (sure[:, point] <= 1)).all()
