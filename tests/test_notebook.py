"""The notebook: committed without outputs, and run from top to bottom on a made-up study."""

import ast
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import REPO

NAMES = ("trade_off", "accuracy_per_exit", "gains", "exit_shares", "weights", "confusion")
TABLES = ("accuracy", "exits", "policies", "savings", "gains")


@pytest.fixture
def notebook():
    return nbformat.read(REPO / "trade_off_all.ipynb", as_version=4)


def run(notebook, monkeypatch, results, figures):
    monkeypatch.setenv("RESULTS", str(results))
    monkeypatch.setenv("FIGURES", str(figures))
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(REPO)}})
    client.execute()


def test_it_is_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            ast.parse(re.sub("(?m)^%.*", "", cell.source))


def test_every_figure_is_explained_before_it_is_drawn(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    sources = [cell.source for cell in notebook.cells]
    drawing = [
        n
        for n, text in enumerate(sources)
        if re.search(r"^(show\(|figure = |    figure = )", text, re.M)
    ]
    drawing = [n for n in drawing if kinds[n] == "code" and "def show" not in sources[n]]
    assert len(drawing) == len(NAMES) + 4  # published, latency, frontier, few_labels
    for n in drawing:
        assert kinds[n - 1] == "markdown" and sources[n - 1].startswith("## ")


def test_it_runs_and_writes_every_figure_and_table(
    notebook, monkeypatch, synthetic_study, tmp_path
):
    results, figures = tmp_path / "results", tmp_path / "figures"
    (results / "many").mkdir(parents=True)
    (results / "toy").symlink_to(synthetic_study)
    row = {"data": "many", "family": "depth", "way": "exit1", "gmacs": 0.5, "top1_pct": 50.0}
    row.update(std_over_backbones_pct=3.0, backbones=9, method="prog_kd", command="c")
    pd.DataFrame([row]).to_csv(results / "many/frontier.csv", index=False)
    gain = {"data": "many", "teacher": "fused", "per_class": "1", "wrong_pct": 0, "unlabelled": 1}
    gain.update(
        top1_pct=40.0, labels_top1_pct=30.0, difference_pct=10.0, low_pct=5.0, high_pct=14.0
    )
    gain.update(std_over_backbones_pct=1.0, backbones=9, command="c")
    pd.DataFrame([gain]).to_csv(results / "many/gains.csv", index=False)
    run(notebook, monkeypatch, results, figures)
    expected = {f"toy/{name}.{kind}" for name in NAMES for kind in ("png", "pdf")}
    expected |= {f"toy/{name}.{kind}" for name in TABLES for kind in ("md", "tex")}
    expected |= {"published.png", "published.pdf", "many/frontier.png", "many/frontier.pdf"}
    expected |= {"few_labels.png", "few_labels.pdf"}
    written = {path.relative_to(figures).as_posix() for path in figures.rglob("*.*")}
    assert written == expected
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == len(NAMES) + 3
    printed = " ".join(str(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    assert "n = 4 runs per method" in printed
    assert "holds no times of this network" in printed
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize(
    ("tables", "figures"),
    [
        (["few_labels"], ["."]),
        (["few_labels", "longer"], ["few_labels", "longer"]),
        (["a/few_labels", "b/few_labels"], ["a/few_labels", "b/few_labels"]),
    ],
)
def test_no_figure_of_gains_takes_the_place_of_another(notebook, tmp_path, tables, figures):
    for folder in tables:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "gains.csv").write_text(f"data\n{folder}\n")
    saved = []

    class Saves:
        draw = staticmethod(lambda table: table["data"][0])
        save = staticmethod(lambda figure, folder, name: saved.append((figure, folder, name)))

    known = {"pd": pd, "Path": Path, "label_gain": Saves, "drawing": Saves, "Markdown": str}
    known.update(RESULTS=str(tmp_path), FIGURES="figures", display=lambda *_: None)
    exec(notebook.cells[-1].source, known)
    assert saved == [
        (table, Path("figures", folder), "few_labels") for table, folder in zip(tables, figures)
    ]


def test_without_a_study_it_says_what_to_do(notebook, monkeypatch, tmp_path):
    with pytest.raises(CellExecutionError, match="no study in .*make demo"):
        run(notebook, monkeypatch, tmp_path, tmp_path)
