"""Figures and tables of a study: what they show against sums written out by hand."""

import csv
import shutil
import statistics

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from study import drawing, exit_figures, figures, summary, tables
from study.drawing import COLOURS
from tests.conftest import REPO
from tests.synthetic_study import METHODS, SEEDS, SPLITS

COMBINATIONS = ("vanilla", "constant", "wise")
PEERS = REPO / "results" / "peers.csv"
POINTS = ["exit1", "exit2", "exit3", "full"]


@pytest.fixture(scope="module")
def study(synthetic_study):
    (only,) = summary.read_study(synthetic_study).settings()
    return only


@pytest.fixture(scope="module")
def rows(synthetic_study):
    """The test rows of each CSV as plain dicts: what the slow computations below start from."""
    found = {}
    for path in synthetic_study.glob("*.csv"):
        with open(path, newline="") as file:
            found[path.stem] = [
                row for row in csv.DictReader(file) if row.get("part", "test") == "test"
            ]
    return found


def values(table, column, **where):
    chosen = [row for row in table if where.items() <= row.items()]
    return [float(row[column]) for row in chosen if row[column]]


def axes_of(figure):
    return [axis for axis in figure.axes if axis.get_title()]


def caption(figure):
    (text,) = figure.texts  # get_supxlabel is from matplotlib 3.8
    return text.get_text().replace("\n", " ")


def spread(numbers, digits=2):
    return f"{statistics.mean(numbers):.{digits}f} ± {statistics.stdev(numbers):.{digits}f}"


def test_tables_are_means_over_seeds_and_splits(study, rows):
    exits = {(row[0], row[1]): row[2:] for row in tables.exit_table(study)[1:]}
    assert len(exits) == len(METHODS) * len(POINTS)
    for method in METHODS:
        for point in POINTS:
            numbers = [
                values(rows["exits"], "top1_pct", method=method, exit=point, combination=name)
                for name in COMBINATIONS
            ]
            assert [len(found) for found in numbers] == [len(SPLITS) * len(SEEDS)] * 3
            here = {"method": method, "exit": point, "combination": "wise", "rule": "common"}
            leaving = values(rows["policies"], "share_pct", **here)
            cost = values(rows["exits"], "gmacs", exit=point)[0]
            expected = [*map(spread, numbers), f"{cost:.3f}", spread(leaving)]
            assert exits[summary.METHOD_LABELS[method], point] == expected
    for row in tables.policy_table(study)[1:]:
        where = {"method": next(m for m, name in summary.METHOD_LABELS.items() if name == row[0])}
        where["combination"] = row[1].lower()
        where.update(rule=row[2].replace(" ", "_"), exit="all")
        assert row[3] == spread(values(rows["policies"], "top1_pct", **where))
        assert row[4] == spread(values(rows["policies"], "gmacs", **where))
        reached = [r["reached"] for r in rows["policies"] if where.items() <= r.items()]
        assert row[6] == f"{reached.count('True')} of 4"


def test_gains_pair_runs_of_the_same_split_and_seed(study, rows):
    def top1(method, combination, split, seed, point):
        where = {"method": method, "combination": combination, "exit": point}
        (value,) = values(rows["exits"], "top1_pct", **where, split=split, seed=str(seed))
        return value

    pairs = [(split, seed) for split in SPLITS for seed in SEEDS]
    table = tables.gain_table(study)
    for combination, row in zip(COMBINATIONS, table[1:]):
        for point, cell in zip(POINTS, row[2:]):
            found = [
                top1("prog_kd", combination, *pair, point)
                - top1("team_ce", combination, *pair, point)
                for pair in pairs
            ]
            assert cell == spread(found, 1)
    for method, row in zip(METHODS, table[4:]):
        assert row[:2] == ["WISE over vanilla", summary.METHOD_LABELS[method]]
        found = [
            top1(method, "wise", *pair, "exit3") - top1(method, "vanilla", *pair, "exit3")
            for pair in pairs
        ]
        assert row[4] == spread(found, 1)
        assert row[2] == "0.0 ± 0.0"  # exit 1 has nothing to combine
    figure = figures.gains(study)
    over_ce, over_vanilla = axes_of(figure)
    wise = [
        top1("prog_kd", "wise", *pair, "exit2") - top1("team_ce", "wise", *pair, "exit2")
        for pair in pairs
    ]
    bars = [[bar.get_height() for bar in group] for group in over_ce.containers if len(group) == 4]
    assert bars[2][1] == pytest.approx(statistics.mean(wise))
    dots = [
        sorted(spots.get_offsets()[:, 1])
        for spots in over_ce.collections
        if isinstance(spots, PathCollection)
    ]
    assert any(np.allclose(found, sorted(wise)) for found in dots)
    assert [text.get_text() for text in over_vanilla.get_legend().get_texts()] == list(
        summary.METHOD_LABELS.values()
    )
    assert "(4 pairs of PKD and CE)" in caption(figure)


