"""The page's sections as HTML: all that the slider does not change."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from dataset_team.finder import VideoFinder
from study import summary, tables
from study.report.data import MAX_MISTAKES, first_method
from study.report.examples import EXAMPLE_KINDS, Example, choose, pictures
from study.summary import COMBINATION_LABELS, Study

PAGE = Path(__file__).with_name("static")
TIMES_HTML = '<p><b data-live="ms"></b><span>ms per video: decoding + network</span></p>'
STROKE_DASHES = {"vanilla": "2 3", "constant": "7 4", "wise": ""}


def html_table(rows: Sequence[Sequence[str]], name: str) -> str:
    """A table of the summary as HTML; rows whose first cells are equal share that cell."""
    header, *body = rows
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = []
    for first, group in itertools.groupby(body, key=lambda row: row[0]):
        group = ["".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) for row in group]
        title = f'<th scope="rowgroup" rowspan="{len(group)}">{escape(first)}</th>'
        lines.append(f'<tr class="group">{title}{group[0]}</tr>')
        lines += [f"<tr>{cells}</tr>" for cells in group[1:]]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def options(names: dict[str, str]) -> str:
    return "".join(
        f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in names.items()
    )


def tiles(study: Study, data: dict) -> str:
    """The main numbers, at the top."""
    method = data["first_method"]
    policy = data["policies"][method]["wise"]
    cost = f"{100 * policy['gmacs'] / data['gmacs'][-1]:.0f} % of full"
    if policy["ms"]:
        cost += f", {sum(policy['ms']):.0f} ms"
    runs = study.runs
    shown = {
        "Full network, test top-1": (f"{data['full'][0]:.1f} %", f"{data['gmacs'][-1]:.2f} GMACs"),
        f"{data['labels'][method]} with WISE, calibrated": (
            f"{policy['top1']:.1f} %",
            f"{policy['gmacs']:.2f} GMACs, {cost}",
        ),
        "Test videos": (
            ", ".join(map(str, sorted(study.exits["num_videos"].unique()))),
            f"{len(data['classes'])} classes",
        ),
        "Runs": (
            str(len(runs)),
            ", ".join(
                f"{number} {what}{'s' * (number > 1)}"
                for what, number in runs[["method", "split", "seed"]].nunique().items()
            ),
        ),
    }
    return "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}<small>{escape(more)}</small></dd></div>"
        for name, (value, more) in shown.items()
    )


def breakable(name: str) -> str:
    """A class name as HTML whose line may break inside it: BodyWeight|Squats."""
    return re.sub(r"(?<=[a-z_])(?=[A-Z])", "<wbr>", escape(name))


def card(example: Example, images: dict[str, str]) -> str:
    """One example clip: its pictures, and its label at each decision point."""
    rows = []
    for d, row in enumerate(example.points):
        state = "left" if d == example.left else "later" if d > example.left else ""
        word, mark = ("right", "✓") if row["correct"] else ("wrong", "✗")
        where = escape(row["exit"].replace("exit", "exit "))
        note = '<span class="unseen">, leaves here</span>' if d == example.left else ""
        rows.append(
            f'<tr class="{state}"><th scope="row">{where}{note}</th>'
            f'<td><span class="bar" style="width:{100 * row["confidence"]:.0f}%"></span></td>'
            f"<td>{row['confidence']:.2f}</td>"
            f'<td class="{word}"><span aria-hidden="true">{mark}</span>'
            f'<span class="unseen">{word}: </span></td>'
            f"<td>{breakable(row['prediction'])}</td></tr>"
        )
    name, true = escape(Path(example.video).name), escape(example.class_name)
    shown = "".join(
        f'<figure><img src="{uri}" alt="{what} of {name}"><figcaption>{what}</figcaption></figure>'
        for what, uri in images.items()
    )
    thumbs = f'<div class="thumbs">{shown}</div>' if shown else ""
    return (
        f'<article class="card example"><h5>{true}</h5><p class="file">{name}</p>{thumbs}'
        f'<table class="points"><tbody>{"".join(rows)}</tbody></table></article>'
    )


def examples(study: Study, finders: Sequence[VideoFinder]) -> tuple[str, str, int]:
    """(what is shown, the cards, how many have pictures) for one run of the first method."""
    method = first_method(study)
    decisions = study.decisions[study.decisions["method"] == method]
    split, seed = min(zip(decisions["split"], decisions["seed"]))
    chosen = choose(decisions[(decisions["split"] == split) & (decisions["seed"] == seed)])
    html, with_pictures = [], 0
    for kind, name in EXAMPLE_KINDS.items():
        own = [example for example in chosen if example.kind == kind]
        if own:
            html.append(f'<h4>{name.capitalize()}</h4><div class="examples">')
            for example in own:
                images = _images(example.video, finders)
                with_pictures += bool(images)
                html.append(card(example, images))
            html.append("</div>")
    note = (
        f"Test clips of one run ({summary.label(method)}, {split}, seed {seed}): class and "
        "confidence at every decision point. The clip leaves at the blue row; the network does not "
        "compute the grey ones."
    )
    if with_pictures < len(chosen):
        note += (
            " Pictures are missing where the videos were not found"
            " (make the page with --data-root to have them)."
        )
    if with_pictures:
        note += (
            " Pictures: the I-frame of the middle GOP, then motion (colour: direction, strength:"
            " length) and residual (grey: none) from there to the GOP's last picture."
        )
    return escape(note), "\n".join(html), with_pictures


def _images(video: str, finders: Iterable[VideoFinder]) -> dict[str, str]:
    for finder in finders:
        path = finder.find(video)
        if path:
            return pictures(path)
    return {}


def _curves(data: dict) -> list[dict]:
    return [curve for curves in data["curves"].values() for curve in curves.values()]


def section(study: Study, data: dict, finders: Sequence[VideoFinder]) -> tuple[str, int]:
    """(HTML, number of examples with pictures) of one setting's part of the page."""
    note, cards, with_pictures = examples(study, finders)
    several = study.runs.groupby("method").size().max() > 1
    std = "the sample standard deviation over seeds and splits"
    lines = "".join(
        f'<label><input type="checkbox" value="{name}" checked><svg viewBox="0 0 28 8" '
        f'aria-hidden="true"><path d="M0 4h28" stroke="#1b2330" stroke-width="2" '
        f'stroke-dasharray="{STROKE_DASHES[name]}"/></svg>{text}</label>'
        for name, text in COMBINATION_LABELS.items()
    )
    backbone = ""
    if len(study.backbones):
        backbone = "<h4>The backbone: test top-1 in percent</h4>"
        backbone += html_table(tables.backbone_table(study), "backbone")
    combinations = sorted(set(study.decisions["combination"]))
    decided_by = ", ".join(COMBINATION_LABELS.get(name, name) for name in combinations)
    commands = sorted(set(study.runs["command"]))
    html = Template((PAGE / "section.html").read_text(encoding="utf-8")).substitute(
        id=escape(data["id"]),
        name=escape(data["name"]),
        protocol=escape(study.protocol()),
        tiles=tiles(study, data),
        spread=f"Numbers are means over runs; ± is {std}." if several else "",
        bars=f"Bars: {std}." if several else "One run.",
        method_options=options(data["labels"]),
        combination_options=options(COMBINATION_LABELS),
        last_step=len(data["thresholds"]) - 1,
        times=TIMES_HTML if any(curve["ms"] for curve in _curves(data)) else "",
        line_options=lines,
        goal=escape(study.calibration()),
        exit_table=html_table(tables.exit_table(study), "each exit alone"),
        policy_table=html_table(tables.policy_table(study), "early exiting"),
        backbone_table=backbone,
        decided_by=escape(decided_by),
        max_mistakes=MAX_MISTAKES,
        examples_note=note,
        examples=cards,
        commands=escape("\n".join(commands)),
    )
    return html, with_pictures
