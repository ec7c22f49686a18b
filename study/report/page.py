"""The text of the page, from runs or studies."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from coviar.files import read_json
from coviar.folder import files_below
from dataset_team.finder import VideoFinder
from early_exit.logits import LOGITS_NAME
from study import collect, summary
from study.report.data import section_data
from study.report.html import PAGE, section
from study.summary import Study
from training.provenance import command_line

TITLE = "Accuracy against cost"
MARK = "decisions.csv"  # in every study, in no run folder


def read_settings(source: Path) -> list[Study]:
    """The settings of a study, of the studies right below, or of the runs in a tree.

    Runs that are not finished are named and left out. Raises ValueError or FileNotFoundError.
    """
    studies = [path.parent for path in [source / MARK, *sorted(source.glob(f"*/{MARK}"))]]
    studies = [folder for folder in studies if (folder / MARK).is_file()]
    has_runs = next(files_below(source, [LOGITS_NAME]), None) is not None
    if studies and (studies[0] == source or not has_runs):
        return [part for folder in studies for part in summary.read_study(folder).settings()]
    with tempfile.TemporaryDirectory() as folder:
        gathered = collect.write_study([source], Path(folder))
        for reason in gathered.reasons():
            print(reason)
        return summary.read_study(folder).settings()


def data_roots(source: Path) -> list[Path]:
    """The folders of the runs' videos that still exist."""
    roots = {}
    for path in sorted(files_below(source, ["args.json"])):
        root = read_json(path, "train this run again with --overwrite").get("data_root")
        if root and Path(root).is_dir():
            roots[Path(root)] = None
    return list(roots)


def page(parts: Iterable[tuple[Study, Sequence[VideoFinder]]], plotly: str) -> tuple[str, int]:
    """(the whole page, number of examples with pictures)."""
    payload, sections, with_pictures = [], [], 0
    for number, (study, finders) in enumerate(parts):
        data = {"id": f"study-{number + 1}", "name": study.data, **section_data(study)}
        html, pictured = section(study, data, finders)
        payload.append(data)
        sections.append(html)
        with_pictures += pictured
    links = "".join(f'<a href="#{data["id"]}">{escape(data["name"])}</a>' for data in payload)
    html = Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        title=TITLE,
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        nav=f'<nav aria-label="data sets">{links}</nav>' if len(payload) > 1 else "",
        sections="\n".join(sections),
        command=escape(command_line()),
        # A name in the data must not end the script element.
        payload=json.dumps(payload, allow_nan=False).replace("<", "\\u003c"),
        plotly=plotly,
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
    )
    return html, with_pictures
