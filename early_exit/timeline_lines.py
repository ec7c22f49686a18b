"""A timeline as lines of text, JSON or CSV, each written as soon as it is decided."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from early_exit.picture import drawn
from early_exit.strip import MOST_WINDOWS, draw_strip
from early_exit.timeline import Moment, Timeline, merge, time_text

FORMATS = ("text", "json", "csv")
_COLUMNS = ("video", "start_s", "end_s", "label", "probability", "exit", "gmacs", "windows")


class Tally:
    """What a run has done: windows, those with a problem, exits taken, seconds of video, pictures
    that could not be written."""

    def __init__(self):
        self.windows = self.failed = self.undrawn = 0
        self.exits: Counter = Counter()
        self.gmacs = self.video_s = 0.0
        self.started = time.perf_counter()

    def count(self, moment: Moment) -> None:
        self.windows += 1
        if moment.problem:
            self.failed += 1
        else:
            self.exits[moment.point] += 1
            self.gmacs += moment.gmacs

    @property
    def result(self) -> dict:
        decided = self.windows - self.failed
        spent = time.perf_counter() - self.started
        return {
            "windows": self.windows,
            "failed": self.failed,
            "exits": self.exits,
            "mean_gmacs": round(self.gmacs / decided, 4) if decided else None,
            "video_s": round(self.video_s, 2),
            "times_real_time": round(self.video_s / spent, 2),
        }


def write_timeline(
    timeline: Timeline,
    source: str,
    tally: Tally,
    form: str = "text",
    merged: bool = False,
    picture: Path | None = None,
) -> None:
    """Write the lines of one source to stdout, problems also to stderr, and draw its picture.

    The picture shows the last windows. It is drawn even when the source ends in an error or the
    user stops the program; both are raised after that. One that cannot be written is tallied.
    """
    last: deque = deque(maxlen=MOST_WINDOWS)
    before = tally.video_s

    def followed() -> Iterator[Moment]:
        for moment in timeline:
            tally.count(moment)
            tally.video_s = before + moment.end
            bar.n = moment.end
            speed = moment.end / max(1e-9, time.perf_counter() - started)
            bar.set_postfix_str(f"{speed:.1f}x real time")
            if picture is not None:
                last.append(moment)
            yield moment

    started = time.perf_counter()
    shape = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of video, {postfix}"
    if timeline.duration is None:
        shape = "{n:.0f} s of video, {postfix}"
    with tqdm(total=timeline.duration, bar_format=shape, disable=None) as bar:
        moments = merge(followed()) if merged else followed()
        try:
            for moment in moments:
                tqdm.write(_line(source, moment, form), file=sys.stdout)
                sys.stdout.flush()
                if moment.problem:
                    where = f"{time_text(moment.start)} to {time_text(moment.end)}"
                    tqdm.write(f"failed: {source}: {where}: {moment.problem}", file=sys.stderr)
        finally:
            if last and not drawn(picture, draw_strip, source, list(last), timeline.costs):
                tally.undrawn += 1
    for note in dict.fromkeys(timeline.notes):
        print(f"note: {source}: {note}", file=sys.stderr)


def header(form: str) -> str | None:
    """The first line of the output, if there is one."""
    return ",".join((*_COLUMNS, "error")) if form == "csv" else None


def _line(source: str, moment: Moment, form: str) -> str:
    if form == "text":
        return _words(source, moment)
    values = _values(source, moment)
    if form == "json":
        return json.dumps(values)
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(
        [values.get(column, "") for column in (*_COLUMNS, "error")]
    )
    return row.getvalue()


def _values(source: str, moment: Moment) -> dict:
    times = {"video": source, "start_s": round(moment.start, 3), "end_s": round(moment.end, 3)}
    if moment.problem:
        return {**times, "error": moment.problem}
    return {
        **times,
        "label": moment.label,
        "probability": moment.probability,
        "exit": moment.point,
        "gmacs": moment.gmacs,
        "windows": moment.windows,
    }


def _words(source: str, moment: Moment) -> str:
    start = f"{source}: {time_text(moment.start)} to {time_text(moment.end)}: "
    if moment.problem:
        return start + "not decoded"
    where = {"full": "full network", "several": "several exits"}.get(
        moment.point, moment.point.replace("exit", "exit ")
    )
    sure = f"{100 * moment.probability:.1f} %"
    return start + f"{moment.label} {sure}, {where}, {moment.gmacs:.2f} GMACs"