def test_gains_leave_out_runs_without_a_partner(study):
    lonely = study.exits[~((study.exits["method"] == "team_ce") & (study.exits["seed"] == 736))]
    fewer = summary.method_gains(replace(study, exits=lonely), "prog_kd", "team_ce", "vanilla")
    assert set(fewer["seed"]) == {1} and len(fewer) == len(SPLITS) * len(POINTS)


def replace(study, **tables):
    return summary.dataclasses.replace(study, **tables)


def test_trade_off_draws_the_mean_sweep(study, rows):
    figure = figures.trade_off(study)
    axes = axes_of(figure)
    assert [axis.get_title() for axis in axes] == ["vanilla", "constant", "WISE"]
    for axis, combination in zip(axes, COMBINATIONS):
        lines = {line.get_label(): line for line in axis.lines}
        for method, colour in zip(METHODS, COLOURS):
            where = {"method": method, "combination": combination, "exit": "all"}
            own = [row for row in rows["trade_off"] if where.items() <= row.items()]
            thresholds = sorted({row["threshold"] for row in own}, key=float)
            for axis_column, column in zip(lines[method].get_data(), ("gmacs", "top1_pct")):
                expected = [
                    statistics.mean(values(own, column, threshold=threshold))
                    for threshold in thresholds
                ]
                assert list(axis_column) == pytest.approx(expected)
            assert lines[method].get_color() == colour
            policy = {**where, "rule": "common"}
            centre = [
                statistics.mean(values(rows["policies"], column, **policy))
                for column in ("gmacs", "top1_pct")
            ]
            points = [container[0].get_xydata()[0] for container in axis.containers]
            assert any(np.allclose(point, centre) for point in points)
    assert "n = 4 runs per method" in caption(figure)
    assert "Splits: split1, split2; seeds: 1, 736" in caption(figure)


def test_peers_are_drawn_on_their_data_set_only(study):
    peers = pd.read_csv(PEERS)
    note = "Published peers report ucf101 and hmdb51 only"
    assert note in caption(figures.trade_off(study, peers))
    ucf = replace(study, exits=study.exits.assign(data="ucf101"))
    figure = figures.trade_off(ucf, peers)
    assert note not in caption(figure)
    for axis in axes_of(figure):
        marks = {line.get_label(): line for line in axis.lines}
        assert marks["CoViAR"].get_xydata().tolist() == [[52.109, 90.4]]
        assert len(marks["PKD + WISE"].get_xydata()) == 3
        assert axis.get_xlim()[1] > 2995  # DMC-Net is on it


def test_published_figure_shows_every_row(study):
    peers = pd.read_csv(PEERS)
    hmdb = replace(study, exits=study.exits.assign(data="hmdb51"))
    for axis, number in zip(axes_of(figures.published(peers, [hmdb])), (0, len(METHODS))):
        own = peers[peers["data"] == axis.get_title()]
        points = [line for line in axis.lines if line.get_marker() in drawing.PEER_MARKERS]
        drawn = np.concatenate([line.get_xydata() for line in points])
        assert sorted(drawn.tolist()) == sorted(own[["gmacs", "top1_pct"]].to_numpy().tolist())
        assert len(axis.lines) - len(points) == number


