"""One HTML page of results that opens anywhere, also offline: tables, plots, a slider, examples.

    python -m early_exit.report runs/ucf101 --out report.html
    python -m early_exit.report results/ucf101 --data-root VIDEOS --out report.html

Takes run trees, whose results it gathers as `python -m early_exit.collect` does, or studies that
were gathered before. Example clips come with pictures where their videos are found: under
--data-root, else where the runs' args.json says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from coviar.files import whole_file
from dataset_team.finder import VideoFinder
from early_exit import collect, summary
from early_exit.options import LOGITS_NAME
from early_exit.report_data import section_data
from early_exit.report_html import PAGE, section
from early_exit.summary import Study
from early_exit.tables import write_rows
from training.log import command_line, print_result
from training.options import make_parser

TITLE = "Accuracy against cost"
MARK = "decisions.csv"  # is in every study, but not in the folder of a run


def read(source: Path) -> list[Study]:
    """The settings of a study, of the studies right below, or of the runs in a tree.

    Runs that are not finished are named and left out. Raises ValueError or FileNotFoundError.
    """
    studies = [path.parent for path in [source / MARK, *sorted(source.glob(f"*/{MARK}"))]]
    studies = [folder for folder in studies if (folder / MARK).is_file()]
    has_runs = next(source.rglob(LOGITS_NAME), None) is not None
    if studies and (studies[0] == source or not has_runs):
        return [part for folder in studies for part in summary.read_study(folder).settings()]
    gathered = collect.gather([source])
    reasons = [f"left out: {folder}: {why}" for folder, why in gathered.left_out.items()]
    if not gathered.rows["exits.csv"]:
        raise ValueError("\n  ".join([f"no run of exits below {source} is finished", *reasons]))
    for reason in reasons:
        print(reason)
    with tempfile.TemporaryDirectory() as folder:
        for name, columns in collect.STUDY_COLUMNS.items():
            write_rows(Path(folder, name), columns, gathered.rows[name])
        return summary.read_study(folder).settings()


def data_roots(source: Path) -> list[Path]:
    """Where the runs below had their videos, as far as those folders are there."""
    roots = {}
    for path in sorted(source.rglob("args.json")):
        try:
            root = json.loads(path.read_text()).get("data_root")
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
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
        # No name in the data may end the script element it stands in.
        payload=json.dumps(payload, allow_nan=False).replace("<", "\\u003c"),
        plotly=plotly,
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
    )
    return html, with_pictures


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("sources", type=Path, nargs="+", help="trees of runs, or folders of studies")
    group.add_argument("--out", type=Path, required=True, metavar="HTML", help="the page")
    group.add_argument("--data-root", type=Path, nargs="+", help="folders of the videos")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        parser.error("the plots need plotly: pip install plotly")
    for root in args.data_root or []:
        if not root.is_dir():
            parser.error(f"--data-root {root}: no such folder")
    parts = []
    try:
        for source in args.sources:
            roots = args.data_root or data_roots(source)
            finders = [VideoFinder(root) for root in roots]
            parts += [(study, finders) for study in read(source)]
        html, with_pictures = page(parts, get_plotlyjs())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with whole_file(args.out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    settings = [study.data for study, _ in parts]
    size = {"mb": round(len(html.encode()) / 1e6, 2), "examples_with_pictures": with_pictures}
    print_result({"page": str(args.out), "data": settings, **size})


if __name__ == "__main__":
    parser = get_args_parser()
    main(parser.parse_args(), parser)
