"""One HTML page of results that needs no network: tables, plots, a slider, examples.

    python -m study.report runs/ucf101 --out report.html
    python -m study.report results/ucf101 --data-root VIDEOS --out report.html

Takes folders of runs, whose results it gathers as `python -m study.collect` does, or studies.
Example clips have pictures where their videos are found: under --data-root, else where the runs'
args.json says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coviar.command import run
from coviar.files import whole_file
from dataset_team.finder import VideoFinder
from study.report.page import data_roots, page, read_settings
from training.options import make_parser
from training.provenance import print_result


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("sources", type=Path, nargs="+", help="folders of runs, or of studies")
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
            parts += [(study, finders) for study in read_settings(source)]
        html, with_pictures = page(parts, get_plotlyjs())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with whole_file(args.out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    settings = [study.data for study, _ in parts]
    size = {"mb": round(len(html.encode()) / 1e6, 2), "examples_with_pictures": with_pictures}
    print_result({"page": str(args.out), "data": settings, **size})


if __name__ == "__main__":
    run(main, get_args_parser())