def test_a_peer_of_one_data_set_has_its_own_mark_everywhere(study):
    peers = pd.read_csv(PEERS)
    new = {"method": "A", "data": "hmdb51", "top1_pct": 50.0, "gmacs": 9.0}
    peers = pd.concat([pd.DataFrame([new]), peers])
    figure = figures.published(peers)
    assert len(drawing.PEER_MARKERS) == len(set(peers["method"])) == 8
    drawn = {}
    for axis in axes_of(figure):
        for line in axis.lines:
            drawn.setdefault(line.get_label(), set()).add(line.get_marker())
    (legend,) = figure.legends
    keys = {line.get_label(): {line.get_marker()} for line in legend.get_lines()}
    assert keys == drawn and len(keys) == 8
    assert len(set.union(*keys.values())) == 8
    ucf = replace(study, exits=study.exits.assign(data="ucf101"))
    (legend,) = figures.trade_off(ucf, peers).legends
    own = {line.get_label(): {line.get_marker()} for line in legend.get_lines()}
    assert {name: own.get(name) for name in keys} == {**keys, "A": None}


def test_more_peers_than_marks_are_refused_by_name():
    peers = pd.read_csv(PEERS)
    more = pd.DataFrame([{**peers.iloc[0], "method": name} for name in ("A", "B")])
    with pytest.raises(ValueError, match=r"9 published methods \(Wu et al., .*B\).* marks for 8"):
        figures.published(pd.concat([peers, more]))


def test_peers_file_agrees_with_itself():
    peers = pd.read_csv(PEERS)
    # three decimals
    assert peers["gmacs"].to_numpy() == pytest.approx(peers["gmacs_1024"] * 1024**3 / 1e9, abs=6e-4)
    assert peers[["protocol", "source"]].notna().all(axis=None)


def test_accuracy_per_exit_has_error_bars_of_the_runs(study, rows):
    axes = axes_of(figures.accuracy_per_exit(study))
    for axis, combination in zip(axes, COMBINATIONS):
        assert len(axis.containers) == len(METHODS)
        for method, container in zip(METHODS, axis.containers):
            where = {"method": method, "combination": combination}
            numbers = [values(rows["exits"], "top1_pct", **where, exit=point) for point in POINTS]
            assert list(container[0].get_ydata()) == pytest.approx(
                list(map(statistics.mean, numbers))
            )
            (bars,) = container[2]
            lengths = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
            # Atol: the mean is a sum of numbers near 100, and where all runs agree std is 0.
            assert lengths == pytest.approx(list(map(statistics.stdev, numbers)), abs=1e-9)


def test_exit_shares_add_up_to_everyone(study, rows):
    axis = axes_of(exit_figures.exit_shares(study))[1]
    assert axis.get_title() == "PKD" and len(axis.collections) == len(POINTS)
    where = {"method": "prog_kd", "combination": "wise"}
    thresholds = sorted({float(row["threshold"]) for row in rows["trade_off"]})
    total = np.zeros(len(thresholds))
    for area, point in zip(axis.collections, POINTS):
        own = [row for row in rows["trade_off"] if where.items() <= row.items()]
        total += [
            statistics.mean(
                values([r for r in own if float(r["threshold"]) == t], "share_pct", exit=point)
            )
            for t in thresholds
        ]
        edge = {tuple(corner) for corner in area.get_paths()[0].vertices.round(6).tolist()}
        assert edge >= {(t, y) for t, y in zip(thresholds, total.round(6).tolist())}
    assert total == pytest.approx(np.full(len(thresholds), 100))


def test_weights_are_written_into_their_cells(study, rows):
    axes = axes_of(exit_figures.weights(study))
    assert [axis.get_title() for axis in axes] == list(summary.METHOD_LABELS.values())
    outputs = [label.get_text() for label in axes[-1].get_xticklabels()]
    assert outputs == ["exit1", "exit2", "exit3", "iframe", "mv", "residual"]
    written = {text.get_position(): text.get_text() for text in axes[3].texts}
    assert len(written) == 1 + 2 + 3 + 6  # no cell for what has not run
    for (column, row), text in written.items():
        where = {"method": "i_frame", "point": POINTS[row], "output": outputs[column]}
        assert text == f"{statistics.mean(values(rows['weights'], 'beta', **where)):.2f}"


def test_confusion_counts_where_videos_leave(study, rows):
    own = [row for row in rows["decisions"] if row["method"] == "prog_kd" and row["left"] == "1"]
    called, leaving = axes_of(exit_figures.confusion(study))
    classes = [label.get_text() for label in called.get_yticklabels()]
    drawn = called.images[0].get_array()
    start = dict.fromkeys(classes, 0)
    for r, name in enumerate(classes):
        members = [row for row in own if row["class_name"] == name]
        for c, other in enumerate(classes):
            share = 100 * sum(row["prediction"] == other for row in members) / len(members)
            assert drawn[r, c] == pytest.approx(share)
    for bars, point in zip(leaving.containers, POINTS):
        for bar, name in zip(bars, classes):
            members = [row for row in own if row["class_name"] == name]
            share = 100 * sum(row["exit"] == point for row in members) / len(members)
            assert (bar.get_x(), bar.get_width()) == pytest.approx((start[name], share))
            start[name] += share
    with pytest.raises(ValueError, match="no runs of 'mine' here, only of team_ce, prog_kd"):
        exit_figures.confusion(study, "mine")


def make_timings(study, scale=1.0, precision="fp32", load=None, **changes):
    """Rows of a latency.csv: leaving at the d-th point takes 10 d ms."""
    about = {"arch": "resnet18", "motion_arch": "resnet18", "num_segments": 8, "crop_size": 64}
    about.update(precision=precision, threads=1, batch_size=1, machine="m", **changes)
    timed = [
        {**about, "exit": point, "latency_ms": 10 * scale * (d + 1), "gmacs": study.costs[point]}
        for d, point in enumerate(study.points)
    ]
    if load:
        timed.append({**about, "exit": "load", "latency_ms": load, "gmacs": np.nan})
    return timed


def test_latency_is_the_mean_over_where_videos_leave(study, rows):
    timings = pd.DataFrame(make_timings(study, load=7.0))
    axis = figures.latency(study, figures.matching_timings(study, timings)).axes[0]
    line = next(line for line in axis.lines if line.get_label() == "team_ce")
    where = {"method": "team_ce", "combination": "wise"}
    for threshold, x, y in zip(
        ("0.0", "1.0"), line.get_xdata()[[0, -1]], line.get_ydata()[[0, -1]]
    ):
        here = {**where, "threshold": threshold}
        assert y == pytest.approx(
            statistics.mean(values(rows["trade_off"], "top1_pct", **here, exit="all"))
        )
        shares = [
            statistics.mean(values(rows["trade_off"], "share_pct", **here, exit=point))
            for point in POINTS
        ]
        assert x == pytest.approx(7 + sum(10 * (d + 1) * s / 100 for d, s in enumerate(shares)))


def test_timings_of_another_network_are_not_used(study):
    other = pd.DataFrame(make_timings(study)).assign(gmacs=lambda rows: 2 * rows["gmacs"])
    assert figures.matching_timings(study, other) is None
    fewer = pd.DataFrame(make_timings(study)[1:])
    assert figures.matching_timings(study, fewer) is None
    batches = pd.DataFrame(make_timings(study)).assign(batch_size=8)
    assert figures.matching_timings(study, batches) is None
    slow, fast = make_timings(study), make_timings(study, scale=0.5, precision="bf16")
    chosen = figures.matching_timings(study, pd.DataFrame([*slow, *fast]))
    assert set(chosen["precision"]) == {"bf16"}


def test_one_run_of_one_method_can_be_drawn(study):
    """No pairs, no spread, no other method: as after the first run of a study."""

    def first(table):
        keys = {"method": "prog_kd", "split": "split1", "seed": 1}
        return summary.where(table, **{k: v for k, v in keys.items() if k in table})

    names = ("runs", "exits", "trade_off", "policies", "weights", "decisions", "backbones")
    (one,) = replace(study, **{name: first(getattr(study, name)) for name in names}).settings()
    draws = (figures.trade_off, figures.accuracy_per_exit, figures.gains, exit_figures.exit_shares)
    for draw in (*draws, exit_figures.weights, exit_figures.confusion):
        assert "n = 1 runs per method" in caption(draw(one))
    assert "±" not in tables.to_markdown(tables.exit_table(one))


def test_too_many_methods_for_the_palette():
    with pytest.raises(ValueError, match="mine has 7 methods .0, 1, .*marks for 6: name the"):
        drawing.marks([str(number) for number in range(7)], "mine")


def test_saved_as_picture_and_for_print(study, tmp_path):
    png, pdf = drawing.save(figures.accuracy_per_exit(study), tmp_path / "figures", "exits")
    picture = matplotlib.image.imread(png)
    assert picture.shape[1] == drawing.TWO_COLUMNS * 300
    assert pdf.read_bytes().startswith(b"%PDF")
    once = [path.read_bytes() for path in (png, pdf)]
    drawing.save(figures.accuracy_per_exit(study), tmp_path / "figures", "exits")
    assert [path.read_bytes() for path in (png, pdf)] == once


def test_savings_are_the_cheapest_good_thresholds_of_each_run(study, rows):
    for row in tables.savings_table(study)[1:]:
        method = next(m for m, name in summary.METHOD_LABELS.items() if name == row[0])
        combination = row[1].lower()
        for drop, cell in enumerate(row[2:]):
            costs = []
            for split in SPLITS:
                for seed in SEEDS:
                    run = {"method": method, "split": split, "seed": str(seed)}
                    vanilla = {**run, "combination": "vanilla", "exit": "full"}
                    (full,) = values(rows["exits"], "top1_pct", **vanilla)
                    (cost,) = values(rows["exits"], "gmacs", **vanilla)
                    curve = {**run, "combination": combination, "exit": "all"}
                    tops = values(rows["trade_off"], "top1_pct", **curve)
                    spent = values(rows["trade_off"], "gmacs", **curve)
                    good = [g for top1, g in zip(tops, spent) if top1 >= full - drop]
                    costs.append(100 * min(good, default=cost) / cost)
            assert cell == spread(costs, 1)


def test_table_formats():
    table = [["method", "top-1 %"], ["a_b & c", "1.00 ± 0.50"]]
    assert tables.to_markdown(table).splitlines() == [
        "| method  | top-1 %     |",
        "|---------|-------------|",
        "| a_b & c | 1.00 ± 0.50 |",
    ]
    latex = tables.to_latex(table, "50 % of A_1")
    assert r"\caption{50 \% of A\_1}" in latex
    assert r"a\_b \& c & 1.00 $\pm$ 0.50 \\" in latex
    assert latex.count(r"\\") == 2 and r"\begin{tabular}{lr}" in latex
    for rule in ("toprule", "midrule", "bottomrule"):
        assert latex.count(rf"\{rule}") == 1


def test_captions_say_goal_spread_and_n(study):
    caption = tables.table_caption(study, "policies")
    for words in ("toy. Test top-1 in percent and cost", "max-drop 1, chosen on heldout", "n = 4"):
        assert words in caption
    assert "max-drop" not in tables.table_caption(study, "accuracy")


def test_tables_are_saved_as_markdown_and_latex(study, tmp_path):
    table = tables.accuracy_table(study)
    markdown, latex = tables.save_table(table, "What it shows.", tmp_path / "new", "accuracy")
    assert markdown.read_text() == f"{tables.to_markdown(table)}\n\nWhat it shows.\n"
    assert latex.read_text() == tables.to_latex(table, "What it shows.")
    assert latex.name == "accuracy.tex"


def test_studies_are_found_in_results_and_below(synthetic_study, tmp_path):
    assert summary.find_studies(synthetic_study.parent) == [synthetic_study]
    assert summary.find_studies(synthetic_study) == [synthetic_study]
    assert summary.find_studies(tmp_path) == []
    slim = shutil.copytree(synthetic_study, tmp_path / "slim")
    (slim / "decisions.csv").unlink()
    assert summary.find_studies(tmp_path) == [] and summary.find_studies(slim) == [slim]
    with pytest.raises(FileNotFoundError, match="runs.csv is missing; python -m study.collect"):
        summary.read_study(tmp_path)
